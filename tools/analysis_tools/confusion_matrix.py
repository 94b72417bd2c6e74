"""Count which class a segmentor takes for which, from the predictions that ``test.py --out`` wrote.

MMSegmentation's own tool counts in 8 bits, which wraps around from 17 classes on, and refuses data sets whose classes
are in the config. MMDetection's and MMPreTrain's tools of this name work.

Example::

    python tools/test.py configs/upernet/stvit-nano_upernet_scenes.py CHECKPOINT --out predictions
    python tools/analysis_tools/confusion_matrix.py configs/upernet/stvit-nano_upernet_scenes.py predictions matrix
"""

import argparse
import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from mmstvit.apis import UserError, add_cfg_options, check_data, read_config, user_errors

MOST_NUMBERS = 30  # classes up to which a figure has room for a number in every cell


def build_ground_truth(cfg: Config) -> BaseDataset:
    """The test set with nothing in its pipeline but the reading of label maps, at the size of the file."""
    dataset = cfg.test_dataloader.dataset
    dataset.pipeline = [step for step in dataset.pipeline if step.type == 'LoadAnnotations']
    if not dataset.pipeline:
        raise UserError('test_dataloader.dataset.pipeline has no LoadAnnotations: there is no ground truth to read.')
    with DefaultScope.overwrite_default_scope('mmseg'):
        return DATASETS.build(dataset)


def read_prediction(path: Path, shape: tuple[int, ...], classes: int, offset: int) -> np.ndarray:
    """A label map that ``test.py --out`` wrote: labels from 0, (height, width) = ``shape``, int64.

    Args:
        path: A PNG file.
        shape: Of the ground truth.
        classes: How many there are.
        offset: Label of the first class in the file: 1 where the data set keeps 0 for "unlabelled".
    """
    if not path.is_file():
        raise UserError(f'{path} does not exist. Write the predictions of the whole test set with: test.py --out')
    labels = np.asarray(Image.open(path)).astype(np.int64) - offset
    if labels.shape != shape:
        raise UserError(f'{path} has the shape {labels.shape}, but the ground truth has {shape}: another data set?')
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(
            f'{path} has labels from {labels.min() + offset} to {labels.max() + offset}, but the config has {classes} '
            f'classes, {offset} to {classes - 1 + offset}: another config?'
        )
    return labels


def count(dataset: BaseDataset, folder: Path, ignore_index: int) -> np.ndarray:
    """Pixels by true class (row) and predicted class (column), int64; pixels without a true class are left out."""
    classes = len(dataset.metainfo['classes'])
    matrix = np.zeros((classes, classes), np.int64)
    offset = int(dataset.metainfo['reduce_zero_label'])
    for index in range(len(dataset)):
        sample = dataset[index]
        truth = sample['gt_seg_map'].astype(np.int64)
        name = Path(sample['img_path']).with_suffix('.png').name
        labels = read_prediction(folder / name, truth.shape, classes, offset)
        known = truth != ignore_index
        matrix += np.bincount(classes * truth[known] + labels[known], minlength=classes**2).reshape(matrix.shape)
    return matrix


def write_table(matrix: np.ndarray, classes: list[str], path: Path) -> None:
    with open(path, 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['true \\ predicted', *classes])
        writer.writerows([name, *row] for name, row in zip(classes, matrix.tolist(), strict=True))


def draw(matrix: np.ndarray, classes: list[str], title: str, color_theme: str, path: Path) -> None:
    """Percent of every true class that is taken for each class; the row of a class that does not occur is empty."""
    totals = matrix.sum(axis=1, keepdims=True)
    percent = np.divide(100.0 * matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    numbers = len(classes) <= MOST_NUMBERS
    cell, font = (0.55, 8) if numbers else (0.12, 5)
    side = cell * len(classes)
    figure, axes = plt.subplots(figsize=(side + 3, side + 2), dpi=150, layout='constrained')
    image = axes.imshow(percent, cmap=color_theme, vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, label='% of the true class', shrink=0.8)
    ticks = range(len(classes))
    axes.set_xticks(ticks, classes, rotation=90, fontsize=font)
    axes.set_yticks(ticks, classes, fontsize=font)
    axes.set(title=title, xlabel='predicted', ylabel='true')
    if numbers:
        for (row, column), value in np.ndenumerate(percent):
            if not np.isnan(value):
                color = 'black' if image.norm(value) > 0.5 else 'white'
                axes.text(column, row, f'{value:.1f}', ha='center', va='center', color=color, fontsize=font)
    figure.savefig(path)
    plt.close(figure)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file path of a segmentor')
    parser.add_argument('prediction_path', type=Path, help='folder that test.py --out wrote')
    parser.add_argument('save_dir', type=Path, help='folder for confusion_matrix.png (%%) and .csv (pixels)')
    parser.add_argument('--color-theme', default='viridis', choices=plt.colormaps(), metavar='NAME', help='colour map')
    parser.add_argument('--title', default='Confusion matrix', help='title of the figure')
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with user_errors():
        cfg = read_config(args.config, args.cfg_options)
        if cfg.default_scope != 'mmseg':
            raise UserError(
                f'{args.config} is not a segmentor; use the confusion_matrix.py of {cfg.default_scope}, in its '
                f'.mim/tools/analysis_tools.'
            )
        check_data(cfg, 'test')
        dataset = build_ground_truth(cfg)
        matrix = count(dataset, args.prediction_path, dataset.ignore_index)
    args.save_dir.mkdir(parents=True, exist_ok=True)
    classes = list(dataset.metainfo['classes'])
    write_table(matrix, classes, args.save_dir / 'confusion_matrix.csv')
    draw(matrix, classes, args.title, args.color_theme, args.save_dir / 'confusion_matrix.png')
    print(f'pixel accuracy: {np.trace(matrix) / max(matrix.sum(), 1):.4f}')
    print(f'confusion matrix: {args.save_dir / "confusion_matrix.png"}')


if __name__ == '__main__':
    main()
