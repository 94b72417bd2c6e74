"""Good configs and data of which the rules about configs say nothing."""

import shutil

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from torch.utils.data import DataLoader

from mmstvit.datasets.coco import is_coco
from mmstvit.engine.runner.command_options import allow_no_workers
from mmstvit.rules import check

from ..helpers import load_config
from ..test_datasets.tiny_data import HEIGHT, WIDTH, draw, images, make_config, write
from .config_cases import SPLITS, dataset, each

SCENES = [
    'cascade_mask_rcnn/cascade-mask-rcnn_stvit-nano_fpn_scenes',
    'faster_rcnn/faster-rcnn_stvit-nano_fpn_scenes',
    'imagenet/stvit-nano_scenes',
    'mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes',
    'upernet/stvit-nano_upernet_scenes',
]
PUBLISHED = [
    'cascade_mask_rcnn/cascade-mask-rcnn_stvit-small_fpn_4conv1fc-giou_ms-3x_coco',
    'dino/dino-4scale_stvit-small_8xb2-12e_coco',
    'imagenet/stvit-small_8xb128_in1k',
    'mask2former/mask2former_stvit-small_8xb2-160k_ade20k-512x512',
    'mask2former/mask2former_stvit-small_8xb2-lsj-50e_coco',
    'mask_rcnn/mask-rcnn_stvit-small_fpn_1x_coco',
    'upernet/stvit-small_upernet_8xb2-160k_ade20k-512x512',
]


@pytest.mark.parametrize('name', SCENES)
def test_scenes_fit_their_configs(name, workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    cfg = load_config(name)
    cfg.param_scheduler = None  # sixteen images have few iterations, six lack a class
    assert {finding.kind for finding in check(cfg, SPLITS).findings} <= {'class without samples'}


@pytest.mark.parametrize('name', PUBLISHED)
def test_configs_have_no_findings_without_data(name):
    assert check(load_config(name), ()).findings == []


def test_helper_variables_are_legal(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
        "default_scope = 'mmseg'\nmodel = dict()\noptimizer = dict(lr=1)\noptim_wrapper = dict(optimizer=optimizer)\n"
        'train_pipeline = []\nnorm_cfg = dict()\n'
    )
    assert check(Config.fromfile(path), ()).findings == []


def test_sixteen_bits_in_full_use(tmp_path):
    cfg = make_config('mmpretrain', tmp_path)
    write(tmp_path / 'train' / 'a' / 'deep.png', draw(0, HEIGHT, WIDTH).astype(np.uint16) * 256)
    assert check(cfg, SPLITS).findings == []


def test_display_names_of_class_folders(tmp_path):
    cfg = make_config('mmpretrain', tmp_path)
    each(cfg, classes=['Tench', 'Goldfish'])
    assert check(cfg, SPLITS).findings == []


def test_rare_class_is_searched_in_more_maps(tmp_path):
    """A dozen maps of background alone are no reason to refuse a data set."""
    cfg = make_config('mmseg', tmp_path)
    for i in range(40):
        shutil.copyfile(images('mmseg', tmp_path, 'val')[0], tmp_path / 'images' / 'train' / f'{i}.jpg')
        write(tmp_path / 'maps' / 'train' / f'{i}.png', np.full((HEIGHT, WIDTH), int(i == 1), np.uint8))
    assert check(cfg, SPLITS).findings == []


def test_folder_of_negatives_beside_others(tmp_path):
    """Maps of the background alone are no fault if other data have the other class."""
    cfg = make_config('mmseg', tmp_path)
    for path in (tmp_path / 'maps' / 'train').iterdir():
        write(path, np.zeros((HEIGHT, WIDTH), np.uint8))
    (warning,) = check(cfg, SPLITS).findings
    assert (warning.kind, warning.severity) == ('only one class in the maps', 'warning')
    (fault,) = check(cfg, ('train',)).findings
    assert (fault.kind, fault.severity) == ('only one class in the maps', 'fault')


def test_share_that_reduce_zero_label_hides(tmp_path):
    cfg = make_config('mmseg', tmp_path)
    each(cfg, reduce_zero_label=True)
    for split in SPLITS:
        for path in (tmp_path / 'maps' / split).iterdir():
            write(path, np.tile(np.arange(WIDTH) % 4 % 3, (HEIGHT, 1)).astype(np.uint8))
    report = check(cfg, SPLITS)
    assert report.findings == []
    assert all('label 0 is ignored (reduce_zero_label=True), 50.0% of the pixels' in line for line in report.used)


def test_evaluation_batch_of_one_resized_size(tmp_path):
    """The sizes after the pipeline count, not those of the files."""
    cfg = make_config('mmseg', tmp_path)
    cfg.val_dataloader.batch_size = 2
    write(images('mmseg', tmp_path, 'val')[1], draw(0, 30, 40, 3))
    write(tmp_path / 'maps' / 'val' / '1.png', draw(0, 30, 40) % 2)
    assert [finding.kind for finding in check(cfg, SPLITS).findings] == ['batch of several sizes']
    dataset(cfg, 'val').pipeline.insert(1, dict(type='Resize', scale=(16, 16)))
    assert check(cfg, SPLITS).findings == []


def test_batches_that_are_padded(tmp_path):
    cfg = make_config('mmpretrain', tmp_path)
    cfg.val_dataloader.update(batch_size=2, collate_fn=dict(type='pseudo_collate'))
    write(images('mmpretrain', tmp_path, 'val')[0], draw(0, 30, 40, 3))
    assert check(cfg, SPLITS).findings == []


def test_orientation_that_the_pipeline_does_not_apply(tmp_path):
    """The annotations have the size of the stored pixels, as ``color_type='unchanged'`` decodes them."""
    cfg = make_config('mmdet', tmp_path)
    path = images('mmdet', tmp_path, 'train')[1]
    image = Image.open(path)
    exif = image.getexif()
    exif[274] = 6
    image.save(path, exif=exif)
    assert [finding.kind for finding in check(cfg, SPLITS).findings] == ['wrong sizes in annotations']
    dataset(cfg).pipeline[0].color_type = 'unchanged'
    assert check(cfg, SPLITS, complete=True).findings == []


def test_panoptic_annotations_are_not_those_of_objects():
    """CocoPanopticDataset inherits the reader of CocoDataset, but its annotations have no boxes."""
    from mmdet.datasets import CocoDataset, CocoPanopticDataset, LVISV1Dataset

    assert is_coco(CocoDataset) and not is_coco(CocoPanopticDataset) and not is_coco(LVISV1Dataset)


def test_byte_order_mark_which_pycocotools_refuses(tmp_path):
    cfg = make_config('mmdet', tmp_path)
    path = tmp_path / 'train.json'
    path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes())
    (fault,) = check(cfg, SPLITS).faults
    assert fault.kind == 'unusable dataset' and 'byte order mark' in fault.message


def test_no_workers():
    cfg = Config(dict(train_dataloader=dict(num_workers=0, persistent_workers=True, prefetch_factor=2)))
    allow_no_workers(cfg)
    assert list(DataLoader([1, 2], **cfg.train_dataloader)) == [1, 2]
