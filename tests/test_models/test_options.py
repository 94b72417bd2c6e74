"""The options of the backbone: each changes what it should, and nothing else."""

import functools

import pytest
import torch
from torch import nn

from mmstvit import STViT
from mmstvit.models.published import PublishedSTViT
from mmstvit.ops.super_token import add_branch

from ..helpers import (
    TINY,
    assert_equal,
    assert_near,
    batch_norms,
    cotangent_loss,
    gradients,
    image,
    not_learning,
    relative_error,
    tiny,
)

X = (2, 3, 64, 64)


def names_differ(a: tuple, b: tuple) -> list[bool]:
    return [not torch.equal(x, y) for x, y in zip(a, b, strict=True)]


class TestOutIndices:
    @pytest.mark.parametrize(
        ('out_indices', 'stages'), [(0, [0]), (-1, [3]), ((1,), [1]), ([0, 2], [0, 2]), ((-3, -1), [1, 3])]
    )
    def test_chosen_stages_are_returned_and_later_ones_not_built(self, out_indices, stages):
        full, model = tiny().eval(), tiny(out_indices=out_indices).eval()
        assert model.out_indices == tuple(stages)
        assert len(model.stages) == stages[-1] + 1
        assert len(model.downsamples) == stages[-1]
        assert set(model.state_dict()) <= set(full.state_dict())
        model.load_state_dict({k: v for k, v in full.state_dict().items() if k in model.state_dict()})
        outputs, expected = model(image(*X)), full(image(*X))
        assert not any(names_differ(outputs, tuple(expected[i] for i in stages)))

    def test_every_built_parameter_learns_when_early_stages_are_not_returned(self):
        model = tiny(out_indices=(2,)).eval()
        cotangent_loss(model(image(*X))).backward()
        assert not_learning(model) == []


def is_frozen(name: str, frozen_stages: int) -> bool:
    """Return True if a name belongs to the frozen part: the stem, k stages and the downsamplings before them."""
    group, *index = name.split('.')
    if group == 'patch_embed':
        return frozen_stages >= 0
    return int(index[0]) < frozen_stages - (1 if group == 'downsamples' else 0)


@pytest.mark.parametrize('frozen_stages', range(-1, 5))
class TestFrozenStages:
    def test_frozen_parameters_do_not_learn(self, frozen_stages):
        model = tiny(frozen_stages=frozen_stages)
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad != is_frozen(name, frozen_stages), name
        if frozen_stages < 4:
            cotangent_loss(model(image(*X))).backward()
            for name, grad in gradients(model).items():
                assert (grad is None) == is_frozen(name, frozen_stages), name

    def test_frozen_parts_stay_in_evaluation_mode_and_keep_their_statistics(self, frozen_stages):
        model = tiny(frozen_stages=frozen_stages).eval().train()
        before = {name: norm.running_mean.clone() for name, norm in batch_norms(model).items()}
        model(image(*X))
        for name, module in model.named_modules():
            if '.' in name:
                assert module.training != is_frozen(name, frozen_stages), name
        for name, norm in batch_norms(model).items():
            assert torch.equal(norm.running_mean, before[name]) == is_frozen(name, frozen_stages), name


class TestNormEval:
    def test_batch_norms_keep_their_statistics_and_learn(self):
        model = tiny(norm_eval=True).train()
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        cotangent_loss(model(image(*X))).backward()
        assert_equal(dict(model.named_buffers()), before)
        for name, norm in batch_norms(model).items():
            assert not norm.training
            assert norm.weight.grad.abs().max() > 0, name

    def test_everything_else_trains(self):
        model = tiny(norm_eval=True, drop_path_rate=0.5).train()
        norms = set(batch_norms(model))
        assert norms
        assert all(module.training for name, module in model.named_modules() if name not in norms)


class TestCheckpointing:
    @pytest.mark.parametrize('mode', ['train', 'norm_eval', 'eval', 'frozen', 'autocast'])
    def test_changes_no_output_gradient_or_statistic(self, mode):
        options = {'drop_rate': 0.2, 'attn_drop_rate': 0.2, 'drop_path_rate': 0.5, 'n_iter': 2}
        options |= {'norm_eval': mode == 'norm_eval', 'frozen_stages': 2 if mode == 'frozen' else -1}
        results = []
        for with_cp in (False, True):
            model = tiny(with_cp=with_cp, **options).train(mode != 'eval')
            x = image(*X).requires_grad_()
            torch.manual_seed(1)
            with torch.autocast('cpu', torch.bfloat16, enabled=mode == 'autocast'):
                outputs = model(x)
            cotangent_loss([y.float() for y in outputs]).backward()
            grads = {name: grad for name, grad in gradients(model).items() if grad is not None}
            results.append(
                {
                    **{f'out.{i}': y.detach() for i, y in enumerate(outputs)},
                    **{f'grad.{name}': grad for name, grad in {**grads, 'input': x.grad}.items()},
                    **{f'buffer.{name}': buffer for name, buffer in model.named_buffers()},
                }
            )
        assert_equal(results[1], results[0])

    def test_works_with_synchronized_batch_norm(self):
        model = nn.SyncBatchNorm.convert_sync_batchnorm(tiny(with_cp=True)).train()
        # On CPU and outside torch.distributed the module refuses its forward; that of BatchNorm is the same on one.
        for norm in batch_norms(model).values():
            norm.forward = functools.partial(nn.BatchNorm2d.forward, norm)
            norm._check_input_dim = lambda x: None
        expected = tiny(with_cp=False).train()
        for module in (model, expected):
            cotangent_loss(module(image(*X))).backward()
        assert_equal(gradients(model), gradients(expected))
        assert_equal(dict(model.named_buffers()), dict(expected.named_buffers()))

    def test_a_graph_can_run_backward_twice(self):
        model = tiny(with_cp=True).train()
        loss = cotangent_loss(model(image(*X)))
        loss.backward(retain_graph=True)
        once = {name: grad.clone() for name, grad in gradients(model).items()}
        loss.backward()
        assert_near(gradients(model), {name: 2 * grad for name, grad in once.items()}, 1e-6)
        assert {norm.num_batches_tracked.item() for norm in batch_norms(model).values()} == {1}

    @pytest.mark.parametrize(('with_cp', 'runs'), [(False, 1), (True, 2)])
    def test_blocks_are_recomputed_once(self, with_cp, runs):
        model = tiny(with_cp=with_cp).train()
        calls = []
        for blocks in model.stages:
            for block in blocks:
                # Of the FFN's first layer: recomputation stops once the last saved tensor is back.
                block.ffn.fc1.register_forward_hook(lambda module, *_: calls.append(module))
        cotangent_loss(model(image(*X))).backward()
        assert len(calls) == runs * sum(TINY['depths'])


class TestDrop:
    @pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (0, 1)])
    def test_drop_path_rises_linearly_over_all_blocks(self, out_indices):
        """Over those of the architecture, whichever stages are built."""
        torch.manual_seed(0)
        factors = STViT('nano', drop_path_rate=0.4, out_indices=out_indices).draw_drop_path(torch.empty(4000, 3, 1, 1))
        for i, branches in enumerate(factors):
            assert sorted(set(branches.flatten().tolist())) == pytest.approx([0.0, 1 / (1 - i / 10)][i == 0 :])
            assert (branches == 0).float().mean(1).tolist() == pytest.approx([i / 10] * 2, abs=0.03)
        assert len(factors) == 5

    def test_drop_path_is_in_fp32(self):
        """In bf16, 1 - 0.0053 is 0.9961: a rate of 0.0039."""
        x = torch.full((2, 1, 1, 1), 3.0, dtype=torch.bfloat16, requires_grad=True)
        factor = torch.tensor([0.0, 1 / (1 - 0.0053)])
        out = add_branch(torch.zeros_like(x), x, factor=factor)
        (grad,) = torch.autograd.grad(out, x, x)
        for result in (out, grad):
            assert result.dtype == torch.bfloat16
            assert torch.equal(result.flatten(), (factor * 3).bfloat16())

    def test_frozen_stages_drop_nothing(self):
        model = tiny(drop_rate=0.5, attn_drop_rate=0.5, drop_path_rate=0.9, frozen_stages=2).train()
        x = image(4, 3, 64, 64)
        assert names_differ(model(x), model(x)) == [False, False, True, True]

    @pytest.mark.parametrize('option', ['drop_rate', 'attn_drop_rate', 'drop_path_rate'])
    def test_rates_matter_in_training_only(self, option):
        model, plain = tiny(**{option: 0.5}), tiny()
        x = image(4, 3, 64, 64)
        assert not any(names_differ(model.eval()(x), plain.eval()(x)))
        torch.manual_seed(0)
        assert any(names_differ(model.train()(x), model.train()(x)))
        assert not any(names_differ(plain.train()(x), plain.train()(x)))


class TestStokenSize:
    def test_reaches_every_block_and_changes_no_weight(self):
        plain, model = tiny(), tiny(stoken_size=(4, 2, 2, 1))
        assert_equal(model.state_dict(), plain.state_dict())
        assert model.arch.stoken_size == (4, 2, 2, 1) and plain.arch.stoken_size == (4, 2, 1, 1)
        assert [{block.attn.stoken_size for block in blocks} for blocks in model.stages] == [{4}, {2}, {2}, {1}]

    def test_of_the_arch_is_the_default(self):
        arch = {**TINY, 'stoken_size': (4, 2, 2, 1)}
        assert STViT(arch).arch == tiny(stoken_size=[4, 2, 2, 1]).arch
        assert STViT(arch, stoken_size=(4, 2, 1, 1)).arch == tiny().arch

    @pytest.mark.parametrize('shape', [(2, 3, 64, 64), (1, 3, 72, 104)])
    def test_equals_the_published_algorithm(self, shape):
        """The third stage's map has an odd side in the second shape: its last cells are padded."""
        model = tiny(stoken_size=(4, 2, 2, 1)).double().eval()
        x = image(*shape, dtype=torch.float64)
        expected = PublishedSTViT(model).eval()(x)
        assert names_differ(model(x), tiny().double().eval()(x)) == [False, False, True, True]
        assert max(relative_error(a, b) for a, b in zip(model(x), expected, strict=True)) < 1e-10


class TestIterations:
    def test_matters_from_the_stage_where_it_is_set(self):
        x = image(*X)
        once, in_second, everywhere = (tiny(n_iter=n).eval()(x) for n in (1, (1, 2, 1, 1), 2))
        assert names_differ(in_second, once) == [False, True, True, True]
        assert names_differ(everywhere, once) == [True] * 4

    def test_does_not_matter_where_every_token_is_a_super_token(self):
        x = image(*X)
        assert not any(names_differ(tiny(n_iter=(1, 1, 3, 3)).eval()(x), tiny().eval()(x)))
