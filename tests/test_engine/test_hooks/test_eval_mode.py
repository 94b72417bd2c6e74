"""EvalModeHook trains in evaluation mode."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from ...helpers import assert_equal

# Two iterations are one pass over the data.
LOOPS = [dict(by_epoch=True, max_epochs=2, val_interval=1), dict(by_epoch=False, max_iters=2, val_interval=1)]


class Watch(Hook):
    """Record the model before training, and the modes of its modules in every forward pass of training."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}
        self.modes: list[set[bool]] = []
        self.validations = 0

    def before_train(self, runner: Runner) -> None:
        self.state = {name: value.clone() for name, value in runner.model.state_dict().items()}
        runner.model.backbone.register_forward_pre_hook(lambda *_: self._record(runner))

    def _record(self, runner: Runner) -> None:
        if torch.is_grad_enabled():  # not in a validation
            self.modes.append({module.training for module in runner.model.modules()})

    def before_val(self, runner: Runner) -> None:
        self.validations += 1


@pytest.mark.parametrize(('loop', 'steps', 'validations'), [(LOOPS[0], 4, 2), (LOOPS[1], 2, 2)])
def test_weights_learn_and_statistics_stay_also_after_a_validation(make_runner, loop, steps, validations):
    watch = Watch()
    runner = make_runner(train_cfg=loop, custom_hooks=[dict(type='mmstvit.EvalModeHook'), watch])
    model = runner.train()
    assert watch.modes == [{False}] * steps
    assert watch.validations == validations
    buffers = dict(model.named_buffers())
    assert any(name.endswith('running_mean') for name in buffers)
    assert_equal(buffers, {name: watch.state[name] for name in buffers})
    still = [name for name, p in model.named_parameters() if torch.equal(p, watch.state[name])]
    assert not still
