r"""Draw a contact sheet of a detector: ground truth beside predictions, image by image of the test set.

Masks are half transparent, in one color per class. Example::

    python tools/analysis_tools/contact_sheet.py configs/mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py \
        work_dirs/mask-rcnn_stvit-nano_fpn_scenes/epoch_3.pth --out sheet.png
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from mmstvit.command_line import add_common_arguments, make_parser, positive, user_errors
from mmstvit.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner
    from mmengine.structures import InstanceData

CAPTION_HEIGHT = 28
GAP = 8


def draw(image: np.ndarray, instances: 'InstanceData', metainfo: dict) -> np.ndarray:
    """Draw masks, boxes and class names on an RGB image that is shown larger or smaller than the original."""
    from mmstvit.apis.drawing import class_colors, draw_instances

    masks = np.asarray(getattr(instances.masks, 'masks', instances.masks), np.uint8)  # BitmapMasks or a tensor
    scale = image.shape[1] / masks.shape[2]
    masks = [cv2.resize(mask, image.shape[1::-1], interpolation=cv2.INTER_NEAREST) for mask in masks]
    boxes = np.asarray(getattr(instances.bboxes, 'tensor', instances.bboxes)) * scale
    labels = instances.labels.tolist()
    texts = [metainfo['classes'][label] for label in labels]
    if 'scores' in instances:
        texts = [f'{text} {score:.2f}' for text, score in zip(texts, instances.scores.tolist(), strict=True)]
    colors = class_colors(len(metainfo['classes']), metainfo.get('palette'))
    return draw_instances(image, boxes, labels, np.array(masks), texts, colors)


def draw_pairs(runner: 'Runner', count: int, side: int, score_thr: float) -> list[np.ndarray]:
    """Draw ground truth and prediction of the first ``count`` test images side by side: RGB, ``side`` pixels high."""
    import torch

    dataset = runner.test_dataloader.dataset
    runner.model.eval()
    pairs = []
    for index in range(min(count, len(dataset))):
        data = dataset[index]
        batch = dict(inputs=[data['inputs']], data_samples=[data['data_samples']])
        with torch.no_grad():
            sample = runner.model.test_step(batch)[0].cpu()
        image = cv2.cvtColor(cv2.imread(sample.img_path), cv2.COLOR_BGR2RGB)
        scale = side / image.shape[0]
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        found = sample.pred_instances
        found = found[found.scores >= score_thr]
        pair = [draw(image, instances, dataset.metainfo) for instances in (sample.gt_instances, found)]
        pairs.append(np.concatenate(pair, axis=1))
    return pairs


def tile(pairs: list[np.ndarray], columns: int, captions: tuple[str, str]) -> np.ndarray:
    """Arrange the pairs in rows, with captions above every column."""
    height, width = (max(p.shape[axis] for p in pairs) for axis in (0, 1))
    rows = -(-len(pairs) // columns)
    sheet = np.full((CAPTION_HEIGHT + rows * (height + GAP), columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for column in range(columns):
        for half, text in enumerate(captions):
            origin = (column * (width + GAP) + half * width // 2 + 6, CAPTION_HEIGHT - 9)
            cv2.putText(sheet, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    for i, pair in enumerate(pairs):
        y, x = CAPTION_HEIGHT + i // columns * (height + GAP), i % columns * (width + GAP)
        sheet[y : y + pair.shape[0], x : x + pair.shape[1]] = pair
    return sheet


def check_detector(cfg: 'Config', args: argparse.Namespace) -> None:
    """Check that the config is that of a detector with masks; raises UserError."""
    if cfg.default_scope != 'mmdet' or 'mask_head' not in cfg.model.get('roi_head', {}):
        raise UserError(f'{args.config} is not a detector with masks.')


def main() -> None:
    """Draw the sheet."""
    parser = make_parser(__doc__)
    parser.add_argument('config', help='config file path of a detector with masks')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', dest='sheet', metavar='OUT', type=Path, required=True, help='PNG file to write')
    parser.add_argument('--num', type=positive, default=12, help='images (12)')
    parser.add_argument('--columns', type=positive, default=3, help='pairs in a row (3)')
    parser.add_argument('--side', type=positive, default=320, help='height of an image on the sheet, in pixels (320)')
    parser.add_argument('--score-thr', type=float, default=0.5, help='lowest score shown (0.5)')
    parser.add_argument('--work-dir', help='the dir to save logs')
    add_common_arguments(parser)
    args = parser.parse_args()
    with user_errors():
        from mmstvit.apis import prepare
        from mmstvit.checkpoint import to_mmstvit
        from mmstvit.fileio import safe_loading

        with safe_loading(convert=to_mmstvit):
            runner = prepare(args, 'test', check_detector)
    sheet = tile(draw_pairs(runner, args.num, args.side, args.score_thr), args.columns, ('ground truth', 'prediction'))
    args.sheet.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(args.sheet), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        raise OSError(f'could not write {args.sheet}: check the free disk space and the permissions')
    print(f'contact sheet: {args.sheet}')


if __name__ == '__main__':
    main()
