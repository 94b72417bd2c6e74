"""Reading the config of a command line, and errors as the tools print them."""

import argparse

import pytest
from torch.utils.data import DataLoader

from mmstvit.apis import UserError, add_cfg_options, read_config, user_errors
from mmstvit.errors import DataError

from ..helpers import ROOT

NANO = 'imagenet/stvit-nano_scenes.py'


def test_a_config_is_named_by_its_path_or_in_its_package(tmp_path, monkeypatch):
    by_path = read_config(str(ROOT / 'configs' / NANO), None)
    monkeypatch.chdir(tmp_path)
    assert read_config(f'mmstvit::{NANO}', None).to_dict() == by_path.to_dict()
    assert read_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', None).model.type == 'MaskRCNN'
    # MMEngine looks for the distribution mmsegmentation, whose OneDL continuation has another name.
    assert read_config('mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py', None).model.type == 'EncoderDecoder'


def test_dataloaders_get_the_defaults_of_mmpretrains_tools():
    loader = read_config(str(ROOT / 'configs' / NANO), None).train_dataloader
    assert loader.collate_fn.type == 'default_collate' and 'pin_memory' in loader


@pytest.mark.parametrize('pair', ['model.backbone.arch', '"a.b"=1', "'a'=1", 'a..b=1', '=1', 'a b=1'])
def test_a_setting_that_cannot_be_one_is_refused(capsys, pair):
    parser = argparse.ArgumentParser()
    add_cfg_options(parser)
    with pytest.raises(SystemExit) as done:
        parser.parse_args(['--cfg-options', pair])
    assert done.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert '--cfg-options' in message and pair.removesuffix('=1') in message


def test_settings_are_read_as_mmengine_reads_them():
    parser = argparse.ArgumentParser()
    add_cfg_options(parser)
    pairs = ['a.b_1.0.c=1', 'custom-key=[1,2]', 'path=a=b']
    assert parser.parse_args(['--cfg-options', *pairs]).cfg_options == {
        'a.b_1.0.c': 1, 'custom-key': [1, 2], 'path': 'a=b'
    }  # fmt: skip


def test_errors_end_a_tool_with_problem_and_remedy():
    with pytest.raises(SystemExit) as done, user_errors():
        raise UserError('the disk is full.', 'Delete something.')
    assert done.value.code == 'error: the disk is full. Delete something.'


class Broken:
    """A dataset with one image, which cannot be read."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        raise DataError('cannot read a.jpg.', 'Delete it.')


def test_an_error_in_a_worker_ends_a_tool_without_its_traceback():
    with pytest.raises(SystemExit) as done, user_errors():
        list(DataLoader(Broken(), num_workers=1))
    assert done.value.code == 'error: cannot read a.jpg. Delete it.'
