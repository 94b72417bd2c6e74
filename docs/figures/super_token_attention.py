"""Draw docs/figures/super_token_attention.jpg: super token attention on a real image, with the weights of a checkpoint.

``make demo`` writes the checkpoint that the figure in the README uses::

    python docs/figures/super_token_attention.py "$(cat work_dirs/mask-rcnn_stvit-nano_fpn_scenes/last_checkpoint)"
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
import skimage.transform
import torch
from matplotlib.axes import Axes
from skimage.segmentation import find_boundaries
from torch import Tensor

from mmstvit import STViT
from mmstvit.checkpoint import read_backbone
from mmstvit.fileio import load_weights
from mmstvit.ops import super_token

OUT = Path(__file__).with_suffix('.jpg')
SIDE = 640  # of the image, in pixels
STAGE, BLOCK = 0, 0
ANCHOR = (0.36, 0.42)  # of the heat maps, as shares of width and height
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def labels_of(affinity: Tensor) -> np.ndarray:
    """Return the super token to which each token belongs most: (h, w, s², 9) -> (h·s, w·s)."""
    h, w, cells, _ = affinity.shape
    s = round(cells**0.5)
    best = affinity.argmax(-1)  # (h, w, s²), the position in the 3×3 neighborhood
    rows = (torch.arange(h)[:, None, None] + best // 3 - 1).clamp(0, h - 1)
    columns = (torch.arange(w)[None, :, None] + best % 3 - 1).clamp(0, w - 1)
    labels = (rows * w + columns).reshape(h, w, s, s).transpose(1, 2).reshape(h * s, w * s)
    return labels.numpy()


def enlarge(array: np.ndarray, order: int = 0) -> np.ndarray:
    """Resize a map to the image."""
    return skimage.transform.resize(array, (SIDE, SIDE), order=order, preserve_range=True)


def show(axes: Axes, image: np.ndarray, title: str, heat: np.ndarray | None = None) -> None:
    """Draw an image, or a heat map over it."""
    axes.imshow(image if heat is None else image.mean(-1, keepdims=True).repeat(3, -1))
    if heat is not None:
        axes.imshow(heat, cmap='inferno', alpha=0.75)
        axes.plot(ANCHOR[0] * SIDE, ANCHOR[1] * SIDE, 'o', color='white', markeredgecolor='black', markersize=7)
    axes.set_title(title, fontsize=11)
    axes.axis('off')


def main() -> None:
    """Compute the maps of one block and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', help='checkpoint with an STViT-nano backbone')
    parser.add_argument('--out', type=Path, default=OUT, help='the picture')
    args = parser.parse_args()

    model = STViT('nano').eval()
    load_weights(model, read_backbone(args.checkpoint))
    image = skimage.transform.resize(skimage.data.chelsea()[:, 60:360], (SIDE, SIDE), anti_aliasing=True)
    pixels = (torch.tensor(image * 255) - torch.tensor(MEAN)) / torch.tensor(STD)  # (H, W, 3)

    attention = model.stages[STAGE][BLOCK].attn
    inputs: list[Tensor] = []
    attention.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    with torch.no_grad():
        model(pixels.permute(2, 0, 1)[None].float())
        tokens, affinity = super_token.sample_super_tokens(inputs[0], attention.stoken_size)  # (1, h, w, C), Q
        q, k, _ = super_token.split_heads(attention.qkv(tokens).flatten(1, 2), attention.num_heads)
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1).mean(1)  # (1, h·w, h·w)
        _, h, w, _ = tokens.shape
        row = weights[0, int(ANCHOR[1] * h) * w + int(ANCHOR[0] * w)].reshape(1, h, w, 1)
        upsampled = super_token.upsample_super_tokens(row, affinity, inputs[0].shape[1:3])[0, :, :, 0]

    labels = enlarge(labels_of(affinity[0])).astype(int)
    outlined, edges = image.copy(), find_boundaries(labels, mode='inner')
    outlined[edges] = 0.4 * outlined[edges] + np.array((0.6, 0.51, 0))
    means = np.stack([np.bincount(labels.ravel(), image[..., c].ravel(), h * w) for c in range(3)], -1)
    means /= np.maximum(np.bincount(labels.ravel(), minlength=h * w), 1)[:, None]

    figure, axes = plt.subplots(1, 4, figsize=(14, 3.9), layout='constrained')
    show(axes[0], outlined, f'1  Sample: {h}×{w} super tokens (Eqs. 5–6)')
    show(axes[1], means[labels], 'Mean color of each super token')
    show(axes[2], image, '2  Attend among super tokens (Eqs. 9–10)', enlarge(row[0, :, :, 0].numpy()))
    show(axes[3], image, '3  Upsample with the association (Eq. 11)', enlarge(upsampled.numpy(), order=1))
    figure.savefig(args.out, dpi=110, pil_kwargs=dict(quality=88))
    print(args.out)


if __name__ == '__main__':
    main()
