"""Very large data sets of digits on disk: generate, describe, verify, read."""
