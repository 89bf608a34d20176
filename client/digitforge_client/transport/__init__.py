"""How messages travel: gRPC channels, errors, the wire format."""
