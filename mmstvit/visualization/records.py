"""Super tokens and attention of one block, as arrays.

A map of the backbone at stride t has one token for t×t pixels. Maps at image size repeat the value of a token for its
pixels.
"""

import functools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Record:
    """Block from which something was read.

    Args:
        name: Name of the block in the model, such as ``'backbone.stages.0.2'``.
        stage: Stage, from 0.
        block: Block in the stage, from 0.
        stride: Side of a token, in pixels.
        stoken_size: Side of a super token's cell, in tokens; 1 is global attention, each token is a super token.
        grid: Super tokens per column and row (h, w).
        size: Height and width of the image, in pixels.
    """

    name: str
    stage: int
    block: int
    stride: int
    stoken_size: int
    grid: tuple[int, int]
    size: tuple[int, int]

    def enlarge(self, values: np.ndarray) -> np.ndarray:
        """Repeat the value of each token for its pixels: (…, H/t, W/t) -> (…, H, W)."""
        height, width = self.size
        return values[..., np.arange(height)[:, None] // self.stride, np.arange(width) // self.stride]


@dataclass(frozen=True)
class SuperTokens(Record):
    """Association of the tokens of one block with its super tokens (Eq. 5 of the paper).

    Super tokens are counted row by row. The weight ``association[y, x, k]`` belongs to neighbor k of the cell in which
    token (y, x) lies, the nine neighbors again row by row. Nine weights add up to 1. As in the official implementation,
    neighbors outside the grid have a weight too, although they are no super tokens.

    Args:
        association: Weights of each token for the super tokens around its cell, padding cropped, (⌈H/t⌉, ⌈W/t⌉, 9).
    """

    association: np.ndarray

    @functools.cached_property
    def neighbors(self) -> np.ndarray:
        """Super token of each weight, (⌈H/t⌉, ⌈W/t⌉, 9); -1 outside the grid."""
        height, width, _ = self.association.shape
        offsets = np.arange(9)
        rows = (np.arange(height) // self.stoken_size)[:, None, None] + offsets // 3 - 1
        columns = (np.arange(width) // self.stoken_size)[None, :, None] + offsets % 3 - 1
        inside = (rows >= 0) & (rows < self.grid[0]) & (columns >= 0) & (columns < self.grid[1])
        return np.where(inside, rows * self.grid[1] + columns, -1)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """Super token to which each token belongs most, (⌈H/t⌉, ⌈W/t⌉)."""
        weights = np.where(self.neighbors >= 0, self.association, -1)
        return np.take_along_axis(self.neighbors, weights.argmax(-1)[..., None], -1)[..., 0]

    @property
    def label_map(self) -> np.ndarray:
        """Super token to which each pixel belongs most, (H, W) of integers."""
        return self.enlarge(self.labels)

    def token_membership(self, index: int) -> np.ndarray:
        """Return the weight of each token for a super token, (⌈H/t⌉, ⌈W/t⌉); 0 where it is out of reach.

        Raises:
            IndexError: There are not that many super tokens.
        """
        count = self.grid[0] * self.grid[1]
        if not 0 <= index < count:
            raise IndexError(f'{self.name} has super tokens 0 to {count - 1}, but got {index}.')
        return (self.association * (self.neighbors == index)).sum(-1)

    def membership(self, index: int) -> np.ndarray:
        """Return the weight of each pixel for a super token, (H, W); see :meth:`token_membership`."""
        return self.enlarge(self.token_membership(index))


@dataclass(frozen=True)
class Attention(Record):
    """Attention of one token over all tokens of a block: a row of A = Q softmax(QKᵀ/√d) Q̂ᵀ (Eqs. 14–15 of the paper).

    Away from the border of the image the weights add up to 1. What is missing near the border fell on padding, or on
    neighbors outside the grid.

    Args:
        token: Row and column of the token.
        weights: Weights of all tokens, (⌈H/t⌉, ⌈W/t⌉), the mean over the heads; (heads, ⌈H/t⌉, ⌈W/t⌉) per head.
    """

    token: tuple[int, int]
    weights: np.ndarray

    @property
    def map(self) -> np.ndarray:
        """Weight of each pixel's token, (H, W); (heads, H, W) per head."""
        return self.enlarge(self.weights)
