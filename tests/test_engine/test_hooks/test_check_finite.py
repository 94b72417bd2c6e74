"""A training that diverges stops before its weights are spoilt, and says where it began."""

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
from mmstvit.errors import DivergedError

from ...helpers import assert_equal

GUARD = dict(type='mmstvit.CheckFiniteHook')
SGD = dict(type='SGD', lr=0.01)
ADAMW = dict(type='AdamW', lr=0.01, fused=True)
NO_VALIDATION = dict(val_dataloader=None, val_cfg=None, val_evaluator=None)
INF, NAN = float('inf'), float('nan')


class Accident(Hook):
    """Does something to the runner before an iteration, counted from 1; keeps the weights that it found there."""

    def __init__(self, iteration: int, happen: Callable) -> None:
        self.iteration = iteration
        self.happen = happen
        self.weights: dict[str, Tensor] = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter + 1 == self.iteration:
            self.weights = {name: p.detach().clone() for name, p in runner.model.named_parameters()}
            self.happen(runner, data_batch)


class SpoiltGradient(torch.autograd.Function):
    """The identity, whose gradient is NaN."""

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
    """Change what a module of the model returns, from then on."""
    return lambda runner, batch: runner.model.get_submodule(name).register_forward_hook(lambda *a: change(a[-1]))


def change_tensor(name: str, value: float) -> Callable:
    def change(runner, batch) -> None:
        runner.model.state_dict()[name].view(-1)[0] = value

    return change


@pytest.fixture
def diverge(make_runner, caplog):
    """Train with the guard and an accident in iteration 3, the first of epoch 2; gives the message and the weights.

    The weights are named parameters before the accident and at the end.
    """

    def train(happen: Callable, guard: dict = GUARD, **fields: object) -> tuple[str, dict, dict]:
        accident = Accident(3, happen)
        fields = {**NO_VALIDATION, 'default_hooks': dict(check_finite=guard), **fields}
        runner = make_runner(custom_hooks=[accident], **fields)
        with pytest.raises(DivergedError) as error:
            runner.train()
        assert not runner.model._forward_hooks and not runner.model._forward_pre_hooks
        return str(error.value), accident.weights, dict(runner.model.named_parameters())

    return train


@pytest.mark.parametrize('optimizer', [SGD, ADAMW])
@pytest.mark.parametrize('clip', [None, dict(max_norm=1.0)])
def test_a_bad_image(diverge, tmp_path, optimizer, clip):
    wrapper = dict(optimizer=optimizer, clip_grad=clip)
    message, before, after = diverge(spoil_image, optim_wrapper=wrapper)
    assert 'iteration 3 (epoch 2)' in message
    assert 'Loss terms: loss=nan.' in message
    assert 'First of all: input of the model (ImageClassifier): 1 NaN of 49152 numbers (float32)' in message
    assert 'Images of the batch: data/second.jpg.' in message
    assert f'--resume {tmp_path}/epoch_1.pth' in message
    assert_equal(after, before)


@pytest.mark.parametrize(('name', 'kind'), [
    ('backbone.stages.2.1.norm2', 'BatchNorm2d'),
    ('backbone.stages.1.0.ffn.dwconv', 'ResidualDepthwiseConv'),
    ('neck.norm', 'BatchNorm2d'),
])  # fmt: skip
def test_the_module_is_named(diverge, name, kind):
    message, before, after = diverge(change_output(name, lambda output: output * INF))
    assert f'First of all: output of {name} ({kind}): ' in message
    assert_equal(after, before)


def test_a_gradient_though_clipping_spreads_it_to_all(diverge):
    spoil = change_output('backbone.stages.2.0.ffn', SpoiltGradient.apply)
    message, before, after = diverge(spoil, optim_wrapper=dict(optimizer=SGD, clip_grad=dict(max_norm=1.0)))
    assert 'a gradient is not finite' in message
    # What runs before it gets the bad gradient.
    assert 'First of all: gradient of the output of backbone.stages.2.0.ffn' in message
    assert_equal(after, before)


def test_a_gradient_in_blocks_that_are_computed_again(diverge):
    def spoil(runner, batch):
        runner.model.backbone.with_cp = True
        change_output('backbone.stages.2.0.attn.proj', SpoiltGradient.apply)(runner, batch)

    # The last that runs before what spoils the gradient, and has a hidden output of its own.
    assert 'gradient of the output of backbone.stages.2.0.attn.qkv (Linear)' in diverge(spoil)[0]


def test_a_gradient_of_a_parameter_alone(diverge):
    def spoil(runner, batch):
        runner.model.head.fc.weight.register_hook(lambda grad: grad * INF)

    message, before, after = diverge(spoil)
    assert 'First of all: gradient of the parameter head.fc.weight: ' in message
    assert_equal(after, before)


@pytest.mark.parametrize(('name', 'value'), [('backbone.stages.0.0.norm2.running_var', INF), ('head.fc.bias', NAN)])
def test_weights_and_statistics(diverge, name, value):
    """BatchNorm does not read its statistics in training: the loss stays a number, and the model would be worthless."""
    message, _, _ = diverge(change_tensor(name, value))
    assert f'{name}' in message or 'parameter bias of head.fc (Linear)' in message
    assert '1 NaN of 3' in message or 'the weights are not finite' in message


def test_between_steps_of_accumulated_gradients(diverge):
    message, before, after = diverge(spoil_image, optim_wrapper=dict(optimizer=SGD, accumulative_counts=4))
    assert 'iteration 3 ' in message and 'the loss is not finite' in message
    assert_equal(after, before)


def test_what_does_not_happen_again_is_said(diverge):
    def once(runner, batch):
        handle = runner.model.neck.register_forward_hook(lambda *a: handle.remove() or (a[-1][0] * NAN,))

    assert 'When the batch was repeated, all numbers were finite' in diverge(once)[0]


def test_the_same_random_numbers_come_again(diverge):
    """A path that is kept at random: the repetition keeps the same ones."""
    seen = []

    def spoil(x: Tensor) -> Tensor:
        draw = torch.rand(())
        seen.append(draw.item())
        return x * NAN

    diverge(change_output('backbone.stages.0.0.drop_path', spoil))
    assert len(seen) == 4 and seen[:2] == seen[2:]


class TestOnADeviceThatIsNotWaitedFor:
    """The way of a GPU, on CPU."""

    @pytest.fixture(autouse=True)
    def defer(self, monkeypatch):
        monkeypatch.setattr(CheckFiniteHook, '_defers', lambda self: True)

    def test_a_bad_loss_stops_at_once_and_a_fused_optimizer_keeps_the_weights(self, diverge):
        message, before, after = diverge(spoil_image, optim_wrapper=dict(optimizer=ADAMW))
        assert 'iteration 3 ' in message and 'input of the model' in message
        assert 'made its step' not in message
        assert_equal(after, before)

    def test_another_optimizer_has_made_its_step(self, diverge):
        message, _, after = diverge(spoil_image)
        assert 'iteration 3 ' in message and 'The optimizer has made its step' in message
        assert after['head.fc.weight'].isnan().any()

    def test_a_bad_gradient_stops_at_the_next_look_with_the_weights_of_before(self, diverge):
        spoil = change_output('backbone.stages.2.0.ffn', SpoiltGradient.apply)
        wrapper = dict(optimizer=ADAMW)
        guard = dict(GUARD, interval=5)
        message, before, after = diverge(spoil, guard=guard, optim_wrapper=wrapper)
        assert 'iteration 5 ' in message and 'a gradient was not finite in iteration 3, whose batch is gone' in message
        assert 'First of all' not in message
        assert_equal(after, before)

    def test_an_interval_of_one_looks_before_every_step(self, diverge):
        spoil = change_output('backbone.stages.2.0.ffn', SpoiltGradient.apply)
        message, before, after = diverge(spoil, guard=dict(GUARD, interval=1))
        assert 'iteration 3 ' in message and 'gradient of the output of backbone.stages.2.0.ffn' in message
        assert_equal(after, before)

    def test_a_good_training_is_the_same(self, make_runner):
        assert_guard_changes_nothing(make_runner, ADAMW)


class TestLossScaling:
    def amp(self, scale: float, optimizer: dict) -> dict:
        wrapper = dict(type='mmstvit.CPUAmpOptimWrapper', dtype='float16', optimizer=optimizer)
        return dict(NO_VALIDATION, optim_wrapper=dict(wrapper, loss_scale=dict(init_scale=scale)))

    @pytest.mark.parametrize('optimizer', [SGD, ADAMW])
    def test_skipped_steps_are_no_divergence(self, make_runner, optimizer):
        """From 2^40 the scale comes down, a step skipped each time, until the gradients fit."""
        guard = dict(GUARD, max_skips=40)
        runner = make_runner(epochs=20, default_hooks=dict(check_finite=guard), **self.amp(2.0**40, optimizer))
        runner.train()
        scale = runner.optim_wrapper.loss_scaler.get_scale()
        assert 1 < scale < 2.0**40
        steps = {int(state['step']) for state in runner.optim_wrapper.optimizer.state.values() if 'step' in state}
        assert steps <= {40 - round(40 - torch.tensor(scale).log2().item())}

    @pytest.mark.parametrize('optimizer', [SGD, ADAMW])
    def test_too_many_in_a_row_are(self, diverge, optimizer):
        spoil = change_output('backbone.stages.2.0.ffn', SpoiltGradient.apply)
        message, before, after = diverge(spoil, guard=dict(GUARD, max_skips=3), **self.amp(1.0, optimizer))
        assert 'iteration 6 ' in message and 'skipped 4 steps in a row' in message and 'its scale is 0.0625' in message
        assert 'gradient of the output of backbone.stages.2.0.ffn' in message
        assert_equal(after, before)

    def test_a_loss_that_is_no_number_is_no_matter_of_the_scale(self, diverge):
        message, before, after = diverge(spoil_image, **self.amp(1.0, ADAMW))
        assert 'iteration 3 ' in message and 'the loss is not finite' in message
        assert_equal(after, before)


class TestCheckpoints:
    @pytest.mark.parametrize('kind', ['CheckpointHook', 'mmstvit.CheckpointHook'])
    @pytest.mark.parametrize('by_epoch', [True, False])
    def test_bad_weights_replace_no_good_ones(self, diverge, tmp_path, kind, by_epoch):
        """Spoilt behind the back of loss and gradients, with room for one checkpoint alone."""
        hooks = dict(
            check_finite=GUARD, checkpoint=dict(type=kind, interval=1 + by_epoch, by_epoch=by_epoch, max_keep_ckpts=1)
        )
        name = 'neck.norm.running_mean'
        loop = dict(by_epoch=True, max_epochs=2)
        hooks['checkpoint']['interval'] = 1 if by_epoch else 2
        message, _, _ = diverge(change_tensor(name, NAN), default_hooks=hooks, train_cfg=loop)
        assert 'iteration 4 ' in message and f'first in {name}: 1 NaN of 8 numbers' in message
        (kept,) = tmp_path.glob('*.pth')
        assert kept.name == ('epoch_1.pth' if by_epoch else 'iter_2.pth') and f'--resume {kept}' in message
        assert (tmp_path / 'last_checkpoint').read_text() == str(kept)

    @pytest.mark.parametrize('spoil', [
        lambda runner: change_tensor('head.fc.bias', INF)(runner, None),
        lambda runner: runner.optim_wrapper.optimizer.state[runner.model.head.fc.bias]['exp_avg_sq'].fill_(INF),
    ])  # fmt: skip
    def test_whoever_saves_is_refused(self, make_runner, tmp_path, spoil):
        runner = make_runner(
            epochs=1, default_hooks=dict(check_finite=GUARD), optim_wrapper=dict(optimizer=ADAMW), **NO_VALIDATION
        )
        runner.train()
        spoil(runner)
        with pytest.raises(DivergedError, match=f'(?s)iteration 2 .*about to be written.*resume {tmp_path}/epoch_1'):
            runner.save_checkpoint(str(tmp_path), 'mine.pth')
        assert not (tmp_path / 'mine.pth').exists()

    def test_averaged_weights_too(self, make_runner, tmp_path):
        runner = make_runner(epochs=1, default_hooks=dict(check_finite=GUARD), **NO_VALIDATION)
        runner.register_hook(dict(type='EMAHook'))
        runner.train()
        ema = next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook')
        ema.ema_model.module.head.fc.bias.data.fill_(NAN)
        with pytest.raises(DivergedError, match=r'first in head\.fc\.bias: 3 NaN of 3'):
            runner.save_checkpoint(str(tmp_path), 'mine.pth')

    def test_no_validation_of_bad_weights(self, make_runner):
        validated = []

        class Watch(Hook):
            def after_val(self, runner):
                validated.append(runner.iter)

        spoil = Accident(3, change_tensor('neck.norm.running_mean', NAN))
        loop = dict(by_epoch=False, max_iters=4, val_interval=2)
        hooks = dict(check_finite=GUARD, checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=100))
        with pytest.raises(DivergedError, match='running_mean'):
            make_runner(train_cfg=loop, custom_hooks=[spoil, Watch()], default_hooks=hooks).train()
        assert validated == [2]

    def test_the_last_good_one_is_the_newest_that_can_be_read_and_is_finite(self, diverge, tmp_path):
        def litter(runner, batch):
            good = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
            torch.save(dict(good, state_dict={'weight': torch.tensor([1.0, NAN])}), tmp_path / 'nan.pth')
            torch.save(dict(state_dict=good['state_dict']), tmp_path / 'without_optimizer.pth')
            (tmp_path / 'truncated.pth').write_bytes((tmp_path / 'epoch_1.pth').read_bytes()[:1000])
            (tmp_path / 'empty.pth').touch()
            (tmp_path / 'harmful.pth').write_bytes(pickle.dumps(Harmful(tmp_path / 'harm')))
            spoil_image(runner, batch)

        message, _, _ = diverge(litter)
        assert f'Last good checkpoint, all weights finite: {tmp_path}/epoch_1.pth.' in message
        assert not (tmp_path / 'harm').exists()

    def test_none(self, diverge, tmp_path):
        hooks = dict(check_finite=GUARD, checkpoint=dict(type='CheckpointHook', interval=9))
        message, _, _ = diverge(spoil_image, default_hooks=hooks)
        assert 'no checkpoint of this run' in message


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_large_numbers_are_numbers(make_runner):
    """Though their sum is Inf."""
    runner = make_runner(epochs=1, default_hooks=dict(check_finite=GUARD), **NO_VALIDATION)
    runner.train()
    runner.model.head.fc.bias.data.fill_(3e38)
    guard_of(runner).before_val(runner)
    runner.model.head.fc.bias.data[0] = INF
    with pytest.raises(DivergedError, match=r'first in head\.fc\.bias: 1 Inf of 3 numbers'):
        guard_of(runner).before_val(runner)


def guard_of(runner) -> CheckFiniteHook:
    return next(hook for hook in runner.hooks if isinstance(hook, CheckFiniteHook))


def assert_guard_changes_nothing(make_runner, optimizer: dict) -> None:
    ends = []
    for enable in (False, True):
        hooks = dict(check_finite=dict(GUARD, enable=enable))
        ends.append(make_runner(epochs=2, default_hooks=hooks, optim_wrapper=dict(optimizer=optimizer)).train())
    assert_equal(*(model.state_dict() for model in ends))


@pytest.mark.parametrize('optimizer', [SGD, ADAMW])
def test_a_good_training_is_the_same(make_runner, optimizer):
    assert_guard_changes_nothing(make_runner, optimizer)


def test_turned_off_the_weights_are_lost(make_runner):
    """What it is for."""
    hooks = dict(check_finite=dict(GUARD, enable=False))
    accident = Accident(3, spoil_image)
    model = make_runner(epochs=2, custom_hooks=[accident], default_hooks=hooks, **NO_VALIDATION).train()
    assert model.head.fc.weight.isnan().any()


@pytest.mark.parametrize('options', [{'enable': 1}, {'interval': 0}, {'interval': True}, {'max_skips': 1.5}])
def test_a_bad_option_is_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        CheckFiniteHook(**options)


def test_several_optimizers_are_refused():
    weight = torch.nn.Parameter(torch.zeros(1))
    wrapper = OptimWrapper(torch.optim.SGD([weight], lr=0.1))
    runner = ConfigDict(optim_wrapper=OptimWrapperDict(a=wrapper, b=wrapper))
    with pytest.raises(ValueError, match=r'2 \(OptimWrapperDict\).*default_hooks\.check_finite\.enable=False'):
        CheckFiniteHook().before_train(runner)
