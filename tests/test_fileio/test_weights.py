"""Weights are found in every wrapping that checkpoint files have, without prefixes, and checked for NaN and Inf."""

from collections import OrderedDict

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mmstvit.errors import CheckpointError
from mmstvit.fileio import Checkpoint

from ..helpers import assert_equal

WEIGHTS = {'a.weight': torch.ones(2), 'b': torch.zeros(1)}


def find_weights(content: object, key: str | None = None) -> tuple[dict[str, torch.Tensor], str]:
    checkpoint = Checkpoint.from_content('file.pth', content, key)
    return checkpoint.weights, checkpoint.where


class TestFindWeights:
    @pytest.mark.parametrize('key', ['state_dict', 'model', 'model_ema', 'state_dict_ema', None])
    def test_usual_keys_and_weights_alone(self, key):
        found, where = find_weights({'epoch': 3, key: WEIGHTS, 'optimizer': {'state': {}}} if key else WEIGHTS)
        assert_equal(found, WEIGHTS)
        assert where == (f'under {key!r}' if key else 'the file itself')

    def test_a_published_file_with_an_average_gives_the_weights_that_are_evaluated(self):
        content = {'model_ema': {'a': torch.zeros(1)}, 'model': {'a': torch.ones(1)}}
        found, where = find_weights(content)
        assert found['a'] == 1
        assert where == "under 'model' (not used: 'model_ema')"
        found, where = find_weights(content, key='model_ema')
        assert found['a'] == 0
        assert where == "under 'model_ema'"

    def test_a_file_of_ema_hook_gives_the_average_and_says_so(self):
        found, where = find_weights({'state_dict': {'a': torch.ones(1)}, 'ema_state_dict': {'a': torch.zeros(1)}})
        assert found['a'] == 1
        assert 'averaged by EMAHook' in where

    @pytest.mark.parametrize('prefix', ['module.', 'module.module.', '_orig_mod.', 'module._orig_mod.'])
    def test_prefixes_of_all_keys_are_removed(self, prefix):
        found, _ = find_weights({'model': {f'{prefix}{key}': value for key, value in WEIGHTS.items()}})
        assert_equal(found, WEIGHTS)

    @pytest.mark.parametrize('average', [ExponentialMovingAverage, AveragedModel])
    def test_counters_of_averaged_models_are_removed(self, average):
        model = nn.Linear(2, 3)
        found, _ = find_weights(average(model).state_dict())
        assert_equal(found, model.state_dict())

    @pytest.mark.parametrize('names', [['module.a', 'b'], ['steps'], ['steps', 'a']])
    def test_prefixes_of_some_keys_and_other_counters_are_kept(self, names):
        weights = dict.fromkeys(names, torch.ones(1))
        assert_equal(find_weights(weights)[0], weights)

    @pytest.mark.parametrize(
        ('content', 'key', 'message'),
        [
            ([1], None, 'the file holds a list'),
            ({'model': {}}, None, "under 'model' is an empty dict"),
            ({'epoch': 3, 'lr': 0.1}, None, "the file itself is a dict with 'epoch', 'lr', and 'epoch' is of type int"),
            ({'model': {'a': torch.ones(1), 'b': 'text'}}, None, "under 'model' is .*'b' is of type str"),
            ({'model': {'a': torch.eye(2).to_sparse()}}, None, "'a' is a sparse tensor"),
            ({'model': {'a': torch.ones(2, device='meta')}}, None, "'a' is .*without values"),
            ({'model': WEIGHTS, 'epoch': 3}, 'ema', "nothing under 'ema'.*'model'"),
            ({'model': WEIGHTS, 'epoch': 3}, 'epoch', "'epoch' is a int"),
        ],
    )
    def test_content_without_weights_is_refused_with_its_keys(self, content, key, message):
        with pytest.raises(CheckpointError, match=message):
            find_weights(content, key)

    @pytest.mark.parametrize('versions', [{7: 5}, {'backbone': 5}, {'': {'version': 1}, 'a': []}])
    def test_versions_of_modules_of_another_type_are_left_out(self, versions):
        weights = OrderedDict(a=torch.ones(1))
        weights._metadata = versions
        kept = find_weights({'state_dict': weights})[0]._metadata
        assert kept == {name: value for name, value in versions.items() if name == ''}

    def test_a_dict_that_contains_itself_is_refused(self):
        content = {}
        content['model'] = content
        with pytest.raises(CheckpointError, match="'model' is of type dict"):
            find_weights(content)


class TestCheckFinite:
    def test_finite_weights_pass(self):
        Checkpoint('a.pth', {**WEIGHTS, 'half': torch.tensor(65504.0, dtype=torch.float16)}).check_finite()

    def test_the_first_is_named_with_counts(self):
        weights = {
            'good': torch.ones(2),
            'bad': torch.tensor([1, float('nan'), float('inf'), -float('inf')]),
            'worse': torch.tensor(float('nan'), dtype=torch.bfloat16),
            'eight': torch.tensor([float('nan')]).to(torch.float8_e4m3fn),
        }
        checkpoint = Checkpoint('a.pth', weights)
        message = r'^a\.pth has NaN or Inf in 3 of 4 tensors, first in bad: 1 NaN and 2'
        with pytest.raises(CheckpointError, match=message):
            checkpoint.check_finite()
        checkpoint.check_finite(['good'])
