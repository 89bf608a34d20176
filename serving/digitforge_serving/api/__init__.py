"""TensorFlow Serving's protocol over gRPC and REST."""
