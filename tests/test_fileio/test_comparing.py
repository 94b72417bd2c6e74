"""Comparing weights with a model: what fits is loaded and told, what cannot be meant is refused in words."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseTTAModel
from torch import Tensor, nn

from mmstvit import STViT
from mmstvit.checkpoint import measure
from mmstvit.errors import CheckpointError
from mmstvit.fileio import Source, compare, load_weights, read_weights

from ..helpers import TINY, assert_equal, tiny


def source(weights: Mapping[str, Tensor], **options: object) -> Source:
    return Source('file.pth', dict(weights), **options)


def refusal(module: nn.Module, weights: Mapping[str, Tensor]) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_weights(module, source(weights))
    message = str(caught.value)
    assert message.startswith('file.pth')
    return message


class Detector(nn.Module):
    """A model with a backbone and something after it."""

    def __init__(self, seed: int = 0, **options: object) -> None:
        super().__init__()
        self.backbone = tiny(seed, **options)
        self.head = nn.Linear(24, 5)


class Augmented(BaseTTAModel):
    """Test-time augmentation of nothing."""

    def __init__(self, module: nn.Module) -> None:
        nn.Module.__init__(self)
        self.module = module

    def merge_preds(self, data_samples_list: list) -> list:
        return data_samples_list


class TestTable:
    def test_every_kind_is_counted_and_named(self):
        model = Detector(0)
        weights = Detector(1).state_dict()
        weights['head.weight'] = torch.zeros(7, 24)
        del weights['head.bias']
        weights |= {f'neck.{i}': torch.zeros(1) for i in range(4)}
        report = compare(model, source(weights, where="under 'model'", dropped=['proj.weight', 'proj.bias']))
        assert report.missing == ['head.bias'] and report.unexpected == [f'neck.{i}' for i in range(4)]
        assert report.mismatched == {'head.weight': ((7, 24), (5, 24))}
        assert len(report.loaded) == len(model.state_dict()) - 2
        assert report.table().splitlines() == [
            "weights of       file.pth, under 'model'",
            f'loaded           {len(report.loaded)}',
            'dropped by name  2: proj.weight, proj.bias',
            'missing          1: head.bias',
            'unexpected       4: neck.0, neck.1, neck.2, …',
            'shape mismatch   1: head.weight (file 7×24, model 5×24)',
        ]

    def test_comparing_changes_nothing_and_loading_all_that_fits(self):
        model, other = Detector(0), Detector(1)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        weights = {**other.state_dict(), 'head.weight': torch.zeros(7, 24)}
        compare(model, source(weights))
        assert_equal(model.state_dict(), before)
        load_weights(model, source(weights))
        assert_equal(model.backbone.state_dict(), other.backbone.state_dict())
        assert torch.equal(model.head.weight, before['head.weight'])
        assert torch.equal(model.head.bias, other.head.bias)

    def test_wrappers_are_seen_through(self):
        model, other = Detector(0), Detector(1)
        load_weights(Augmented(model), source(other.state_dict()))
        assert_equal(model.state_dict(), other.state_dict())

    def test_the_table_is_logged(self, log):
        load_weights(tiny(0), source(tiny(1).state_dict()))
        assert re.search(r'weights of +file\.pth\nloaded +\d+\n', log[-1])


class TestRefusals:
    def test_nothing_in_common(self):
        message = refusal(nn.Linear(2, 2), {'layer1.weight': torch.zeros(2, 2)})
        assert "no weight of this model: its keys are like 'layer1.weight', the model's like 'weight'" in message

    def test_nothing_but_other_shapes(self):
        assert 'no weight of this model' in refusal(nn.Linear(2, 2, bias=False), {'weight': torch.zeros(3, 2)})

    @pytest.mark.parametrize(
        'dropped', ['stages.2.1.gamma1', 'patch_embed.norms.0.running_var', 'downsamples.0.conv.bias']
    )
    def test_less_than_the_backbone_needs(self, dropped):
        weights = tiny().state_dict()
        needed = sum(not name.endswith('num_batches_tracked') for name in weights)
        weights.pop(dropped)
        message = refusal(tiny(), weights)
        assert f'only {needed - 1} of the {needed} weights that the backbone needs; it lacks 1: {dropped}.' in message

    def test_heads_without_the_backbone(self):
        weights = {name: tensor for name, tensor in Detector().state_dict().items() if name.startswith('head')}
        assert 'that the backbone (backbone) needs' in refusal(Detector(), weights)

    @pytest.mark.parametrize('absent', ['missing', 'of another shape'])
    def test_a_test_needs_all_that_is_learned(self, absent):
        weights = Detector(1).state_dict()
        bias = weights.pop('head.bias')
        if absent != 'missing':
            weights['head.bias'] = bias[:3]
        model = Detector(0)
        before = model.head.weight.clone()
        with pytest.raises(CheckpointError, match='that this model learns; it lacks 1: head'):
            load_weights(model, source(weights), complete=True)
        assert torch.equal(model.head.weight, before)
        load_weights(model, source(weights))  # a training learns what is missing
        assert torch.equal(model.head.weight, weights['head.weight'])

    def test_counters_of_batches_may_be_missing(self):
        weights = {k: v for k, v in tiny(1).state_dict().items() if not k.endswith('num_batches_tracked')}
        load_weights(tiny(0), source(weights))

    def test_fewer_stages_than_the_file(self):
        model, other = tiny(0, out_indices=(0, 1)), tiny(1)
        report = load_weights(model, source(other.state_dict()))
        assert report.unexpected and not report.missing
        assert torch.equal(model.stages[1][0].gamma1, other.stages[1][0].gamma1)

    def test_more_stages_than_the_file(self):
        weights = tiny(out_indices=(0, 1)).state_dict()
        assert 'the model is an STViT with channels 8, 12, 16, 24' in refusal(tiny(), weights)

    @pytest.mark.parametrize(('file', 'model'), [('base', 'small'), ('nano', 'small'), ('large', 'base')])
    def test_another_size(self, file, model):
        with torch.device('meta'):
            weights, module = STViT(file).state_dict(), STViT(model)
        assert measure(weights) != measure(module.state_dict())
        assert f'this is STViT-{file}; the model is STViT-{model}.' in refusal(module, weights)

    def test_a_size_without_a_name(self):
        message = refusal(tiny(), STViT({**TINY, 'depths': (1, 1, 1, 1)}).state_dict())
        assert 'this is an STViT with channels 8, 12, 16, 24 and depths 1, 1, 1, 1; the model is' in message

    @pytest.mark.parametrize('channels', [1, 4])
    def test_images_of_other_channels(self, channels):
        message = refusal(tiny(in_channels=channels), tiny().state_dict())
        assert f'for images of 3 channels; the model has in_channels={channels}' in message
        assert f'stvit_to_mm.py file.pth DST --in-channels {channels}' in message

    def test_a_backbone_alone_in_a_whole_model(self):
        message = refusal(Detector(), tiny().state_dict())
        assert "init_cfg=dict(type='Pretrained', checkpoint='file.pth')" in message

    def test_the_other_form(self):
        deployed = tiny(deploy=True)
        assert 'inference form (deploy=True), but the weights' in refusal(deployed, tiny().state_dict())
        assert 'is in its training form' in refusal(tiny(), deployed.state_dict())

    def test_weights_that_are_no_numbers(self):
        weights = tiny(1).state_dict()
        weights['stages.0.0.norm1.weight'][0] = float('nan')
        model = tiny(0)
        assert 'NaN or Inf in 1 of' in refusal(model, weights)
        assert_equal(model.state_dict(), tiny(0).state_dict())


class Versioned(nn.Module):
    """A module that looks at the version of what it loads, as some heads of MMDetection do."""

    _version = 7

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen = 'nothing loaded'

    def _load_from_state_dict(self, state_dict: dict, prefix: str, local_metadata: dict, *args: object) -> None:
        self.seen = local_metadata.get('version')
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


@pytest.mark.parametrize('wrapped', [False, True], ids=['plain', 'wrapped'])
def test_modules_see_the_versions_of_what_they_load(tmp_path: Path, wrapped: bool) -> None:
    saved = nn.ModuleDict(dict(head=Versioned()))
    torch.save((nn.ModuleDict(dict(module=saved)) if wrapped else saved).state_dict(), tmp_path / 'a.pth')
    module = nn.ModuleDict(dict(head=Versioned()))
    load_weights(module, read_weights(str(tmp_path / 'a.pth')))
    assert module['head'].seen == Versioned._version
