r"""Draw a contact sheet of a model: ground truth beside predictions, image by image of the test set.

Masks are half transparent, in one color per class. Example::

    python tools/analysis_tools/contact_sheet.py configs/mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py \
        work_dirs/mask-rcnn_stvit-nano_fpn_scenes/epoch_3.pth --out sheet.png
"""

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from mmstvit.command_line import add_common_arguments, make_parser, order_config, positive, user_errors

if TYPE_CHECKING:
    from mmengine.runner import Runner

TITLES = {'gt': 'ground truth', 'pred': 'prediction'}


def draw(runner: 'Runner', count: int, columns: int, side: int, score_thr: float) -> np.ndarray:
    """Draw the first ``count`` test images with ground truth and prediction, ``columns`` pairs in a row."""
    import torch

    from mmstvit.datasets.images import IMAGE_READER
    from mmstvit.drawing import Panel, class_colors, contact_sheet, draw_sample, to_rgb

    dataset = runner.test_dataloader.dataset
    classes = dataset.metainfo['classes']
    colors = class_colors(classes, dataset.metainfo.get('palette'))
    runner.model.eval()
    panels = []
    for index in range(min(count, len(dataset))):
        with torch.no_grad():
            (sample,) = runner.model.test_step({key: [value] for key, value in dataset[index].items()})
        image = to_rgb(IMAGE_READER.read(sample.img_path))
        scale = side / image.shape[0]
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        for kind, title in TITLES.items():
            picture = draw_sample(image, sample, classes, colors, kind, score_thr, scale)
            panels.append(Panel(image if picture is None else picture, title if index < columns else ''))
    rows = [panels[i : i + 2 * columns] for i in range(0, len(panels), 2 * columns)]
    return contact_sheet(rows, legend=dict(zip(classes, colors, strict=True)))


def main() -> None:
    """Draw the sheet."""
    parser = make_parser(__doc__)
    parser.add_argument('config', help='config file path')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', dest='sheet', metavar='OUT', type=Path, required=True, help='PNG file to write')
    parser.add_argument('--num', type=positive, default=12, help='images (12)')
    parser.add_argument('--columns', type=positive, default=3, help='pairs in a row (3)')
    parser.add_argument('--side', type=positive, default=320, help='height of an image on the sheet, in pixels (320)')
    parser.add_argument('--score-thr', type=float, default=0.5, help='lowest score shown (0.5)')
    parser.add_argument('--work-dir', help='the dir to save logs')
    add_common_arguments(parser)
    args = order_config(parser.parse_args())
    with user_errors():
        from mmstvit.apis import prepare
        from mmstvit.apis.predict.run import check_score
        from mmstvit.checkpoint import to_mmstvit
        from mmstvit.fileio import safe_loading

        check_score(args.score_thr)
        with safe_loading(convert=to_mmstvit):
            runner = prepare(args, 'test')
    sheet = draw(runner, args.num, args.columns, args.side, args.score_thr)
    args.sheet.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(args.sheet)
    print(f'contact sheet: {args.sheet}')


if __name__ == '__main__':
    main()
