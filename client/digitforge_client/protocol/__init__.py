"""What the client says to a server and in which order, without any I/O."""
