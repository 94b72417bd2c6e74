"""STViT-large, sharded over two processes by the config that is for it."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmstvit.engine.strategies import FSDPStrategy

from ..helpers import ROOT, assert_equal, free_port, link_scenes

# One 64×64 crop for each process and an iteration an epoch; whole checkpoints of it are large.
CONFIG = f"""
_base_ = '{ROOT / 'configs' / 'imagenet' / 'stvit-large_fsdp_8xb128_in1k.py'}'
loader = dict(
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=False),
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/scenes/imagenet',
        data_prefix='train',
        indices=2,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    ),
)
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1, val_interval=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=1))
"""


@pytest.mark.long
def test_large_is_sharded_resumed_and_loaded_whole(tool, scenes, tmp_path):
    folder = link_scenes(tmp_path, scenes)
    (folder / 'config.py').write_text(CONFIG)
    train = ['config.py', 2, '--work-dir', 'run']
    for options in ([], ['--resume', '--cfg-options', 'train_cfg.max_epochs=2']):
        done = tool('dist_train.sh', *train, *options, cwd=folder, env=free_port())
        assert done.returncode == 0, done.stderr[-3000:]
    assert 'resumed epoch: 1, iter: 1' in done.stdout + done.stderr
    (path,) = (folder / 'run').glob('*.pth')
    checkpoint = torch.load(path, weights_only=False, mmap=True)
    assert {int(moments['step']) for moments in checkpoint['optimizer']['state'].values()} == {2}
    cfg = Config.fromfile(folder / 'config.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    # The 1000-class head included: what the paper counts.
    assert sum(parameter.numel() for parameter in model.parameters()) == 94_971_096
    model.load_state_dict(checkpoint['state_dict'], strict=True)
    assert_equal(model.state_dict(), checkpoint['state_dict'])
    # One process evaluates it.
    done = tool('test.py', 'config.py', path, '--work-dir', 'test', cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r'^accuracy/top1 ', done.stdout, re.MULTILINE)
    path.unlink()  # a gigabyte


def test_clipping_by_the_norm_of_a_shard_is_refused(tmp_path):
    strategy = FSDPStrategy(work_dir=str(tmp_path), env_kwargs=dict(launcher='none'))
    clipped = dict(optimizer=dict(type='SGD', lr=1.0), clip_grad=dict(max_norm=1.0))
    with pytest.raises(ValueError, match=r"clip_grad=\{'max_norm': 1.0\}"):
        strategy.build_optim_wrapper(clipped, torch.nn.Linear(1, 1))
