"""Code that all four components share: the command, files, archives and parallel work."""
