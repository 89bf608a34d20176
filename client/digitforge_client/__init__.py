"""digitforge's client: labelled synthetic digits over gRPC, without TensorFlow."""
