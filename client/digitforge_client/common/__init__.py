"""What all four components share: the command, files, archives, parallel work."""
