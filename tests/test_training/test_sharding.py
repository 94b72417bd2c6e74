"""STViT-large, sharded over two processes by its FSDP config."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmstvit.engine.strategies import FSDPStrategy
from mmstvit.errors import UserError

from ..fork_server import fork
from ..helpers import ROOT, link_scenes

# One crop for each process and one iteration.
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
        ann_file='two.txt',
        metainfo=dict(classes=[str(i) for i in range(1000)]),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    ),
)
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1, val_interval=2)
default_hooks = dict(logger=dict(interval=1))
"""


@pytest.mark.long
def test_large_is_sharded_and_loaded_whole(scenes, tmp_path):
    """Resuming and evaluating such checkpoints: see test_distributed, with a smaller model."""
    folder = link_scenes(tmp_path, scenes)
    (folder / 'config.py').write_text(CONFIG)
    crops = sorted(folder.glob('data/scenes/imagenet/train/*/*.jpg'))
    (folder / 'two.txt').write_text(''.join(f'{crop} {label}\n' for label, crop in enumerate(crops[:2])))
    done = fork('train.py', 'config.py', '--work-dir', 'run', cwd=folder, processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = (folder / 'run').glob('*.pth')
    checkpoint = torch.load(path, weights_only=False, mmap=True)
    assert {int(moments['step']) for moments in checkpoint['optimizer']['state'].values()} == {1}
    cfg = Config.fromfile(folder / 'config.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'), torch.device('meta'):
        model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    # With the 1000-class head, as in the paper.
    assert sum(parameter.numel() for parameter in model.parameters()) == 94_971_096
    model.load_state_dict(checkpoint['state_dict'], strict=True, assign=True)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    path.unlink()  # a gigabyte


def test_clip_grad_is_refused(tmp_path):
    strategy = FSDPStrategy(work_dir=str(tmp_path), env_kwargs=dict(launcher='none'))
    clipped = dict(optimizer=dict(type='SGD', lr=1.0), clip_grad=dict(max_norm=1.0))
    with pytest.raises(UserError, match=r"clip_grad=\{'max_norm': 1.0\}") as error:
        strategy.build_optim_wrapper(clipped, torch.nn.Linear(1, 1))
    assert 'optim_wrapper.clip_grad=None' in error.value.remedy
