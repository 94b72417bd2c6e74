"""tools/analysis_tools/get_flops.py."""

import functools
import json

import pytest

from ..helpers import NANO, config_path

DETECTOR, CLASSIFIER = config_path(NANO['mmdet']), config_path(NANO['mmpretrain'])


@pytest.fixture
def run(call):
    return functools.partial(call, 'analysis_tools/get_flops.py')


@pytest.mark.parametrize('config', [DETECTOR, CLASSIFIER])
def test_both_conventions_are_named_with_what_they_count(run, config):
    result = json.loads(run(config, '--shape', 128, 96, '--json')[1])
    _, text, _ = run(config, '--shape', 128, 96, '--depth', 2)
    assert '1 × 3 × 128 × 96' in text and 'padded' not in text
    assert f'{result["parameters"] / 1e6:.2f} M' in text
    for name, macs in result['macs'].items():
        (line,) = [line for line in text.splitlines() if line.split()[:1] == [name]]
        assert f'{macs / 1e9:.2f} G' in line and line.endswith(result['conventions'][name])
    left_out = 0 if config == CLASSIFIER else result['macs_by_kind']['matmul']
    assert result['macs']['everything'] - result['macs']['paper'] == left_out
    assert result['modules'] == []
    modules = [line.split()[0] for line in text.partition('\nmodule')[2].splitlines()[1:]]
    assert modules[:4] == ['backbone', 'patch_embed', 'downsamples', 'stages']


def test_padding_of_a_detector_is_reported(run):
    _, text, _ = run(DETECTOR, '--shape', 100, 130)
    assert '1 × 3 × 128 × 160' in text and '100 × 130 padded' in text


def test_a_small_image_is_refused_in_one_line(run):
    code, out, error = run(CLASSIFIER, '--shape', 16, 64)
    assert (code, out) == (1, '') and '\n' not in error
    assert error.startswith('error: ') and '16×64: ' in error and 'at least 32×32' in error
