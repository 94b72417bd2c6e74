"""Compare prediction in tiles with prediction of the whole image: AP on scenes pasted into large images.

    python docs/figures/tiles.py work_dirs/mask-rcnn_stvit-nano_fpn_scenes/epoch_3.pth

Every large image holds 4 × 4 scenes of the bundled data set (192 × 192 pixels). They begin 48 pixels from the border:
tiles without an overlap cut them. Needs `data/scenes` (`make scenes`).
"""

import argparse
import contextlib
import io
import json
import tempfile
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmstvit.apis import predict

SIDE, ROW, BORDER = 192, 4, 48
WHOLE = SIDE * ROW + 2 * BORDER
LIMITS = {
    'model.test_cfg.rcnn.max_per_img': 400,
    'model.test_cfg.rpn.max_per_img': 1000,
    'model.test_cfg.rpn.nms_pre': 2000,
}
FULL = {'test_dataloader.dataset.pipeline.1.scale': (WHOLE, WHOLE), **LIMITS}


def paste_scenes(data: Path, folder: Path) -> COCO:
    """Write large images and their annotations; returns the annotations."""
    coco, images, annotations = COCO(data / 'annotations/instances_val.json'), [], []
    ids = sorted(coco.imgs)
    for number in range(len(ids) // ROW**2):
        sheet = np.full((WHOLE, WHOLE, 3), 128, np.uint8)
        for place, scene in enumerate(ids[number * ROW**2 : (number + 1) * ROW**2]):
            y, x = (BORDER + SIDE * index for index in divmod(place, ROW))
            sheet[y : y + SIDE, x : x + SIDE] = cv2.imread(str(data / 'val' / coco.imgs[scene]['file_name']))
            for entry in coco.imgToAnns[scene]:
                mask = np.zeros(sheet.shape[:2], np.uint8, order='F')
                mask[y : y + SIDE, x : x + SIDE] = coco.annToMask(entry)
                box = [entry['bbox'][0] + x, entry['bbox'][1] + y, *entry['bbox'][2:]]
                annotations.append(
                    dict(entry, id=len(annotations) + 1, image_id=number, bbox=box, segmentation=rle.encode(mask))
                )
        cv2.imwrite(str(folder / f'{number:02}.png'), sheet)
        images.append(dict(id=number, file_name=f'{number:02}.png', width=WHOLE, height=WHOLE))
    truth = COCO()
    truth.dataset = dict(images=images, annotations=annotations, categories=coco.dataset['categories'])
    truth.createIndex()
    return truth


def evaluate(truth: COCO, file: Path) -> list[float]:
    """Return AP of boxes and masks."""
    content = json.loads(file.read_text())
    ids = {image['id']: int(image['file_name'][:2]) for image in content['images']}
    values = []
    for kind in ('bbox', 'segm'):
        found = truth.loadRes([dict(entry, image_id=ids[entry['image_id']]) for entry in content['annotations']])
        evaluation = COCOeval(truth, found, kind)
        evaluation.params.maxDets = [1, 10, 400]
        evaluation.evaluate()
        evaluation.accumulate()
        precision = evaluation.eval['precision'][:, :, :, 0, 2]
        values.append(precision[precision > -1].mean())
    return values


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint')
    parser.add_argument('--data', type=Path, default='data/scenes/coco')
    args = parser.parse_args()
    rows = {'whole, reduced to 192 × 192': dict(cfg_options=LIMITS), 'whole, full size': dict(cfg_options=FULL)}
    rows |= {f'--tile 192 --overlap {n}': dict(tile=SIDE, overlap=n) for n in (0, 48, 96)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with contextlib.redirect_stdout(io.StringIO()):
            truth = paste_scenes(args.data, folder)
        for i, (name, options) in enumerate(rows.items()):
            with contextlib.redirect_stdout(io.StringIO()):
                predict(args.checkpoint, [folder / '*.png'], folder / f'out{i}', score=0.001, **options)
                box, mask = evaluate(truth, folder / f'out{i}/predictions.json')
            print(f'| {name} | {box:.3f} | {mask:.3f} |', flush=True)


if __name__ == '__main__':
    main()
