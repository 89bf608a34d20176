"""Feature networks that metrics look through."""
