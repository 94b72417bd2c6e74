"""The deploy form: equal outputs, other keys, no way back to training."""

import copy
import io

import pytest
import torch
from torch import nn

from mmstvit import STViT, STViTNeck
from mmstvit.errors import CheckpointError, FormError
from mmstvit.ops import use_backend
from mmstvit.ops.cpu import ffn

from ..helpers import TINY, assert_equal, assert_near, cotangent_loss, image, learned, relative_error, tiny


def deployed(model: nn.Module) -> nn.Module:
    """Return a copy in deploy form."""
    model = copy.deepcopy(model)
    model.switch_to_deploy()
    return model


@torch.no_grad()
def errors(actual: nn.Module, expected: nn.Module, x: torch.Tensor) -> list[float]:
    return [relative_error(a.float(), b.float()) for a, b in zip(actual(x), expected(x), strict=True)]


class TestOutputs:
    @pytest.mark.parametrize(('height', 'width'), [(32, 32), (64, 96), (101, 47), (333, 40)])
    @pytest.mark.parametrize('backend', ['cpu', 'torch'])
    def test_equal_those_of_evaluation_mode(self, height, width, backend):
        model = learned(tiny())
        with use_backend(backend):
            actual = errors(deployed(model), model, image(2, 3, height, width))
        assert max(actual) <= 1e-5
        assert max(actual) > 0  # something else was computed

    def test_are_exact_but_for_rounding(self):
        model = learned(tiny()).double()
        x = image(2, 3, 101, 47, dtype=torch.float64)
        with torch.no_grad():
            actual, expected = deployed(model)(x), model(x)
        assert max(relative_error(a, b) for a, b in zip(actual, expected, strict=True)) <= 1e-12

    def test_by_strips(self, monkeypatch):
        model, x = learned(tiny()), image(1, 3, 150, 90)
        whole = deployed(model)
        with torch.no_grad():
            expected = whole(x)
            monkeypatch.setattr(ffn, 'LARGE_BYTES', 1)
            monkeypatch.setattr(ffn, 'STRIP_BYTES', 1)
            strips, calls = ffn._strips, []
            monkeypatch.setattr(ffn, '_strips', lambda *args: calls.append(args) or strips(*args))
            actual = whole(x)
        assert len(calls) == sum(TINY['depths'])
        assert max(relative_error(a, b) for a, b in zip(actual, expected, strict=True)) <= 1e-5
        assert max(errors(whole, model, x)) <= 1e-5

    def test_with_several_iterations_dropout_and_chosen_stages(self):
        model = tiny(
            n_iter=2, out_indices=(0, 2), drop_rate=0.2, attn_drop_rate=0.2, drop_path_rate=0.2, with_cp=True,
            norm_eval=True, frozen_stages=1,
        )  # fmt: skip
        assert max(errors(deployed(learned(model)), model, image(2, 3, 64, 50))) <= 1e-5

    def test_of_the_neck(self):
        torch.manual_seed(0)
        model = learned(STViTNeck(12, 20))
        assert max(errors(deployed(model), model, image(2, 12, 3, 5))) <= 1e-5

    @pytest.mark.parametrize('backend', ['auto', 'torch'])
    def test_in_mixed_precision_are_as_near_as_before(self, backend):
        """bf16 has 8 bits: both forms differ from fp32 by some percent, the deploy form by at most twice as much."""
        model, x = learned(tiny()), image(2, 3, 101, 47)
        with torch.no_grad(), use_backend(backend):
            expected, inference = model(x), deployed(model)
            with torch.autocast('cpu', torch.bfloat16):
                before, after = model(x), inference(x)
        for a, b, c in zip(after, before, expected, strict=True):
            assert relative_error(a.float(), c) < max(0.05, 2 * relative_error(b.float(), c))

    @pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
    def test_of_half_precision_weights_are_finite_and_near(self, dtype):
        model, x = learned(tiny()), image(2, 3, 64, 64)
        with torch.no_grad():
            expected = model(x)
            half = deployed(model.to(dtype))
            assert {p.dtype for p in half.parameters()} == {dtype}
            actual = half(x.to(dtype))
        assert max(relative_error(a.float(), b) for a, b in zip(actual, expected, strict=True)) < 0.1

    def test_are_contiguous_and_let_gradients_through(self):
        model = deployed(learned(tiny(with_cp=True)))
        x = image(1, 3, 45, 70).requires_grad_()
        outputs = model(x)
        assert all(y.is_contiguous() for y in outputs)
        cotangent_loss(outputs).backward()
        assert x.grad.isfinite().all() and x.grad.abs().max() > 0


class TestState:
    @pytest.mark.parametrize('frozen_stages', [-1, 2])
    def test_a_model_built_so_takes_the_weights_of_one_that_switched(self, frozen_stages):
        trained, x = learned(tiny()), image(1, 3, 64, 64)
        source = deployed(trained)
        model = tiny(seed=1, deploy=True, frozen_stages=frozen_stages, norm_eval=True)
        model.load_state_dict(source.state_dict())
        assert max(errors(model, source, x)) == 0
        assert_equal(model.state_dict(), source.state_dict())

    def test_is_in_evaluation_mode_and_learns_nothing(self):
        for model in (tiny(deploy=True), deployed(tiny().train()), STViTNeck(4, 6, deploy=True)):
            assert model.deploy
            assert not [m for m in model.modules() if m.training]
            assert not [p for p in model.parameters() if p.requires_grad]

    def test_switching_twice_is_switching_once(self):
        once = deployed(learned(tiny()))
        twice = deployed(once)
        for module in twice.modules():
            if module is not twice and hasattr(module, 'switch_to_deploy'):
                module.switch_to_deploy()
        assert_equal(twice.state_dict(), once.state_dict())

    def test_can_be_copied_pickled_moved_and_evaluated(self):
        model, x = deployed(learned(tiny())), image(1, 3, 64, 64)
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        copies = [copy.deepcopy(model), torch.load(buffer, weights_only=False)]
        copies.append(copy.deepcopy(model).to('cpu', torch.float64).to(torch.float32).eval())
        for other in copies:
            assert other.deploy
            assert max(errors(other, model, x)) == 0

    def test_initial_weights_may_come_from_a_converted_checkpoint(self, tmp_path):
        source = deployed(learned(tiny()))
        weights = {f'backbone.{name}': value for name, value in source.state_dict().items()}
        torch.save(dict(state_dict=weights), tmp_path / 'deployed.pth')
        init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'deployed.pth'), prefix='backbone.')
        model = STViT(TINY, deploy=True, init_cfg=init_cfg)
        model.init_weights()
        assert_equal(model.state_dict(), source.state_dict())


class TestErrors:
    @pytest.mark.parametrize('build', [lambda: tiny(deploy=True), lambda: STViTNeck(4, 6, deploy=True)])
    def test_training_is_refused_also_inside_another_module(self, build):
        model = build()
        for module in (model, nn.Sequential(model)):
            with pytest.raises(FormError, match=r'cannot be trained.*without deploy=True'):
                module.train()
            assert not [m for m in model.modules() if m.training]
        assert model.train(False) is model

    @pytest.mark.parametrize('build', [tiny, lambda **kwargs: STViTNeck(4, 6, **kwargs)], ids=['backbone', 'neck'])
    @pytest.mark.parametrize('strict', [False, True])
    def test_weights_of_the_other_form_are_refused(self, build, strict):
        training, inference = build(), build(deploy=True)
        with pytest.raises(FormError, match=r'(?s)deploy form \(deploy=True\), but .*reparameterize_model\.py'):
            inference.load_state_dict(training.state_dict(), strict=strict)
        with pytest.raises(FormError, match=r'training form, but .*model\.backbone\.deploy=True'):
            training.load_state_dict(inference.state_dict(), strict=strict)

    @pytest.mark.parametrize('deploy', [False, True])
    def test_pretrained_weights_of_the_other_form_are_refused(self, deploy, tmp_path):
        weights = {f'backbone.{name}': value for name, value in tiny(deploy=not deploy).state_dict().items()}
        torch.save(dict(state_dict=weights), tmp_path / 'other.pth')
        init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'other.pth'), prefix='backbone.')
        with pytest.raises(CheckpointError, match=r'they have stages\.0\.0'):
            STViT(TINY, deploy=deploy, init_cfg=init_cfg).init_weights()

    def test_part_of_the_weights_may_still_be_loaded(self):
        weights = tiny().state_dict()
        stem = {name: value for name, value in weights.items() if name.startswith('patch_embed')}
        for model in (tiny(seed=1), tiny(seed=1, deploy=True)):
            model.load_state_dict(stem, strict=False)
            assert_near({n: v for n, v in model.state_dict().items() if n in stem}, stem, 0)

    @pytest.mark.parametrize('value', [1, 'True', None])
    def test_deploy_must_be_true_or_false(self, value):
        for build in (lambda: STViT(TINY, deploy=value), lambda: STViTNeck(4, 6, deploy=value)):
            with pytest.raises(ValueError, match=f'deploy must be True or False, but got {value!r}'):
                build()
