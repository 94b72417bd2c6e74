"""Layer-wise learning-rate decay gives each parameter its learning rate, in every library."""

import pytest
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

from mmstvit.errors import UserError

from ...helpers import group_of_one
from ...test_deployment.models import make

LR, RATE = 0.25, 0.5

# Exponents of the rate, by hand. Seven layers: the stem, five blocks, and all that follows the backbone.
EXPONENTS = {
    'backbone.patch_embed.': 6,
    'backbone.stages.0.0.': 5,
    'backbone.downsamples.0.': 4,
    'backbone.stages.1.0.': 4,
    'backbone.downsamples.1.': 3,
    'backbone.stages.2.0.': 3,
    'backbone.stages.2.1.': 2,
    'backbone.downsamples.2.': 1,
    'backbone.stages.3.0.': 1,
    'neck.': 0,
    'head.': 0,
    'rpn_head.': 0,
    'roi_head.': 0,
    'decode_head.': 0,
}


def exponent(name: str) -> int:
    (value,) = {value for prefix, value in EXPONENTS.items() if name.startswith(prefix)}
    return value


# The model of each library, with the tiny architecture.
KINDS = {'mmpretrain': 'classifier', 'mmdet': 'mask', 'mmseg': 'segmentor'}


def build(model: nn.Module, scope: str = 'mmpretrain', **paramwise_cfg: object) -> OptimWrapper:
    cfg = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=LR, weight_decay=0.05))
    if 'layer_decay_rate' in paramwise_cfg:
        cfg['constructor'] = 'mmstvit.LayerDecayOptimWrapperConstructor'
    with DefaultScope.overwrite_default_scope(scope):
        return build_optim_wrapper(model, dict(cfg, paramwise_cfg=paramwise_cfg))


@pytest.mark.parametrize('scope', KINDS)
def test_learning_rates_equal_the_table(scope):
    model = make(KINDS[scope])
    groups = build(model, scope, layer_decay_rate=RATE).optimizer.param_groups
    assert [group['params'][0] for group in groups] == [dict(model.named_parameters())[g['param_name']] for g in groups]
    listed = {group['param_name']: (group['lr'], group['lr_scale']) for group in groups}
    expected = {name: (LR * RATE ** exponent(name), RATE ** exponent(name)) for name, _ in model.named_parameters()}
    assert listed == expected
    assert {exponent(name) for name in expected} == set(range(7))


OPTIONS = [
    dict(),
    dict(norm_decay_mult=0.0, custom_keys={'gamma': dict(decay_mult=0.0)}),
    dict(norm_decay_mult=0.1, bias_decay_mult=0.2, bias_lr_mult=2.0, dwconv_decay_mult=0.3, flat_decay_mult=0.4),
    dict(custom_keys={'backbone': dict(lr_mult=0.5), 'head.fc': dict(lr_mult=4.0, decay_mult=3.0)}),
]


@pytest.mark.parametrize('options', OPTIONS, ids=['none', 'recipe', 'all', 'lr'])
def test_other_options_are_those_of_mmengine(options):
    model = make('classifier')
    plain = build(model, **options).optimizer.param_groups
    plain = {id(p): group for group in plain for p in group['params']}
    for group in build(model, layer_decay_rate=RATE, **options).optimizer.param_groups:
        expected = plain[id(group['params'][0])]
        assert group['weight_decay'] == expected['weight_decay']
        assert group['lr'] == expected['lr'] * RATE ** exponent(group['param_name'])


def test_shared_and_frozen_parameters_are_left_out():
    model = make('classifier')
    model.again = model.backbone.patch_embed
    model.backbone.stages[0].requires_grad_(False)
    names = [g['param_name'] for g in build(model, layer_decay_rate=RATE, bypass_duplicate=True).optimizer.param_groups]
    expected = [name for name, _ in model.named_parameters() if not name.startswith('backbone.stages.0.')]
    assert sorted(names) == sorted(expected)


def test_backbone_without_a_model():
    lrs = {
        g['param_name']: g['lr']
        for g in build(make('classifier').backbone, layer_decay_rate=RATE).optimizer.param_groups
    }
    assert lrs == {name: LR * RATE ** exponent(f'backbone.{name}') for name in lrs}


def test_backbone_inside_distributed_data_parallel():
    model = make('classifier')
    with group_of_one():
        parallel = MMDistributedDataParallel(model)
        lrs = {g['param_name']: g['lr'] for g in build(parallel, layer_decay_rate=RATE).optimizer.param_groups}
    assert lrs == {name: LR * RATE ** exponent(name) for name, _ in model.named_parameters()}


def test_two_backbones():
    model = nn.ModuleDict({'student': make('classifier'), 'teacher': make('classifier')})
    groups = build(model, layer_decay_rate=RATE).optimizer.param_groups
    assert all(g['lr'] == LR * RATE ** exponent(g['param_name'].partition('.')[2]) for g in groups)


class TestErrors:
    @pytest.mark.parametrize('rate', [0, -0.5, 1.5, float('nan'), '0.9', None, True])
    def test_rate_out_of_range(self, rate):
        with pytest.raises(UserError, match=r'layer_decay_rate must be a number in \(0, 1\]') as caught:
            build(nn.Linear(2, 2), layer_decay_rate=rate)
        assert repr(rate) in str(caught.value)

    def test_unknown_option(self):
        with pytest.raises(UserError, match="'norm_decay_mul' of paramwise_cfg") as error:
            build(nn.Linear(2, 2), layer_decay_rate=RATE, norm_decay_mul=0.0)
        assert "Did you mean 'norm_decay_mult'?" in error.value.problem

    def test_missing_rate_and_learning_rate(self):
        cfg = dict(optimizer=dict(type='SGD', lr=LR), constructor='mmstvit.LayerDecayOptimWrapperConstructor')
        with pytest.raises(UserError, match='layer_decay_rate'):
            build_optim_wrapper(nn.Linear(2, 2), cfg)
        cfg |= dict(optimizer=dict(type='SGD'), paramwise_cfg=dict(layer_decay_rate=RATE))
        with pytest.raises(UserError, match='has no lr') as error:
            build_optim_wrapper(nn.Linear(2, 2), cfg)
        assert 'optim_wrapper.optimizer.lr' in error.value.remedy

    def test_model_without_get_layer_depth(self):
        with pytest.raises(UserError, match=r'get_layer_depth.* Sequential has none') as error:
            build(nn.Sequential(nn.Linear(2, 2)), layer_decay_rate=RATE)
        assert 'optim_wrapper.constructor' in error.value.remedy
