"""The gallery: recipes compared on one page."""
