"""Exports a run as a SavedModel with a card."""
