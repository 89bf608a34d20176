"""The demo: serve, request and measure digits with one command."""
