"""From a run to a SavedModel with its card."""
