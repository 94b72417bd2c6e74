"""Draw docs/figures/super_token_attention.jpg: super token attention on a photograph, with the weights of a checkpoint.

``make demo`` writes the checkpoint that the figure in the README uses::

    python docs/figures/super_token_attention.py "$(cat work_dirs/mask-rcnn_stvit-nano_fpn_scenes/last_checkpoint)"
"""

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch
from PIL import Image

from mmstvit import STViT
from mmstvit.checkpoint import read_backbone
from mmstvit.fileio import load_weights
from mmstvit.visualization import attention_of, contact_sheet, draw_blocks, super_tokens

OUT = Path(__file__).with_suffix('.jpg')
SIDE = 640  # of the image, in pixels
POINT = (230, 269)  # of the heat map: an eye
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
TITLES = {
    'grid': 'Initial grid of {0}×{1} cells',
    'boundaries': '1  Sample {0}×{1} super tokens (Eqs. 5–6)',
    'means': 'Mean color of each super token',
    'attention': '2, 3  Attend, upsample (Eqs. 9–11)',
}


def main() -> None:
    """Draw the first block."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', help='checkpoint with an STViT-nano backbone')
    parser.add_argument('--out', type=Path, default=OUT, help='the picture')
    args = parser.parse_args()

    model = STViT('nano')
    load_weights(model, read_backbone(args.checkpoint))
    image = cv2.resize(skimage.data.chelsea()[:, 60:360], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    pixels = torch.tensor((image - np.array(MEAN)) / np.array(STD)).permute(2, 0, 1)
    (row,) = draw_blocks(image, super_tokens(model, pixels)[:1], attention_of(model, pixels, POINT)[:1], grid=True)
    panels = {panel.kind: panel for panel in row}
    panels = [replace(panels[kind], title=title.format(*row[0].block.grid)) for kind, title in TITLES.items()]
    Image.fromarray(contact_sheet([panels])).save(args.out, quality=80)
    print(args.out)


if __name__ == '__main__':
    main()
