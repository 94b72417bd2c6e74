"""train_ablations.py: the table, continuing, and that every ablation learns."""

import json

import pytest

from ..helpers import load_tool
from ..in_process import run_main

TOOL = 'analysis_tools/train_ablations.py'
QUICK = ['--cfg-options', 'train_dataloader.dataset.indices=32', 'train_dataloader.batch_size=16']
QUICK += [f'{split}_dataloader.{key}=0' for split in ('train', 'val') for key in ('num_workers', 'persistent_workers')]


def rows(output: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip('|').split('|')] for line in output.splitlines() if line[:1] == '|']
    return {cells[0]: cells[1:] for cells in lines[2:]}


@pytest.mark.long
def test_a_table_of_seeds_that_a_second_call_completes(workspace, capfd):
    run_main(TOOL, '--only', 'stvit-small_sta-rpe', '--seeds', 0, *QUICK, cwd=workspace)
    path = workspace / 'work_dirs/ablations/results.json'
    first = json.loads(path.read_text())
    assert first['epochs'] == 1 and list(first['accuracy']) == ['stvit-small_sta-rpe']
    first['accuracy']['stvit-small_sta-rpe']['0'] = [20.0, 60.0]  # a result that no run gives
    first['accuracy']['stvit-small_sta'] = {'0': [10.0, 50.0], '1': [20.0, 80.0], '2': [30.0, 65.0]}
    path.write_text(json.dumps(first))
    capfd.readouterr()
    run_main(TOOL, '--only', 'stvit-small_sta-rpe', 'stvit-small_sta', '--seeds', 0, cwd=workspace)
    assert rows(capfd.readouterr().out) == {
        'stvit-small_sta': ['3', '20.0', '65.0', '50.0 to 80.0'],
        'stvit-small_sta-rpe': ['1', '20.0', '60.0', '60.0 to 60.0'],
    }
    with pytest.raises(SystemExit, match='has runs of 1 epochs'):
        run_main(TOOL, '--epochs', 2, cwd=workspace)


def test_every_ablation_of_small_is_in_the_table():
    tool = load_tool(TOOL)
    assert len(tool.models()) == 14
    for config in tool.models().values():
        model = tool.at_nano_size(config, 1).model
        assert model.backbone.arch == 'nano'
        assert model.head.in_channels == model.neck.get('out_channels', 192)


def test_without_the_scenes_nothing_is_written(tmp_path):
    with pytest.raises(SystemExit, match=r'data/scenes/imagenet does not exist.*scenes\.py'):
        run_main(TOOL, '--only', 'stvit-small_sta', cwd=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_every_ablation_learns(tool, tmp_path):
    """Guessing is right once in five."""
    tool('dataset_converters/scenes.py', cwd=tmp_path)
    done = tool(TOOL, '--seeds', 0, cwd=tmp_path, timeout=3000)
    accuracy = {name: [float(number) for number in cells[1:3]] for name, cells in rows(done.stdout).items()}
    assert len(accuracy) == 14
    assert {name for name, (before, after) in accuracy.items() if not before + 20 < after} == set()
