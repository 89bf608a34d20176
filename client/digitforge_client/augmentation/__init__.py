"""Appends synthetic digits to a labeled data set."""
