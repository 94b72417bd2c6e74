"""tools/analysis_tools/get_flops.py."""

import json
import sys

import pytest

from ..fork_server import fork
from ..helpers import ROOT, load_tool

get_flops = load_tool('analysis_tools/get_flops.py')
DETECTOR = ROOT / 'configs/mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py'
SEGMENTOR = ROOT / 'configs/upernet/stvit-nano_upernet_scenes.py'
CLASSIFIER = ROOT / 'configs/imagenet/stvit-nano_scenes.py'


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the tool in this process; returns its standard output."""

    def run(*args: object) -> str:
        monkeypatch.setattr(sys, 'argv', ['get_flops.py', *map(str, args)])
        get_flops.main()
        return capsys.readouterr().out

    return run


@pytest.mark.long
def test_json_is_the_whole_output_and_only_the_config_is_needed(tmp_path):
    """The paper's detector by its name, in a folder without data, and without the weights its backbone starts from."""
    config = 'mmstvit::mask_rcnn/mask-rcnn_stvit-small_fpn_1x_coco.py'
    done = fork('analysis_tools/get_flops.py', config, '--json', '--depth', 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result['input_shape'] == [1, 3, 800, 1280]
    assert round(result['macs']['paper'] / 1e9, 1) == 253.5
    assert result['macs']['everything'] - result['macs']['paper'] == result['macs_by_kind']['matmul'] > 90e9
    named = [module['name'] for module in result['modules'] if module['parameters']]
    assert named == ['backbone', 'neck', 'rpn_head', 'roi_head']
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('config', [DETECTOR, SEGMENTOR, CLASSIFIER])
def test_both_conventions_are_named_with_what_they_count(run, config):
    result = json.loads(run(config, '--shape', 128, 96, '--json'))
    text = run(config, '--shape', 128, 96, '--depth', 2)
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
    text = run(DETECTOR, '--shape', 100, 130)
    assert '1 × 3 × 128 × 160' in text and '100 × 130 padded' in text


def test_a_small_image_is_refused_in_one_line(run, capsys):
    with pytest.raises(SystemExit, match=r'^error: .*16×64: .*at least 32×32') as caught:
        run(CLASSIFIER, '--shape', 16, 64)
    assert '\n' not in str(caught.value)
    assert capsys.readouterr().out == ''
