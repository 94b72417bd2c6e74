"""CheckFiniteHook stops a diverging run before its weights are bad, and names the first bad tensor."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor

from mmstvit.engine.hooks import CheckFiniteHook
from mmstvit.errors import DivergedError, UserError

from ...helpers import Harm, assert_equal

GUARD = dict(type='mmstvit.CheckFiniteHook')
SGD = dict(type='SGD', lr=0.01)
ADAMW = dict(type='AdamW', lr=0.01, fused=True)
NO_VALIDATION = dict(val_dataloader=None, val_cfg=None, val_evaluator=None)
INF, NAN = float('inf'), float('nan')


class Accident(Hook):
    """Change the runner or the batch before an iteration, counted from 1, and keep the weights of that moment."""

    def __init__(self, iteration: int, change: Callable) -> None:
        self.iteration = iteration
        self.change = change
        self.weights: dict[str, Tensor] = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter + 1 == self.iteration:
            self.weights = {name: p.detach().clone() for name, p in runner.model.named_parameters()}
            self.change(runner, data_batch)


class BadGradient(torch.autograd.Function):
    """The identity with a gradient of NaN."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * NAN


def spoil_image(runner, batch) -> None:
    batch['data_samples'][1].set_metainfo(dict(img_path='data/second.jpg'))
    batch['inputs'][1][0, 0, 0] = NAN


def change_output(name: str, change: Callable) -> Callable:
    """Change the output of a module, from that iteration on."""
    return lambda runner, batch: runner.model.get_submodule(name).register_forward_hook(lambda *a: change(a[-1]))


def change_tensor(name: str, value: float) -> Callable:
    def change(runner, batch) -> None:
        runner.model.state_dict()[name].view(-1)[0] = value

    return change


@pytest.fixture
def diverge(make_runner):
    """Train with an accident in iteration 3, the first of epoch 2; returns the error and the weights.

    The weights are named parameters before the accident and at the end.
    """

    def train(change: Callable, guard: dict = GUARD, **fields: object) -> tuple[DivergedError, dict, dict]:
        accident = Accident(3, change)
        hooks = [accident, *fields.pop('custom_hooks', [])]
        fields = {**NO_VALIDATION, 'default_hooks': dict(check_finite=guard), **fields}
        runner = make_runner(custom_hooks=hooks, **fields)
        with pytest.raises(DivergedError) as error:
            runner.train()
        assert not runner.model._forward_hooks and not runner.model._forward_pre_hooks
        return error.value, accident.weights, dict(runner.model.named_parameters())

    return train


@pytest.mark.parametrize('wrapper', [dict(optimizer=SGD), dict(optimizer=ADAMW, clip_grad=dict(max_norm=1.0))])
def test_bad_image(diverge, tmp_path, wrapper):
    error, before, after = diverge(spoil_image, optim_wrapper=wrapper)
    assert 'iteration 3 (epoch 2)' in error.problem
    assert 'Loss terms: loss=nan.' in error.problem
    assert 'First bad tensor: input of the model (ImageClassifier): 1 NaN and 0 Inf in 49152 values' in error.problem
    assert 'Images of the batch: data/second.jpg.' in error.problem
    assert f'Last good checkpoint (all weights finite): {tmp_path}/epoch_1.pth.' in error.problem
    assert f'--resume {tmp_path}/epoch_1.pth' in error.remedy
    assert_equal(after, before)


def spoil_gradient_of_a_parameter(runner, batch) -> None:
    runner.model.head.fc.weight.register_hook(lambda grad: grad * INF)


def spoil_recomputed_block(runner, batch) -> None:
    runner.model.backbone.with_cp = True
    change_output('backbone.stages.2.0.attn.proj', BadGradient.apply)(runner, batch)


STATISTICS = 'backbone.stages.0.0.norm2.running_var'
# Where: (what spoils the run, options of the optimizer, words of the error).
FIRST_BAD = {
    'an output': (
        change_output('backbone.stages.2.1.norm2', lambda output: output * INF),
        {},
        'First bad tensor: output of backbone.stages.2.1.norm2 (BatchNorm2d): ',
    ),
    # The module before BadGradient receives its gradient.
    'a gradient that clipping spreads to all parameters': (
        change_output('backbone.stages.2.0.ffn', BadGradient.apply),
        dict(clip_grad=dict(max_norm=1.0)),
        'a gradient is NaN or Inf',
        'First bad tensor: gradient of the output of backbone.stages.2.0.ffn',
    ),
    # The last module before proj whose output only the recomputation sees.
    'a gradient in a recomputed block': (
        spoil_recomputed_block,
        {},
        'gradient of the output of backbone.stages.2.0.attn.qkv (Linear)',
    ),
    'a gradient of a parameter only': (
        spoil_gradient_of_a_parameter,
        {},
        'First bad tensor: gradient of the parameter head.fc.weight: ',
    ),
    'a weight': (
        change_tensor('head.fc.bias', NAN),
        {},
        'First bad tensor: bias of head.fc (Linear): 1 NaN and 0 Inf in 3 values',
    ),
    # BatchNorm does not read its statistics in training, but the model would be useless.
    'statistics, though the loss is finite': (
        change_tensor(STATISTICS, INF),
        {},
        f'the weights have NaN or Inf, though loss and gradients were finite; first in {STATISTICS}: 0 NaN and 1 Inf',
    ),
    'an image between steps of accumulated gradients': (
        spoil_image,
        dict(accumulative_counts=4),
        'iteration 3 ',
        'the loss is NaN or Inf',
    ),
}


@pytest.mark.parametrize('where', FIRST_BAD)
def test_the_first_bad_tensor_is_named(diverge, where):
    spoil, options, *words = FIRST_BAD[where]
    error, before, after = diverge(spoil, optim_wrapper=dict(optimizer=SGD, **options))
    assert [word for word in words if word not in error.problem] == []
    if where not in ('a weight', 'statistics, though the loss is finite'):
        assert_equal(after, before)


class Paths(Hook):
    """Name each image after its iteration, counted from 1."""

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        for sample in data_batch['data_samples']:
            sample.set_metainfo(dict(img_path=f'{runner.iter + 1}.jpg'))


class TestAccumulatedGradients:
    """A step of several iterations, some of which have a bad gradient: the others are not blamed."""

    def spoil(self, is_bad: Callable[[int], bool]) -> Callable:
        def change(runner, batch) -> None:
            runner.model.head.fc.register_forward_hook(
                lambda module, args, output: BadGradient.apply(output) if is_bad(runner.iter + 1) else output
            )

        return change

    def test_the_iteration_is_named(self, diverge):
        wrapper = dict(optimizer=SGD, accumulative_counts=4)
        spoil = self.spoil(lambda iteration: iteration == 3)
        error, before, after = diverge(spoil, optim_wrapper=wrapper, custom_hooks=[Paths()])
        assert 'iteration 3 ' in error.problem and 'a gradient is NaN or Inf' in error.problem
        assert 'First bad tensor: gradient of ' in error.problem
        assert 'Images of the batch: 3.jpg, 3.jpg, 3.jpg, 3.jpg.' in error.problem
        assert_equal(after, before)

    def test_a_loss_scaler_sees_only_the_whole_step(self, diverge):
        wrapper = dict(type='mmstvit.CPUAmpOptimWrapper', dtype='float16', optimizer=SGD, accumulative_counts=2)
        spoil = self.spoil(lambda iteration: iteration % 2 == 1)
        guard = dict(GUARD, max_skips=1)
        error, _, _ = diverge(spoil, guard, optim_wrapper=wrapper, custom_hooks=[Paths()])
        assert 'iteration 6 ' in error.problem and 'skipped 2 steps' in error.problem
        assert 'another process or iteration of the step' in error.problem
        assert '.jpg' not in error.problem


def test_fault_that_does_not_occur_again(diverge):
    def once(runner, batch):
        handle = runner.model.neck.register_forward_hook(lambda *a: handle.remove() or (a[-1][0] * NAN,))

    assert 'No NaN or Inf when the iteration is repeated' in diverge(once)[0].problem


def test_repetition_has_the_same_random_numbers(diverge):
    draws = []

    def spoil(x: Tensor) -> Tensor:
        draws.append(torch.rand(()).item())
        return x * NAN

    diverge(change_output('backbone.stages.0.0.attn', spoil))
    assert len(draws) == 2 and draws[0] == draws[1]


class TestLossScaling:
    def amp(self, scale: float, optimizer: dict) -> dict:
        wrapper = dict(type='mmstvit.CPUAmpOptimWrapper', dtype='float16', optimizer=optimizer)
        return dict(NO_VALIDATION, optim_wrapper=dict(wrapper, loss_scale=dict(init_scale=scale)))

    @pytest.mark.parametrize('optimizer', [SGD, ADAMW])
    def test_skipped_steps_are_normal(self, make_runner, optimizer):
        """The scale is halved, one skipped step at a time, until the gradients fit."""
        runner = make_runner(epochs=7, default_hooks=dict(check_finite=GUARD), **self.amp(2.0**24, optimizer))
        runner.train()
        skips = 24 - torch.tensor(runner.optim_wrapper.loss_scaler.get_scale()).log2().item()
        assert 0 < skips < 14
        steps = {int(state['step']) for state in runner.optim_wrapper.optimizer.state.values() if 'step' in state}
        assert steps <= {14 - round(skips)}

    @pytest.mark.parametrize('optimizer', [SGD, ADAMW])
    def test_too_many_skipped_steps_in_a_row(self, diverge, optimizer):
        spoil = change_output('backbone.stages.2.0.ffn', BadGradient.apply)
        error, before, after = diverge(spoil, guard=dict(GUARD, max_skips=1), **self.amp(1.0, optimizer))
        assert 'iteration 4 ' in error.problem and 'skipped 2 steps in a row' in error.problem
        assert 'gradient of the output of backbone.stages.2.0.ffn' in error.problem
        assert_equal(after, before)

    def test_bad_loss_stops_at_once(self, diverge):
        error, before, after = diverge(spoil_image, **self.amp(1.0, ADAMW))
        assert 'iteration 3 ' in error.problem and 'the loss is NaN or Inf' in error.problem
        assert_equal(after, before)


class TestCheckpoints:
    @pytest.mark.parametrize(('kind', 'by_epoch'), [('CheckpointHook', False), ('mmstvit.CheckpointHook', True)])
    def test_bad_weights_do_not_replace_the_only_checkpoint(self, diverge, tmp_path, kind, by_epoch):
        """MMEngine's hook removes the old file before it writes the new one."""
        checkpoint = dict(type=kind, interval=1 if by_epoch else 2, by_epoch=by_epoch, max_keep_ckpts=1)
        name = 'neck.norm.running_mean'
        hooks = dict(check_finite=dict(GUARD, interval=2), checkpoint=checkpoint)
        error, _, _ = diverge(change_tensor(name, NAN), default_hooks=hooks, epochs=2)
        assert 'iteration 4 ' in error.problem and f'first in {name}: 1 NaN and 0 Inf in 8 values' in error.problem
        (kept,) = tmp_path.glob('*.pth')
        assert kept.name == ('epoch_1.pth' if by_epoch else 'iter_2.pth') and f'--resume {kept}' in error.remedy
        assert (tmp_path / 'last_checkpoint').read_text() == str(kept)

    def test_nothing_bad_is_written(self, make_runner, tmp_path):
        """No caller of ``save_checkpoint`` can write bad weights, averages or moments of the optimizer."""
        runner = make_runner(
            epochs=1, default_hooks=dict(check_finite=GUARD), optim_wrapper=dict(optimizer=ADAMW), **NO_VALIDATION
        )
        runner.register_hook(dict(type='EMAHook'))
        runner.train()
        ema = next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook').ema_model.module
        weight = runner.model.head.fc.bias
        moment = runner.optim_wrapper.optimizer.state[weight]['exp_avg_sq']
        for tensor, name in ((weight, 'head.fc.bias'), (ema.head.fc.bias, 'head.fc.bias'), (moment, 'exp_avg_sq')):
            good = tensor.detach().clone()
            tensor.data.fill_(NAN)
            with pytest.raises(
                DivergedError, match=rf'iteration 2 .*first in \S*{name}: 3 NaN and 0 Inf in 3'
            ) as error:
                runner.save_checkpoint(str(tmp_path), 'mine.pth')
            assert f'--resume {tmp_path}/epoch_1.pth' in error.value.remedy
            assert not (tmp_path / 'mine.pth').exists()
            tensor.data.copy_(good)
        # Large values are finite, though their sum is not.
        weight.data.fill_(3e38)
        runner.save_checkpoint(str(tmp_path), 'mine.pth')
        guard_of(runner).before_val(runner)
        weight.data[0] = INF
        with pytest.raises(DivergedError, match=r'first in head\.fc\.bias: 0 NaN and 1 Inf in 3'):
            guard_of(runner).before_val(runner)

    def test_bad_weights_are_not_validated(self, make_runner):
        validated = []

        class Watch(Hook):
            def after_val(self, runner):
                validated.append(runner.iter)

        spoil = Accident(3, change_tensor('neck.norm.running_mean', NAN))
        loop = dict(by_epoch=False, max_iters=6, val_interval=2)
        hooks = dict(check_finite=GUARD, checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=100))
        with pytest.raises(DivergedError, match='running_mean'):
            make_runner(train_cfg=loop, custom_hooks=[spoil, Watch()], default_hooks=hooks).train()
        assert validated == [2]

    def test_the_last_good_checkpoint_is_readable_and_finite(self, diverge, tmp_path):
        def litter(runner, batch):
            good = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
            torch.save(dict(good, state_dict={'weight': torch.tensor([1.0, NAN])}), tmp_path / 'nan.pth')
            torch.save(dict(state_dict=good['state_dict']), tmp_path / 'without_optimizer.pth')
            (tmp_path / 'truncated.pth').write_bytes((tmp_path / 'epoch_1.pth').read_bytes()[:1000])
            (tmp_path / 'harmful.pth').write_bytes(pickle.dumps(Harm(Path.touch, tmp_path / 'harm')))
            spoil_image(runner, batch)

        error, _, _ = diverge(litter)
        assert f'--resume {tmp_path}/epoch_1.pth,' in error.remedy
        assert not (tmp_path / 'harm').exists()

    def test_no_good_checkpoint(self, diverge, tmp_path):
        hooks = dict(check_finite=GUARD, checkpoint=dict(type='CheckpointHook', interval=9))
        error, _, _ = diverge(spoil_image, default_hooks=hooks)
        assert '(all weights finite): none.' in error.problem and '--resume' not in error.remedy


def guard_of(runner) -> CheckFiniteHook:
    return next(hook for hook in runner.hooks if isinstance(hook, CheckFiniteHook))


def test_a_good_run_is_the_same_with_and_without_the_hook(make_runner):
    ends = []
    for enable in (False, True):
        hooks = dict(check_finite=dict(GUARD, enable=enable, interval=1))
        runner = make_runner(epochs=1, default_hooks=hooks, optim_wrapper=dict(optimizer=ADAMW), **NO_VALIDATION)
        ends.append(runner.train().state_dict())
    assert_equal(*ends)


@pytest.mark.parametrize('options', [{'enable': 1}, {'interval': 0}, {'interval': True}, {'max_skips': 1.5}])
def test_bad_option(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        CheckFiniteHook(**options)


def test_several_optimizers_are_refused():
    weight = torch.nn.Parameter(torch.zeros(1))
    wrapper = OptimWrapper(torch.optim.SGD([weight], lr=0.1))
    runner = ConfigDict(optim_wrapper=OptimWrapperDict(a=wrapper, b=wrapper))
    with pytest.raises(UserError, match='OptimWrapperDict has 2') as error:
        CheckFiniteHook().before_train(runner)
    assert 'default_hooks.check_finite.enable=False' in error.value.remedy
