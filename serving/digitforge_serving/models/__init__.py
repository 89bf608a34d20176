"""Load, run and publish models."""
