"""The process group of a distributed run."""

import multiprocessing
import os
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DefaultScope
from torch import distributed

from mmstvit.engine.runner.factory import build_runner, build_seeded
from mmstvit.engine.runner.processes import leave_process_group, lock_work_dir, start_processes
from mmstvit.errors import UserError

from ...helpers import TINY_CLASSIFIER, free_port


@pytest.fixture
def group_of_one(monkeypatch):
    """The environment of a launcher's only process, and no GPU."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    env = dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port()['PORT'])
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    # A runner's scope would stay the default for the tests after it.
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict(DefaultScope._instance_dict))
    yield
    leave_process_group()
    assert not distributed.is_initialized()


@pytest.mark.parametrize(('wrapper', 'broadcast', 'unused'), [
    (None, False, False),  # MMEngine's choice
    (dict(type='MMDistributedDataParallel'), True, False),  # as the recipes of ImageNet
    (dict(find_unused_parameters=True), True, True),  # the rest is PyTorch's
])  # fmt: skip
def test_the_config_says_how_the_model_is_wrapped(group_of_one, tmp_path, wrapper, broadcast, unused):
    cfg = Config.fromfile(TINY_CLASSIFIER)
    cfg.update(launcher='pytorch', work_dir=str(tmp_path), model_wrapper_cfg=wrapper, experiment_name=tmp_path.name)
    cfg.sync_bn = 'torch'  # for GPUs only
    start_processes(cfg)
    model = build_runner(cfg, build_seeded(cfg)[1]).model
    assert type(model) is MMDistributedDataParallel and model.device_ids is None
    assert (model.broadcast_buffers, model.find_unused_parameters) == (broadcast, unused)
    assert not any(isinstance(module, torch.nn.SyncBatchNorm) for module in model.modules())


class TestLock:
    def lock_in_another_process(self, work_dir: Path) -> str:
        """Try to lock in a forked process; returns the error, or an empty string."""
        with multiprocessing.get_context('fork').Pool(1) as pool:
            return pool.apply(try_to_lock, (work_dir,))

    def test_one_run_at_a_time_in_a_work_dir(self, tmp_path):
        assert lock_work_dir(tmp_path / 'run', try_only=True) is None and not (tmp_path / 'run').exists()
        lock = lock_work_dir(tmp_path / 'run')
        said = self.lock_in_another_process(tmp_path / 'run')
        assert f'process {os.getpid()}' in said and '--work-dir' in said
        assert self.lock_in_another_process(tmp_path / 'other') == ''
        lock.close()
        assert self.lock_in_another_process(tmp_path / 'run') == ''

    def test_a_work_dir_that_cannot_be_written(self, tmp_path):
        (tmp_path / 'victim').write_text('mine')
        with pytest.raises(UserError, match='cannot be written'):
            lock_work_dir(tmp_path / 'victim')

    @pytest.mark.parametrize('link', [os.symlink, os.link, lambda victim, lock: os.mkfifo(lock)])
    def test_a_lock_that_is_no_file_of_its_own_is_refused(self, link, tmp_path):
        (tmp_path / 'victim').write_text('mine')
        link(tmp_path / 'victim', tmp_path / '.mmstvit-lock')
        with pytest.raises(UserError, match=r'mmstvit-lock is a link, or no file of its own\. Remove it'):
            lock_work_dir(tmp_path)
        assert (tmp_path / 'victim').read_text() == 'mine'


def try_to_lock(work_dir: Path) -> str:
    try:
        lock_work_dir(work_dir)
    except UserError as error:
        return str(error)
    return ''
