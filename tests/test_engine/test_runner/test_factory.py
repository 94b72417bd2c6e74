"""What the runner writes: a copy of the config that is safe to read, through no link, and logs that nobody forges."""

import shutil

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from mmstvit.engine.runner.factory import build_model, build_runner
from mmstvit.errors import UserError

from ...helpers import TINY_CLASSIFIER, link_scenes
from ...in_process import restored


@pytest.fixture
def build(tmp_path):
    """Build a runner without a model; keyword arguments are fields of its config."""

    def build(**fields: object):
        cfg = Config.fromfile(TINY_CLASSIFIER)
        cfg.update(dict(work_dir=str(tmp_path / 'run'), launcher='none', **fields))
        return build_runner(cfg, lambda: torch.nn.Identity())

    with restored(tmp_path):
        yield build


@pytest.mark.parametrize(
    ('fields', 'key'),
    [
        ({'load_from': '{{$A:b}}.pth'}, 'load_from'),
        ({'note': [{'names': ('a', '{{ fileDirname }}')}]}, 'note.0.names.1'),
        ({'{{_base_.model}}': 1}, 'a key of the config'),
    ],
)
def test_text_that_mmengine_would_replace_in_the_saved_config(build, tmp_path, fields, key):
    with pytest.raises(UserError, match='two braces') as caught:
        build(**fields)
    assert caught.value.problem.startswith(f'{key} is ')
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    'runner', [{}, {'runner_type': 'FlexibleRunner', 'strategy': {'type': 'SingleDeviceStrategy'}}]
)
def test_the_copy_of_the_config_replaces_a_link(build, tmp_path, runner):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'victim').write_text('mine')
    copy = tmp_path / 'run' / TINY_CLASSIFIER.name
    for link in (copy, copy.with_name(f'.mmstvit-{copy.name}.partial')):
        link.symlink_to(tmp_path / 'victim')
    build(**runner)
    assert (tmp_path / 'victim').read_text() == 'mine'
    assert not copy.is_symlink() and Config.fromfile(copy).model.type == 'ImageClassifier'


def test_a_message_forges_no_line_of_the_log(build, tmp_path):
    runner = build()
    runner.logger.info('loaded a\x1b[2J\n2026/01/01 00:00:00 - mmengine - INFO - all is well\r')
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert r'loaded a\x1b[2J' in log.read_text() and r'  2026/01/01 00:00:00 - mmengine - INFO - all is well\r' in (
        log.read_text().splitlines()
    )


class Remove(Hook):
    """Remove the folder of a run."""

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        shutil.rmtree(runner.work_dir, ignore_errors=True)


@pytest.mark.parametrize('log_interval', [1, 1000])
def test_a_folder_that_is_removed_during_the_run(scenes, tmp_path, log_interval):
    """MMEngine writes a line of the log into it, or the checkpoint into a new one."""
    with restored(link_scenes(tmp_path, scenes)):
        cfg = Config.fromfile(TINY_CLASSIFIER)
        cfg.update(dict(work_dir=str(tmp_path / 'run'), launcher='none', custom_hooks=[]))
        cfg.train_dataloader.dataset.indices = cfg.val_dataloader.dataset.indices = 8
        cfg.default_hooks.logger.interval = log_interval
        runner = build_runner(cfg, lambda: build_model(cfg))
        runner.register_hook(Remove())
        with pytest.raises(UserError, match=rf'{tmp_path}/run was removed .* nothing more can be saved') as caught:
            runner.train()
        assert '--resume' in caught.value.remedy
