"""The tool that prints what a model costs."""

import json
import sys

import pytest

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


def test_json_is_all_that_is_printed_and_nothing_but_the_config_is_needed(tool, tmp_path):
    """The paper's detector, in a folder without data, and without the weights its backbone starts from."""
    config = ROOT / 'configs/mask_rcnn/mask-rcnn_stvit-small_fpn_1x_coco.py'
    done = tool('analysis_tools/get_flops.py', config, '--json', '--depth', 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result['input_shape'] == [1, 3, 800, 1280]
    assert result['parameters'] == 44_110_672
    assert round(result['macs']['paper'] / 1e9, 1) == 253.5
    assert result['macs']['everything'] - result['macs']['paper'] == result['macs_by_kind']['matmul'] > 90e9
    assert set(result['conventions']) == set(result['macs'])
    assert [module['name'] for module in result['modules'] if module['parameters']] == [
        'backbone',
        'neck',
        'rpn_head',
        'roi_head',
    ]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('config', [DETECTOR, SEGMENTOR, CLASSIFIER])
def test_both_conventions_are_named_with_what_they_count(run, config):
    text = run(config, '--shape', 128, 96)
    result = json.loads(run(config, '--shape', 128, 96, '--json'))
    assert '1 × 3 × 128 × 96' in text
    assert f'{result["parameters"] / 1e6:.2f} M' in text
    for name, macs in result['macs'].items():
        (line,) = [line for line in text.splitlines() if line.split()[:1] == [name]]
        assert f'{macs / 1e9:.2f} G' in line and line.endswith(result['conventions'][name])


def test_the_breakdown_goes_as_deep_as_asked(run):
    def rows(depth: int) -> list[str]:
        lines = run(SEGMENTOR, '--shape', 64, 64, '--depth', depth).partition('\nmodule')[2].splitlines()[1:]
        return [line[: len(line) - len(line.lstrip())] + line.split()[0] for line in lines]

    assert rows(0) == []
    assert rows(1) == ['backbone', 'decode_head', 'auxiliary_head']
    assert rows(2)[:4] == ['backbone', '  patch_embed', '  downsamples', '  stages']
    modules = json.loads(run(SEGMENTOR, '--shape', 64, 64, '--depth', 3, '--json'))['modules']
    assert max(module['name'].count('.') for module in modules) == 2
    assert json.loads(run(SEGMENTOR, '--shape', 64, 64, '--json'))['modules'] == []


def test_the_padding_of_a_detector_is_said(run):
    assert '1 × 3 × 128 × 160' in (text := run(DETECTOR, '--shape', 100, 130))
    assert '100 × 130 padded' in text
    assert 'padded' not in run(DETECTOR, '--shape', 128, 160)


def test_settings_can_be_overridden(run):
    def parameters(*options: str) -> int:
        return json.loads(run(CLASSIFIER, '--json', *options))['parameters']

    out_channels, classes = 256, 5
    more = parameters('--cfg-options', f'model.head.num_classes={classes + 2}') - parameters()
    assert more == 2 * (out_channels + 1)


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ([ROOT / 'configs/imagenet/stvit-nan_scenes.py'], 'does not exist. Did you mean .*stvit-nano_scenes.py'),
        ([CLASSIFIER, '--shape', 0, 64], '--shape must be two positive numbers, but got 0 64'),
        ([CLASSIFIER, '--shape', 16, 64], 'cannot be counted at 16×64: .*at least 32×32'),
        ([CLASSIFIER, '--depth', -1], '--depth must be 0 .* or more, but got -1'),
        ([CLASSIFIER, '--cfg-options', 'model.backbone.arch=smal'], "cannot be built: .*Did you mean 'small'"),
    ],
)
def test_what_cannot_be_counted_is_refused_in_one_line(run, capsys, args, message):
    with pytest.raises(SystemExit, match=f'^error: .*{message}') as caught:
        run(*args)
    assert '\n' not in str(caught.value)
    assert capsys.readouterr().out == ''
