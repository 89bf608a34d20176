"""digitforge in one import."""

from importlib.metadata import version

__version__ = version("digitforge")
