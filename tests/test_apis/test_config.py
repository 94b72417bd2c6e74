"""Reading the config of a command line."""

from mmstvit.apis import read_config

from ..helpers import NANO, config_path


def test_a_config_is_named_by_its_path_or_in_its_package(tmp_path, monkeypatch):
    by_path = read_config(str(config_path(NANO['mmpretrain'])), None)
    monkeypatch.chdir(tmp_path)
    assert read_config(f'mmstvit::{NANO["mmpretrain"]}.py', None).to_dict() == by_path.to_dict()
    assert read_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', None).model.type == 'MaskRCNN'
    # MMEngine looks for the distribution mmsegmentation, whose OneDL continuation has another name.
    assert read_config('mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py', None).model.type == 'EncoderDecoder'


def test_dataloaders_get_the_defaults_of_mmpretrains_tools():
    loader = read_config(str(config_path(NANO['mmpretrain'])), None).train_dataloader
    assert loader.collate_fn.type == 'default_collate' and 'pin_memory' in loader
