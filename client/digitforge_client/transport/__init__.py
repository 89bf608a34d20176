"""gRPC transport: channels, errors and the wire format."""
