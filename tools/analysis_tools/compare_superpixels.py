r"""Compare super tokens with superpixels of SLIC by the exact masks of a detector's validation images.

Each map divides the image into about as many regions as the block has super tokens: the cells from which super tokens
start, SLIC of scikit-image, and the super token to which each pixel belongs most, before training and after it. Super
tokens have the resolution of their feature map, with steps of 4, 8, … pixels. SLIC gets the full image, and once more
the image shrunk to that resolution. Regions of super tokens may have several parts; those of SLIC too where the table
says "not connected". The true regions are the objects and the background.

Examples::

    python tools/analysis_tools/compare_superpixels.py configs/mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py
    python tools/analysis_tools/compare_superpixels.py configs/mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py \
        work_dirs/mask-rcnn_stvit-nano_fpn_scenes/epoch_3.pth --out superpixels.jpg superpixels.json
"""

# ruff: noqa: E402

import argparse
import contextlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmstvit.command_line import add_cfg_options, make_parser, user_errors
from mmstvit.errors import UserError

SEED = 0
ROWS = 4  # images in the picture
SIDE = 320  # their longer side, in pixels
# Columns of the table: key, title, format.
COLUMNS = {
    'segments': ('segments', '.1f'),
    'recall': ('boundary recall ↑', '.3f'),
    'error': ('undersegmentation error ↓', '.3f'),
    'density': ('boundary pixels', '.3f'),
}


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    parser.add_argument('config', help='config file path of a detector with masks')
    parser.add_argument('checkpoint', nargs='?', help='checkpoint of the trained model (none: before training)')
    parser.add_argument('--num-images', type=int, metavar='N', help='the first N validation images (all)')
    parser.add_argument('--tolerance', type=int, default=2, help='distance of boundaries that match, in pixels (2)')
    parser.add_argument(
        '--out',
        nargs='+',
        type=Path,
        default=[],
        metavar='FILE',
        help=f'.json: the table; .png, .jpg or .pdf: the first {ROWS} images side by side',
    )
    add_cfg_options(parser)
    args = parser.parse_args()
    if args.num_images is not None and args.num_images < 1:
        parser.error('--num-images must be at least 1')
    if args.tolerance < 0:
        parser.error('--tolerance must be 0 or more')
    for file in args.out:
        if file.suffix not in ('.json', '.png', '.jpg', '.pdf'):
            parser.error(f'--out needs files that end with .json, .png, .jpg or .pdf, but got {file}')
    return args


if __name__ == '__main__':
    parse_args()  # answers --help and refuses wrong options before the imports below, which take seconds

import cv2
import matplotlib.pyplot as plt
import numpy as np
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from torch import nn

from mmstvit import rules
from mmstvit.apis import read_config
from mmstvit.checkpoint import to_mmstvit
from mmstvit.datasets.build import build_dataset
from mmstvit.engine import runner as engine
from mmstvit.fileio import load_weights, read_weights, safe_loading
from mmstvit.visualization import SuperTokens, super_tokens
from mmstvit.visualization.drawing import draw_boundaries, fill_means, image_of
from mmstvit.visualization.superpixels import (
    boundary_recall,
    contour_density,
    merge_masks,
    slic,
    undersegmentation_error,
)


def load_models(cfg: Config, checkpoint: str | None) -> dict[str, nn.Module]:
    """Build the model as it is before training, by the seed of the config, and that of a checkpoint."""
    if (cfg.get('randomness') or {}).get('seed') is None:
        cfg.randomness = dict(seed=SEED)
    models = {'before training': engine.build_seeded(cfg)[0]}
    models['before training'].init_weights()
    if checkpoint:
        models['after training'] = engine.build_model(cfg)
        load_weights(models['after training'], read_weights(checkpoint), complete=True)
    return models


def load_samples(cfg: Config, count: int | None) -> Iterator[tuple[dict, np.ndarray]]:
    """Yield samples of the validation data with their true regions; raises UserError without masks."""
    dataset = build_dataset(cfg.val_dataloader.dataset, 'val_dataloader.dataset')
    for index in range(min(count or len(dataset), len(dataset))):
        sample = dataset[index]
        masks = sample['data_samples'].gt_instances.get('masks')
        if masks is None:
            raise UserError(
                'the samples of val_dataloader.dataset have no masks.',
                'Its pipeline needs dict(type="LoadAnnotations", with_bbox=True, with_mask=True).',
            )
        size = sample['inputs'].shape[:0:-1]  # of masks that are loaded after the image is resized
        truth = merge_masks(masks.to_ndarray()).astype(np.uint8 if len(masks) < 256 else np.uint16)
        yield sample, cv2.resize(truth, size, interpolation=cv2.INTER_NEAREST)


def segment(image: np.ndarray, block: SuperTokens) -> dict[str, np.ndarray]:
    """Return label maps with about as many regions as a block has super tokens, by method.

    Args:
        image: RGB, as the model sees it.
        block: Super tokens of the block.
    """
    count = block.grid[0] * block.grid[1]
    rows, columns, _ = block.association.shape
    small = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    return {
        'cells': block.enlarge(block.neighbors[..., 4]),
        'SLIC': slic(image, count),
        'SLIC, not connected': slic(image, count, connected=False),
        f'SLIC, not connected, steps of {block.stride}': block.enlarge(slic(small, count, connected=False)),
    }


def compare(image: np.ndarray, sample: dict, models: Mapping[str, nn.Module]) -> dict[tuple[str, int], np.ndarray]:
    """Return the label maps of the first and the last block with super tokens, by method and side of a cell."""
    records = {name: super_tokens(model, sample) for name, model in models.items()}
    maps = {}
    for index in (0, -1):
        blocks = {name: found[index] for name, found in records.items()}
        block = next(iter(blocks.values()))
        found = segment(image, block)  # the same for both, except with another size of cells
        title = block.name.partition('.')[2]
        found |= {f'super tokens, {title}, {name}': tokens.label_map for name, tokens in blocks.items()}
        maps |= {(method, block.stride * block.stoken_size): labels for method, labels in found.items()}
    return maps


def measure(labels: np.ndarray, truth: np.ndarray, tolerance: int) -> dict[str, float]:
    """Measure one label map."""
    return {
        'segments': len(np.unique(labels)),
        'recall': boundary_recall(labels, truth, tolerance),
        'error': undersegmentation_error(labels, truth),
        'density': contour_density(labels),
    }


def make_table(rows: list[dict]) -> str:
    """Write the means as a table in Markdown."""
    lines = [['regions', 'cell', *(title for title, _ in COLUMNS.values())], ['---', *['---:'] * (1 + len(COLUMNS))]]
    for row in rows:
        values = [f'{row[key]:{spec}}' for key, (_, spec) in COLUMNS.items()]
        lines.append([row['method'], f'{row["cell"]}×{row["cell"]}', *values])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def draw(pictures: list[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]], file: Path) -> None:
    """Draw a figure with a row per image and a column per label map, whose regions have their mean color.

    Args:
        pictures: Image, true regions and label maps by title.
        file: PNG, JPEG or PDF.
    """
    columns = ['objects', *pictures[0][2]]
    height, width = pictures[0][0].shape[:2]
    size = (1.9 * len(columns), 1.9 * height / width * len(pictures) + 0.5)
    figure, grid = plt.subplots(len(pictures), len(columns), figsize=size, squeeze=False, layout='constrained')
    for axes_row, (image, truth, maps) in zip(grid, pictures, strict=True):
        for axes, labels in zip(axes_row, [None, *maps.values()], strict=True):
            filled = image if labels is None else fill_means(image, labels)
            scale = max(1, SIDE / max(image.shape[:2]))
            filled = cv2.resize(filled, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
            axes.imshow(draw_boundaries(filled, truth))
            axes.set_axis_off()
    for axes, title in zip(grid[0], columns, strict=True):
        axes.set_title(title, fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def run(args: argparse.Namespace) -> tuple[list[dict], list[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]]]:
    """Measure all images; return the means by method, and what :func:`draw` needs."""
    MMLogger.get_instance('compare_superpixels', log_level='WARNING')  # else a line per initialized weight
    cfg = read_config(args.config, args.cfg_options)
    if cfg.default_scope != 'mmdet' or not cfg.get('val_dataloader'):
        raise UserError(f'{args.config} is not a detector with validation data (val_dataloader).')
    rules.check_data(cfg, 'val')
    if args.checkpoint:
        engine.check_checkpoint(args.checkpoint)
    models = load_models(cfg, args.checkpoint)
    measured, pictures = defaultdict(list), []
    for sample, truth in load_samples(cfg, args.num_images):
        image = image_of(sample)
        maps = compare(image, sample, models)
        for key, labels in maps.items():
            measured[key].append(measure(labels, truth, args.tolerance))
        if len(pictures) < ROWS:
            shown = {key[0].replace(', ', ',\n', 1): labels for key, labels in maps.items() if 'steps' not in key[0]}
            pictures.append((image, truth, shown))
    rows = [
        {'method': method, 'cell': cell, **{key: float(np.nanmean([one[key] for one in values])) for key in COLUMNS}}
        for (method, cell), values in measured.items()
    ]
    return rows, pictures


def main() -> None:
    """Compare, and print the table."""
    args = parse_args()
    scope = DefaultScope.overwrite_default_scope('mmdet')
    # Libraries log to standard output.
    with user_errors(), safe_loading(convert=to_mmstvit), scope, contextlib.redirect_stdout(sys.stderr):
        rows, pictures = run(args)
    print(make_table(rows))
    for file in args.out:
        if file.suffix == '.json':
            file.parent.mkdir(parents=True, exist_ok=True)
            content = dict(config=args.config, checkpoint=args.checkpoint, tolerance=args.tolerance, rows=rows)
            file.write_text(json.dumps(content, indent=2))
        else:
            draw(pictures, file)
        print(f'Wrote {file}')


if __name__ == '__main__':
    main()
