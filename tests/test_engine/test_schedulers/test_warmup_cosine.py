"""Learning rates of the official ImageNet training, epoch by epoch."""

import math

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from mmstvit.engine.schedulers import WarmupCosineLR

from ...helpers import ROOT

EPOCHS = 300


def optimizer(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([dict(params=[nn.Parameter(torch.zeros(1))], lr=rate) for rate in rates])


def curve(scheduler: WarmupCosineLR, epochs: int) -> list[list[float]]:
    """Rates of every group in every epoch."""
    rates = []
    for _ in range(epochs):
        rates.append([group['lr'] for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def timm_curve(rate: float, epoch: int) -> float:
    """timm's CosineLRScheduler as the official implementation steps it: with the epoch that has just ended."""
    step = epoch - 1
    if step < 0:  # before its first step
        return 1e-6
    if step < 5:
        return 1e-6 + step * (rate - 1e-6) / 5
    return 1e-5 + 0.5 * (rate - 1e-5) * (1 + math.cos(math.pi * step / EPOCHS))


def test_equals_the_official_curve():
    rates = curve(WarmupCosineLR(optimizer(1e-3, 2e-4), end=EPOCHS), EPOCHS)
    for epoch, pair in enumerate(rates):
        assert pair == pytest.approx([timm_curve(1e-3, epoch), timm_curve(2e-4, epoch)], rel=1e-12)
    assert rates[0] == rates[1] == [1e-6, 1e-6]
    assert max(first for first, _ in rates) < 1e-3  # the cosine begins below the warm-up


def test_built_from_the_config_as_mmengine_does():
    cfg = Config.fromfile(ROOT / 'configs' / 'imagenet' / 'stvit-small_8xb128_in1k.py')
    wrapper = OptimWrapper(optimizer(cfg.optim_wrapper.optimizer.lr))
    scheduler = PARAM_SCHEDULERS.build(
        {**cfg.param_scheduler, 'end': cfg.train_cfg.max_epochs}, default_args=dict(optimizer=wrapper, epoch_length=9)
    )
    rates = curve(scheduler, 7)
    assert [rate for rate, *_ in rates] == pytest.approx([timm_curve(1e-3, epoch) for epoch in range(7)], rel=1e-12)


def test_resume():
    whole = curve(WarmupCosineLR(optimizer(1e-3), end=20), 20)
    first = WarmupCosineLR(optimizer(1e-3), end=20)
    assert curve(first, 8) == whole[:8]
    # As MMEngine resumes: the optimizer's groups and the scheduler's state.
    second = WarmupCosineLR(optimizer(1e-3), end=20)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    assert curve(second, 12) == whole[8:]


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'end': 5}, 'warmup_epochs must be at least 0 and less than end=5, but got 5'),
        ({'end': 9, 'eta_min': -1.0}, 'must not be negative'),
    ],
)
def test_bad_option(options, words):
    with pytest.raises(ValueError, match=words):
        WarmupCosineLR(optimizer(1e-3), **options)
