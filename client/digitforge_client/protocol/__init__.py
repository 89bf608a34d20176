"""The protocol between client and servers: which messages, in which order. It does no I/O itself."""
