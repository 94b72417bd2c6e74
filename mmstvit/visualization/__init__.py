"""Read super tokens and attention from a running model, and draw them."""

from .drawing import image_of
from .figures import contact_sheet, draw_blocks, write_gif
from .hook import SuperTokenVisHook
from .reading import attention_of, super_tokens
from .records import Attention, SuperTokens

__all__ = [
    'Attention',
    'SuperTokenVisHook',
    'SuperTokens',
    'attention_of',
    'contact_sheet',
    'draw_blocks',
    'image_of',
    'super_tokens',
    'write_gif',
]
