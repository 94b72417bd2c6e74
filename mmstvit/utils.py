"""The module in which MMEngine looks for a package's ``register_all_modules``."""

from .hub import register_all_modules

__all__ = ['register_all_modules']
