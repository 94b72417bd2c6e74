"""A tiny classifier on noise in MMEngine's own runner."""

import itertools
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import Tensor

from ...helpers import TINY, image

_names = (f'hooks_{i}' for i in itertools.count())


class Noise(torch.utils.data.Dataset):
    """Eight images of noise in three classes."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Tensor | object]:
        return dict(inputs=image(3, 64, 64, seed=index), data_samples=DataSample().set_gt_label(index % 3))


@pytest.fixture
def make_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Runner]:
    """Build a runner with two iterations per epoch; keyword arguments are fields of its config."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)  # starts several processes, to log their output
    # The runner's scope would stay the default for the tests after it.
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict(DefaultScope._instance_dict))

    def make(epochs: int = 4, **fields: object) -> Runner:
        loader = dict(batch_size=4, num_workers=0, dataset=Noise(), sampler=dict(type='DefaultSampler', shuffle=False))
        cfg = dict(
            model=dict(
                type='ImageClassifier',
                backbone=dict(type='mmstvit.STViT', arch=TINY, drop_path_rate=0.9),
                neck=dict(type='mmstvit.STViTNeck', in_channels=24, out_channels=8),
                head=dict(type='LinearClsHead', num_classes=3, in_channels=8),
                data_preprocessor=dict(type='ClsDataPreprocessor'),
            ),
            work_dir=str(tmp_path),
            train_dataloader=loader,
            val_dataloader=loader,
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            val_cfg=dict(),
            val_evaluator=dict(type='Accuracy'),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            default_scope='mmpretrain',
            experiment_name=next(_names),
            log_level='WARNING',
            randomness=dict(seed=0),
        )
        return Runner(**{**cfg, **fields})

    return make
