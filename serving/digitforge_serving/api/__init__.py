"""TensorFlow Serving's API over gRPC and REST."""
