"""Weights that fit a module are loaded and counted; weights of another model are refused."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseTTAModel
from torch import Tensor, nn

from mmstvit.errors import CheckpointError
from mmstvit.fileio import Checkpoint, LoadReport, compare, load_weights, open_checkpoint

from ..helpers import assert_equal


def source(weights: Mapping[str, Tensor], **options: object) -> Checkpoint:
    return Checkpoint('file.pth', dict(weights), **options)


class Model(nn.Module):
    """A model with a backbone and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 24, 1), nn.BatchNorm2d(24))
        self.head = nn.Linear(24, 5)


class Augmented(BaseTTAModel):
    """Test-time augmentation around a model."""

    def __init__(self, module: nn.Module) -> None:
        nn.Module.__init__(self)
        self.module = module

    def merge_preds(self, data_samples_list: list) -> list:
        return data_samples_list


class TestTable:
    def test_every_kind_is_counted_and_named(self):
        model = Model()
        weights = Model().state_dict()
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

    def test_comparing_changes_no_weight_and_loading_all_that_fit(self):
        model, other = Model(), Model()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        weights = {**other.state_dict(), 'head.weight': torch.zeros(7, 24)}
        compare(model, source(weights))
        assert_equal(model.state_dict(), before)
        load_weights(model, source(weights))
        assert_equal(model.state_dict(), {**other.state_dict(), 'head.weight': before['head.weight']})

    def test_wrappers_are_removed(self):
        model, other = Model(), Model()
        load_weights(Augmented(model), source(other.state_dict()))
        assert_equal(model.state_dict(), other.state_dict())


class TestRefusals:
    def test_no_common_name(self):
        with pytest.raises(
            CheckpointError, match=r"^file\.pth .* keys are like 'layer1\.weight', .* 'weight'"
        ) as caught:
            compare(nn.Linear(2, 2), source({'layer1.weight': torch.zeros(2, 2)}))
        assert 'config' in caught.value.remedy

    def test_no_common_shape(self):
        with pytest.raises(CheckpointError, match=r'^file\.pth has no weight of this model'):
            compare(nn.Linear(2, 2, bias=False), source({'weight': torch.zeros(3, 2)}))

    @pytest.mark.parametrize('absent', ['missing', 'of another shape'])
    def test_a_test_needs_every_parameter(self, absent):
        weights = Model().state_dict()
        bias = weights.pop('head.bias')
        if absent != 'missing':
            weights['head.bias'] = bias[:3]
        model = Model()
        before = model.head.weight.clone()
        with pytest.raises(CheckpointError, match=r'^file\.pth is missing 1 of 6 parameters .*head\.bias'):
            load_weights(model, source(weights), complete=True)
        assert torch.equal(model.head.weight, before)
        load_weights(model, source(weights))  # a training run learns it
        assert torch.equal(model.head.weight, weights['head.weight'])

    def test_counters_of_batches_may_be_missing(self):
        weights = {k: v for k, v in Model().state_dict().items() if not k.endswith('num_batches_tracked')}
        load_weights(Model(), source(weights), complete=True)

    def test_nan(self):
        weights = Model().state_dict()
        weights['head.bias'][0] = torch.nan
        model = Model()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(CheckpointError, match=r'^file\.pth has NaN or Inf in 1 of .*head\.bias'):
            load_weights(model, source(weights))
        assert_equal(model.state_dict(), before)

    def test_a_part_of_the_model_may_refuse_its_weights(self):
        """STViT refuses an incomplete backbone through this seam."""
        model = Model()
        asked = []

        def check_weights(report: LoadReport, prefix: str) -> None:
            asked.append((report.missing, prefix))
            raise CheckpointError('backbone refused')

        model.backbone.check_weights = check_weights
        weights = {name: tensor for name, tensor in model.state_dict().items() if name != 'backbone.0.bias'}
        with pytest.raises(CheckpointError, match='backbone refused'):
            compare(model, source(weights))
        assert asked == [(['backbone.0.bias'], 'backbone.')]


class Versioned(nn.Module):
    """A module that looks at the version of its weights, as some heads of MMDetection do."""

    _version = 7

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen = None

    def _load_from_state_dict(self, state_dict: dict, prefix: str, local_metadata: dict, *args: object) -> None:
        self.seen = local_metadata.get('version')
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


@pytest.mark.parametrize('wrapped', [False, True], ids=['plain', 'wrapped'])
def test_modules_get_the_versions_of_their_weights(tmp_path: Path, wrapped: bool) -> None:
    saved = nn.ModuleDict(dict(head=Versioned()))
    torch.save((nn.ModuleDict(dict(module=saved)) if wrapped else saved).state_dict(), tmp_path / 'a.pth')
    module = nn.ModuleDict(dict(head=Versioned()))
    load_weights(module, open_checkpoint(tmp_path / 'a.pth'))
    assert module['head'].seen == Versioned._version
