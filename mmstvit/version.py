"""Version of mmstvit."""

__version__ = '0.1.0'
