"""One file per metric: arrays in, numbers out."""
