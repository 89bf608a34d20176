"""The commands `evaluate`, `experiment`, `gallery` and `demo`."""
