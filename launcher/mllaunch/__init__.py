"""Launch machine-learning runs from committed code, and know afterwards where every result came from."""

__version__ = "0.1.0"
