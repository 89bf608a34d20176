"""The commands ``train``, ``adapt``, ``export`` and ``recipes``."""
