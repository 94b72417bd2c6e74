"""Commands that cannot be carried out, in processes of their own: one clear message, exit code 1, nothing left behind.

tests/test_bad_inputs.py has many more, in one process.
"""

from pathlib import Path

from ..helpers import ROOT

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


def test_missing_pretrained_weights_name_the_file_and_the_remedies(tool, tmp_path):
    done = tool('train.py', SMALL, cwd=tmp_path)
    words = ['checkpoints/stvit-small-224_mm.pth', 'stvit_to_mm.py', 'model.backbone.init_cfg=None']
    assert_refused(done, tmp_path, *words)


def test_resume_from_a_checkpoint_that_is_gone(tool, workspace):
    done = tool('train.py', NANO, '--resume', 'gone.pth', cwd=workspace)
    assert_refused(done, workspace, 'gone.pth does not exist')


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
