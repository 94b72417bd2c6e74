"""Commands that cannot be carried out: one clear message, exit code 1, and nothing left behind."""

from pathlib import Path

import pytest
import torch

from ..helpers import DATA, ROOT

MASK_RCNN = ROOT / 'configs' / 'mask_rcnn'
NANO = MASK_RCNN / 'mask-rcnn_stvit-nano_fpn_scenes.py'
SMALL = MASK_RCNN / 'mask-rcnn_stvit-small_fpn_1x_coco.py'


def assert_refused(done, folder: Path, *words: str) -> None:
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith('error: ')
    assert 'Traceback' not in done.stderr
    for word in words:
        assert word in done.stderr
    assert not list(folder.rglob('work_dirs')), 'something was written'


def test_missing_data_names_the_path_and_the_command_that_makes_it(tool, tmp_path):
    done = tool('train.py', NANO, cwd=tmp_path)
    assert_refused(done, tmp_path, 'data/scenes/coco/', 'train_dataloader', 'tools/dataset_converters/scenes.py')


def test_missing_coco_names_the_path_and_where_to_get_it(tool, tmp_path):
    done = tool('train.py', SMALL, '--cfg-options', 'model.backbone.init_cfg=None', cwd=tmp_path)
    assert_refused(done, tmp_path, 'data/coco/', 'train2017/')


def test_missing_annotation_file_is_named(tool, workspace):
    option = 'train_dataloader.dataset.ann_file=annotations/none.json'
    done = tool('train.py', NANO, '--cfg-options', option, cwd=workspace)
    assert_refused(done, workspace, 'data/scenes/coco/annotations/none.json', 'train_dataloader')


def test_absent_config_suggests_the_nearest(tool, tmp_path):
    done = tool('train.py', MASK_RCNN / 'mask-rcnn_stvit-smal_fpn_1x_coco.py', cwd=tmp_path)
    assert_refused(done, tmp_path, 'does not exist', 'mask-rcnn_stvit-small_fpn_1x_coco.py')


def test_missing_pretrained_weights_name_the_file_and_the_remedies(tool, tmp_path):
    done = tool('train.py', SMALL, cwd=tmp_path)
    words = ['checkpoints/stvit-small-224_mm.pth', 'stvit_to_mm.py', 'model.backbone.init_cfg=None']
    assert_refused(done, tmp_path, *words)


def test_resume_with_nothing_to_resume(tool, workspace):
    done = tool('train.py', NANO, '--resume', cwd=workspace)
    assert_refused(done, workspace, 'nothing to resume', 'work_dirs/mask-rcnn_stvit-nano_fpn_scenes')


def test_resume_from_a_checkpoint_that_is_gone(tool, workspace):
    done = tool('train.py', NANO, '--resume', 'gone.pth', cwd=workspace)
    assert_refused(done, workspace, 'gone.pth does not exist')


def test_test_with_an_absent_checkpoint(tool, workspace):
    assert_refused(tool('test.py', NANO, 'gone.pth', cwd=workspace), workspace, 'gone.pth does not exist')


def test_auto_scale_lr_without_a_base_batch(tool, workspace):
    done = tool('train.py', NANO, '--auto-scale-lr', cwd=workspace)
    assert_refused(done, workspace, 'auto_scale_lr.base_batch_size')


def test_amp_in_a_precision_that_is_not_mixed(tool, workspace):
    done = tool('train.py', NANO, '--amp', '--cfg-options', 'optim_wrapper.dtype=float64', cwd=workspace)
    assert_refused(done, workspace, '--amp', "optim_wrapper.dtype='float64'", 'bfloat16')


def test_config_of_no_library(tool, tmp_path):
    (tmp_path / 'plain.py').write_text("default_scope = 'mmpose'\n")
    done = tool('train.py', tmp_path / 'plain.py', cwd=tmp_path)
    assert_refused(done, tmp_path, "default_scope='mmpose'", 'mmdet', 'mmpretrain', 'mmseg')


def test_tta_of_masks_without_a_second_stage_says_why_not(tool, workspace):
    (workspace / 'solo.py').write_text("_base_ = 'mmdet::solo/solo_r50_fpn_1x_coco.py'\n")
    (workspace / 'some.pth').write_bytes(b'')
    done = tool('test.py', 'solo.py', 'some.pth', '--tta', cwd=workspace)
    assert_refused(done, workspace, '--tta', 'merges the masks of two-stage detectors')


def test_tta_of_a_detector_that_it_does_not_fit(tool, workspace):
    (workspace / 'some.pth').write_bytes(b'')
    options = ['tta_model.type=mmstvit.InstanceSegTTAModel', 'model.roi_head.mask_head=None']
    done = tool('test.py', NANO, 'some.pth', '--tta', '--cfg-options', *options, cwd=workspace)
    assert_refused(done, workspace, 'without masks', 'DetTTAModel')


def test_out_must_be_a_pickle_file(tool, workspace):
    checkpoint = workspace / 'some.pth'
    checkpoint.write_bytes(b'')
    done = tool('test.py', NANO, checkpoint, '--out', 'out.txt', cwd=workspace)
    assert_refused(done, workspace, 'out.txt', '.pkl')


@pytest.mark.parametrize(('option', 'words'), [
    ('model.backbone.arch=smal', ["'smal'", "'small'"]),
    ('model.backbone.out_indices="[0,7]"', ['out_indices', '7']),
])  # fmt: skip
def test_a_bad_model_option_reaches_the_user(tool, workspace, option, words):
    assert_refused(tool('train.py', NANO, '--cfg-options', option, cwd=workspace), workspace, *words)


def test_a_checkpoint_of_another_model_is_refused(tool, workspace):
    """MMEngine alone would log the missing keys and evaluate random weights."""
    published = torch.load(DATA / 'divisible.pt', weights_only=True)['state_dict']
    torch.save({'model': published}, workspace / 'published.pth')
    done = tool('test.py', NANO, 'published.pth', cwd=workspace)
    assert_refused(done, workspace, 'published.pth: this is an STViT with channels', 'the model is STViT-nano')
