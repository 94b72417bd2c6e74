"""DropPathHook sets the drop path rate by epoch."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import Runner
from torch import nn

from mmstvit import STViT
from mmstvit.engine.hooks import DropPathHook
from mmstvit.errors import UserError

from ...helpers import assert_equal, group_of_one, image, tiny

NO_VALIDATION = dict(val_dataloader=None, val_cfg=None, val_evaluator=None)
LARGE = dict(type='mmstvit.DropPathHook', milestones=[260], rates=[0.4, 0.6])


def rate_of(model: nn.Module) -> float:
    """Drop path rate of the model's STViT."""
    (backbone,) = [m for m in model.modules() if isinstance(m, STViT)]
    return backbone.drop_path_rate


class Record(Hook):
    """Record the rates of every iteration with its epoch."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        self.seen.append((runner.epoch, rate_of(runner.model)))


def at_epoch(hook: DropPathHook, model: nn.Module, epoch: int) -> float:
    logger = MMLogger.get_instance('mmstvit', log_level='WARNING')
    hook.before_train_epoch(SimpleNamespace(model=model, epoch=epoch, logger=logger))
    return rate_of(model)


def test_milestones():
    hook = DropPathHook([2, 3, 7], [0.1, 0.0, 0.5, 0.9])
    assert [at_epoch(hook, tiny(), epoch) for epoch in (0, 1, 2, 3, 6, 7, 8)] == pytest.approx(
        [0.1, 0.1, 0.0, 0.5, 0.5, 0.9, 0.9]
    )


def test_runner_with_ema(make_runner):
    record = Record()
    hooks = [dict(type='EMAHook'), dict(type='mmstvit.DropPathHook', milestones=[1, 3], rates=[0.2, 0.4, 0.8])]
    make_runner(custom_hooks=[*hooks, record], **NO_VALIDATION).train()
    assert [epoch for epoch, _ in record.seen] == [0, 0, 1, 1, 2, 2, 3, 3]
    for epoch, seen in record.seen:
        assert seen == [0.2, 0.4, 0.4, 0.8][epoch]


def test_backbone_inside_distributed_data_parallel():
    with group_of_one():
        assert at_epoch(DropPathHook([], [0.8]), MMDistributedDataParallel(tiny()), 0) == 0.8


class TestSetDropPathRate:
    def test_equals_the_argument_of_the_constructor(self):
        model, built = tiny(), tiny(drop_path_rate=0.7)
        model.set_drop_path_rate(0.7)
        assert rate_of(model) == rate_of(built)
        results = []
        for m in (model.train(), built.train()):
            torch.manual_seed(1)
            results.append({str(i): y for i, y in enumerate(m(image(4, 3, 64, 64)))})
        assert_equal(*results)

    @pytest.mark.long
    def test_a_compiled_model_follows(self):
        model, x = tiny().train(), image(4, 3, 64, 64)
        compiled = torch.compile(model, backend='eager')
        changes = []
        for rate in (0.0, 0.9, 0.0):
            model.set_drop_path_rate(rate)
            changes.append(not torch.equal(compiled(x)[3], compiled(x)[3]))
        assert changes == [False, True, False]

    @pytest.mark.parametrize('rate', [1, -0.1, float('nan'), True])
    def test_bad_rate(self, rate):
        with pytest.raises(ValueError, match=r'drop_path_rate must be a number in \[0, 1\)'):
            tiny().set_drop_path_rate(rate)


class TestErrors:
    @pytest.mark.parametrize('milestones', [[3, 3], [4, 2], [0, 1], [1.5, 2], '12', 12])
    def test_milestones(self, milestones):
        with pytest.raises(ValueError, match='milestones must') as caught:
            DropPathHook(milestones, [0.1, 0.2, 0.3])
        assert repr(milestones) in str(caught.value)

    @pytest.mark.parametrize('value', [[0.4], [0.4, 0.6, 0.8], [], 0.4, [0.4, 1.0], [-0.1, 0.4], [0.4, '0.6']])
    def test_rates(self, value):
        with pytest.raises(ValueError, match='rates'):
            DropPathHook([260], value)

    def test_model_without_the_backbone(self, make_runner):
        runner = make_runner(**NO_VALIDATION)
        runner._train_loop, runner.model = runner.build_train_loop(runner._train_loop), nn.Linear(1, 1)
        with pytest.raises(UserError, match=r'set_drop_path_rate.* Linear has none') as error:
            DropPathHook([260], [0.4, 0.6]).before_train(runner)
        assert 'custom_hooks' in error.value.remedy

    def test_run_by_iterations(self, make_runner):
        with pytest.raises(UserError, match='IterBasedTrainLoop') as error:
            make_runner(train_cfg=dict(by_epoch=False, max_iters=2), custom_hooks=[LARGE], **NO_VALIDATION).train()
        assert 'train_cfg.by_epoch=True' in error.value.remedy
