"""The commands ``serve``, ``models`` and ``certificates``."""
