"""Compare super tokens with superpixels of SLIC: the table and the picture of docs/visualization.md.

Each map divides a validation image of the bundled scenes into about as many regions as a block has super tokens: the
cells from which they start, SLIC of scikit-image, and the super token to which each pixel belongs most, before training
and after it. Super tokens have the resolution of their feature map, with steps of 4 and 8 pixels. SLIC gets the full
image, and once more the image shrunk to that resolution. The true regions are the masks and the background; where masks
overlap, the smallest is on top. The measures are those of Stutz, Hermans and Leibe, "Superpixels: An Evaluation of the
State-of-the-Art" (CVIU 2018). ``make demo`` makes the scenes and the checkpoint::

    python docs/figures/superpixels.py "$(cat work_dirs/mask-rcnn_stvit-nano_fpn_scenes/last_checkpoint)"
"""

import argparse
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import set_random_seed
from PIL import Image
from skimage.segmentation import slic

from mmstvit.apis import build_model, read_config
from mmstvit.checkpoint import to_mmstvit
from mmstvit.drawing import Panel, contact_sheet, draw_boundaries, fill_means, resize
from mmstvit.fileio import load_weights, open_checkpoint, safe_loading
from mmstvit.visualization import SuperTokens, image_of, super_tokens

CONFIG = 'mmstvit::mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py'
COLUMNS = ('segments', 'boundary recall ↑', 'undersegmentation error ↓', 'boundary pixels')
ROWS = 4  # images in the picture
TOLERANCE = 2  # pixels between boundaries that match


def boundaries(labels: np.ndarray) -> np.ndarray:
    """Return the pixels that have another label above, below, left or right: (H, W) of bool."""
    found = np.zeros(labels.shape, bool)
    for lines, view in ((labels, found), (labels.T, found.T)):
        differ = lines[1:] != lines[:-1]
        view[1:] |= differ
        view[:-1] |= differ
    return found


def measure(labels: np.ndarray, truth: np.ndarray) -> tuple[float, ...]:
    """Return the values of :data:`COLUMNS` for one map.

    Boundary recall (Martin et al. 2004) is the share of the true boundary with a boundary of the map nearby.
    Undersegmentation error (Neubert and Protzel 2012) is the sum of min(pixels of S in G, pixels of S outside of G)
    over the regions S of the map and the true regions G, divided by the number of pixels.
    """
    found, true = boundaries(labels), boundaries(truth)
    near = cv2.dilate(found.astype(np.uint8), np.ones((2 * TOLERANCE + 1,) * 2, np.uint8)) > 0
    (names, rows), (true_names, columns) = (np.unique(values, return_inverse=True) for values in (labels, truth))
    sizes = np.zeros((len(names), len(true_names)), int)
    np.add.at(sizes, (rows.ravel(), columns.ravel()), 1)
    error = np.minimum(sizes, sizes.sum(1, keepdims=True) - sizes).sum() / labels.size
    return len(names), near[true].mean(), error, found.mean()


def segment(image: np.ndarray, block: SuperTokens) -> dict[str, np.ndarray]:
    """Return label maps with about as many regions as a block has super tokens, by method."""
    options = dict(n_segments=block.grid[0] * block.grid[1], start_label=0, channel_axis=-1)
    rows, columns, _ = block.association.shape
    small = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    cell, loose = block.stride * block.stoken_size, slic(small, enforce_connectivity=False, **options)
    return {
        f'cells of {cell}×{cell} pixels': block.enlarge(block.neighbors[..., 4]),
        'SLIC': slic(image, **options),
        'SLIC, not connected': slic(image, enforce_connectivity=False, **options),
        f'SLIC, not connected, steps of {block.stride}': block.enlarge(loose),
    }


def true_regions(masks: np.ndarray) -> np.ndarray:
    """Merge the masks of objects, (n, H, W), to a map: 0 is the background, an object has its number from 1."""
    labels = np.zeros(masks.shape[1:], np.uint8)
    for index in np.argsort(-masks.sum((1, 2)), kind='stable'):
        labels[masks[index] > 0] = index + 1
    return labels


def main() -> None:
    """Measure all validation images, print the means and draw the first images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', nargs='?', help='checkpoint of the demo (none: before training only)')
    parser.add_argument('--out', type=Path, default=Path(__file__).with_suffix('.jpg'), help='the picture')
    args = parser.parse_args()

    MMLogger.get_instance('superpixels', log_level='WARNING')  # else a line per initialized weight
    cfg = read_config(CONFIG, None)
    measured, rows = defaultdict(list), []
    with safe_loading(convert=to_mmstvit), DefaultScope.overwrite_default_scope('mmdet'):
        set_random_seed(**cfg.randomness)
        models = {'before training': build_model(cfg)}
        models['before training'].init_weights()
        if args.checkpoint:
            models['after training'] = build_model(cfg)
            load_weights(models['after training'], open_checkpoint(args.checkpoint), complete=True)
        for sample in DATASETS.build(cfg.val_dataloader.dataset):
            image, truth = image_of(sample), true_regions(sample['data_samples'].gt_instances.masks.masks)
            records = {name: super_tokens(model, sample) for name, model in models.items()}
            maps = {}
            for which, index in (('first', 0), ('last', -1)):
                blocks = {name: found[index] for name, found in records.items()}
                maps |= segment(image, blocks['before training'])
                maps |= {f'{which} block, {name}': tokens.label_map for name, tokens in blocks.items()}
            for name, labels in maps.items():
                measured[name].append(measure(labels, truth))
            if len(rows) < ROWS:
                shown = {name: fill_means(image, labels) for name, labels in maps.items() if 'steps' not in name}
                pictures = {'objects': image, **shown}
                titles = pictures if not rows else [''] * len(pictures)
                drawn = [draw_boundaries(resize(picture, 240), truth) for picture in pictures.values()]
                rows.append([Panel(*panel) for panel in zip(drawn, titles, strict=True)])
    print(f'| regions | {" | ".join(COLUMNS)} |\n|---|{"---:|" * len(COLUMNS)}')
    for name, values in measured.items():
        segments, *others = np.nanmean(values, 0)
        print(f'| {name} | {segments:.1f} | {" | ".join(f"{value:.3f}" for value in others)} |')
    Image.fromarray(contact_sheet(rows)).save(args.out, quality=80)


if __name__ == '__main__':
    main()
