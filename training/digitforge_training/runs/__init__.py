"""A training run on disk: the loop, checkpoints, journal, pictures."""
