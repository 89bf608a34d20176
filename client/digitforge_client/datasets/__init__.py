"""Very large data sets of digits on disk: generates, describes, verifies and reads them."""
