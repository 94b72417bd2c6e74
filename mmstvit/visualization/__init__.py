"""Read super tokens and attention from a running model, and draw them."""

from mmstvit.drawing import contact_sheet

from .extraction import attention_of, super_tokens
from .hook import SuperTokenVisHook
from .panels import draw_blocks, write_gif
from .records import Attention, SuperTokens
from .token_maps import image_of

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
