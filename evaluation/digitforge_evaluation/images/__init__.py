"""Where images come from: servers, SavedModels, files."""
