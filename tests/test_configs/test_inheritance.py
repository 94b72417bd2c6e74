"""A user's config with ``_base_ = 'mmstvit::…'`` trains, read by our tools and by those of the libraries."""

import math

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmstvit import STViT
from mmstvit.apis import read_config

from ..helpers import NANO
from ..in_process import restored

CONFIG = """
_base_ = 'mmstvit::{base}.py'

train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(indices=2), sampler=dict(shuffle=False)
)
val_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict({length}=1, val_interval=2)
optim_wrapper = dict(optimizer=dict(lr=0.25))
default_hooks = dict(checkpoint=dict(save_last=False, interval=9))
param_scheduler = []
"""
LONG = [pytest.param(library, marks=pytest.mark.long) for library in ('mmdet', 'mmseg')]


@pytest.mark.parametrize('library', [*LONG, 'mmpretrain'])
def test_config_that_inherits_from_mmstvit_trains(library, workspace):
    with restored(workspace):
        check_training(library, workspace)


def check_training(library, workspace):
    length = 'max_iters' if library == 'mmseg' else 'max_epochs'
    (workspace / 'own.py').write_text(CONFIG.format(base=NANO[library], length=length))
    ours, theirs = read_config('own.py', None), Config.fromfile('own.py')
    assert theirs.train_dataloader.dataset._scope_ == 'mmstvit'
    # Our tools complete the dataloaders of MMPreTrain, as its own do; else both train the same config.
    for cfg in [ours] if ours == theirs else [ours, theirs]:
        cfg.work_dir = 'work_dir'
        with DefaultScope.overwrite_default_scope('mmengine'):  # puts back what the runner changes
            runner = Runner.from_cfg(cfg)
            runner.train()
            assert DefaultScope.get_current_instance().scope_name == library
        assert math.isfinite(runner.message_hub.get_scalar('train/loss').current())
        assert set(runner.optim_wrapper.get_lr()['lr']) == {0.25}
        assert isinstance(runner.model.backbone, STViT)
        assert type(runner.train_dataloader.dataset).__module__.startswith(library)
