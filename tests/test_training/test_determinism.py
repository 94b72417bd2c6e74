"""The same seed gives the same weights, bit for bit, however many processes load the data."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor

from mmstvit.engine.runner.factory import build_runner, build_seeded
from mmstvit.engine.runner.resume import make_restartable

from ..helpers import assert_equal

CONFIG = Path(__file__).parent / 'tiny_classifier.py'


@pytest.fixture
def train(workspace, monkeypatch):
    """Train the tiny classifier for two iterations; returns its state."""
    monkeypatch.chdir(workspace)
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict(DefaultScope._instance_dict))
    runs = []

    def run(seed: int = 0, workers: int = 0) -> dict[str, Tensor]:
        runs.append(f'determinism_{len(runs)}')
        cfg = Config.fromfile(CONFIG)
        cfg.work_dir, cfg.experiment_name, cfg.launcher = runs[-1], runs[-1], 'none'
        cfg.randomness = dict(seed=seed)
        cfg.train_cfg.max_epochs = 1
        cfg.train_dataloader.update(num_workers=workers, persistent_workers=workers > 0)
        cfg.train_dataloader.dataset.indices = 16
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.log_level = 'WARNING'
        make_restartable(cfg)
        return build_runner(cfg, build_seeded(cfg)[1]).train().state_dict()

    before = torch.get_rng_state()
    yield run
    torch.set_rng_state(before)


@pytest.mark.long
def test_same_seed_same_weights(train):
    first = train(seed=3)
    torch.rand(5)  # the state of the generators does not matter
    assert_equal(train(seed=3, workers=2), first)
    other = train(seed=4)
    assert not torch.equal(other['head.fc.weight'], first['head.fc.weight'])
