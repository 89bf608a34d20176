"""Classifiers that experiments train."""
