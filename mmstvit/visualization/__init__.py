"""Read super tokens and attention from a running model, and draw them."""

from .reading import attention_of, super_tokens
from .records import Attention, SuperTokens

__all__ = ['Attention', 'SuperTokens', 'attention_of', 'super_tokens']
