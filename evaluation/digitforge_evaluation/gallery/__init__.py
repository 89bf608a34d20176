"""Recipes side by side, on one page."""
