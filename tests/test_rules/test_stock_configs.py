"""The rules find no fault in the stock configs of ``docs/any_head.md`` with clean stand-in data."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmstvit.apis import read_config
from mmstvit.datasets.coco import is_coco
from mmstvit.datasets.wrappers import inner_datasets
from mmstvit.rules import check
from mmstvit.rules.facts import find_class

from ..in_process import restored
from ..test_configs.test_any_head import recipe, rows
from ..test_datasets.tiny_data import coco_content, draw, write

HEIGHT, WIDTH = 48, 64  # MMDetection leaves out images below 32 pixels
STOCK = [*rows('heads-that-the-tests-run'), *rows('more-heads')]


def stand_in(cfg: Config, split: str, node: dict) -> None:
    """Let a dataset of a stock config read four images that fit it."""
    folder, cls = Path('data') / split, find_class(node)
    classes = getattr(cls, 'METAINFO', {}).get('classes') or ()
    for i in range(4):
        write(folder / f'{i}.jpg', draw(i, HEIGHT, WIDTH, 3))
        write(folder / f'{i}.png', np.clip(draw(i, HEIGHT, WIDTH) % 19, 1, 18))
    for name in ('indices', 'backend_args', 'split'):
        node.pop(name, None)
    node.update(data_root='data', serialize_data=False)
    if cfg.default_scope == 'mmdet':
        content = coco_content(tuple(classes))
        for image, annotation in zip(content['images'], content['annotations'], strict=True):
            image.update(height=HEIGHT, width=WIDTH)
            annotation['segmentation'] = [[4, 5, 14, 5, 14, 11, 4, 11]]
        (Path('data') / f'{split}.json').write_text(json.dumps(content))
        node.update(ann_file=f'{split}.json', data_prefix=dict(img=f'{split}/'))
    elif cfg.default_scope == 'mmseg':
        node.update(data_prefix=dict(img_path=split, seg_map_path=split), img_suffix='.jpg', seg_map_suffix='.png')
        node.pop('ann_file', None)
    else:
        (Path('data') / f'{split}.txt').write_text('0.jpg 0\n1.jpg 1\n2.jpg 2\n3.jpg 3\n')
        node.update(ann_file=f'{split}.txt', data_prefix=split)


def faults(stock: str, section: str) -> list:
    Path('mine.py').write_text(recipe(section, stock))
    cfg = read_config('mine.py', None)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        for split in ('train', 'val'):
            for _, node in inner_datasets(cfg[f'{split}_dataloader'].dataset, ''):
                cls = find_class(node)
                known = is_coco(cls) or cfg.default_scope == 'mmseg' or node['type'] == 'ImageNet'
                if not known:  # such as panoptic or multi-label data
                    return [None]
                stand_in(cfg, split, node)
    for evaluator in cfg.val_evaluator if isinstance(cfg.val_evaluator, list) else [cfg.val_evaluator]:
        if 'ann_file' in evaluator:
            evaluator.ann_file = 'data/val.json'
    return check(cfg, ('train', 'val')).faults


@pytest.mark.long
def test_stock_configs_have_no_fault(tmp_path):
    found = {}
    with restored(tmp_path):
        for stock, section in STOCK:
            found[stock] = [fault and f'{fault.line} {fault.remedy}' for fault in faults(stock, section)]
    skipped = [stock for stock, lines in found.items() if lines == [None]]
    wrong = [f'{stock}: {lines}' for stock, lines in found.items() if lines and lines != [None]]
    assert not wrong, '\n'.join(wrong)
    assert len(skipped) < len(STOCK) / 5, skipped
