"""Feature networks: from images to the features that metrics compare."""
