"""digitforge: evaluation."""
