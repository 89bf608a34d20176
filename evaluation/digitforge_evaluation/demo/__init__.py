"""The demonstration: serve, draw and measure digits in one command."""
