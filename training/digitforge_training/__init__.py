"""digitforge: training."""
