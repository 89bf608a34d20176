"""digitforge: serving."""
