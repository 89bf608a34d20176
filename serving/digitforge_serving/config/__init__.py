"""Options and configuration files of the server."""
