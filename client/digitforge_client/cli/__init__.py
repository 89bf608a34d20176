"""The commands ``sample``, ``generate`` and ``verify``."""
