"""Sources of images: servers, SavedModels and files."""
