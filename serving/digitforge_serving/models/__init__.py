"""Models in memory and on disk: load, batch, compute, publish."""
