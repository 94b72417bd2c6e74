"""Rows of the model zoo against the paper; the files that are written from the configs."""

import re
from pathlib import Path

import pytest
import torch

from mmstvit.apis import build_model
from mmstvit.ops import use_backend

from ..helpers import load_config, load_tool

zoo = load_tool('analysis_tools/model_zoo.py')


def read_rows(page: Path) -> dict[str, list[str]]:
    """Return the cells of the rows that link configs, by the name of the model."""
    lines = [line for line in page.read_text().splitlines() if line.startswith('|') and zoo.LINK.search(line)]
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    return {re.sub(r' ?\(.*', '', next(cell for cell in row if '](' in cell)).strip('[]'): row for row in rows}


TEMPLATE = read_rows(zoo.TEMPLATE)
MODELS = {name: row for name, row in TEMPLATE.items() if len(row) == 7}
ABLATIONS = {name: row for name, row in TEMPLATE.items() if len(row) == 6}


def configs(row: list[str]) -> list[str]:
    return zoo.LINK.findall(' '.join(row))


def printed(row: list[str]) -> dict[str, str]:
    """Return the numbers of the paper."""
    return {name: number for name, number in zoo.COUNT.findall(' '.join(row)) if number}


# Counted with the official implementation in the same detectors and segmentors, by hooks on layers: parameters in M and
# multiply-accumulates in G, in the paper's convention.
RECOMPUTED = {
    'Mask R-CNN, STViT-S': (44.11, 253.5),
    'Mask R-CNN, STViT-B': (70.35, 362.1),
    'Mask R-CNN, STViT-L': (113.55, 473.8),
    'Cascade Mask R-CNN, STViT-B': (108.18, 840.8),
    'UPerNet, STViT-S': (54.43, 928.0),
    'UPerNet, STViT-B': (80.86, 1040.1),
    'UPerNet, STViT-L': (125.04, 1155.1),
}
BACKBONES = {'S': 83.3, 'B': 191.1, 'L': 302.7}  # at 800×1280


def names_of_small_first(names):
    """Test rows of STViT-S by default, the larger ones in the long tests."""
    return [name if 'STViT-S' in name else pytest.param(name, marks=pytest.mark.long) for name in names]


@pytest.mark.parametrize('name', names_of_small_first(name for name, row in MODELS.items() if printed(row)))
def test_a_row_agrees_with_the_paper(name):
    paper, (config, *_) = printed(MODELS[name]), configs(MODELS[name])
    counts = zoo.count_all(config)
    assert abs(counts['params'] - float(paper['params'])) <= 1
    assert counts['flops'] == pytest.approx(float(paper['flops']), rel=0.01)
    if name in RECOMPUTED:
        assert (round(counts['params'], 2), round(counts['flops'], 1)) == RECOMPUTED[name]
    if name.startswith('Mask R-CNN'):
        assert round(zoo.count_model(config).modules['backbone'].layers / 1e9, 1) == BACKBONES[name[-1]]


@pytest.mark.long
@pytest.mark.parametrize('name', ABLATIONS)
def test_an_ablation_agrees_with_the_paper(name):
    paper, (config,) = printed(ABLATIONS[name]), configs(ABLATIONS[name])
    counts = zoo.count_all(config)
    if 'params' in paper and 'misprint' not in ABLATIONS[name][-1]:
        assert counts['params'] == pytest.approx(float(paper['params']), abs=0.1 if '.' in paper['params'] else 0.5)
    if 'flops' in paper:
        assert counts['flops'] == pytest.approx(float(paper['flops']), rel=0.02)


def test_the_parts_of_the_first_table_add_up():
    params = []
    for row in [*ABLATIONS.values()][:7]:
        (config,) = configs(row)
        with torch.device('meta'):
            model = build_model(load_config(config.removesuffix('.py')))
        params.append(sum(p.numel() for p in model.parameters()))
    sta, stem, projection, cpe, full, ape, rpe = params
    channels, depths, heads = (64, 128, 320, 512), (3, 5, 9, 3), (1, 2, 5, 8)
    stages = list(zip(channels, depths, heads, strict=True))
    assert projection - stem == 512 * 1024 + 1024 + 2 * (1024 - 512) + 1000 * (1024 - 512)
    assert cpe - projection == sum(10 * c * depth for c, depth, _ in stages)
    assert full - cpe == sum(10 * 4 * c * depth for c, depth, _ in stages)
    assert ape - projection == 56 * 56 * 64
    sides = (7, 7, 14, 7)  # of the grid of super tokens at 224²
    assert rpe - projection == sum((2 * n - 1) ** 2 * h * d for n, (_, d, h) in zip(sides, stages, strict=True))
    assert 0 < stem - sta < 100_000


@pytest.mark.long
def test_the_paper_seems_to_count_the_convolutions_that_gather_neighbors(monkeypatch):
    monkeypatch.setattr(zoo, '_COUNTED', {})
    with use_backend('naive'):
        for name in ('grids 8, 4, 2, 1', 'two iterations'):
            (config,) = configs(ABLATIONS[name])
            macs = zoo.count_model.__wrapped__(config).total.everything
            assert f'{macs / 1e9:.2f}' == printed(ABLATIONS[name])['flops']


def test_the_configs_of_a_row_train_one_model():
    rows = [configs(row) for row in MODELS.values() if len(configs(row)) > 1]
    assert rows
    for paths in rows:
        models = [load_config(path.removesuffix('.py')).model for path in paths]
        assert all(model == models[0] for model in models)


def test_counts_are_compared_with_the_numbers_of_the_paper(monkeypatch):
    counts = {'params': 25.499, 'flops': 251.4, 'everything': 351.26}
    monkeypatch.setattr(zoo, 'count_all', lambda config: counts if config == 'a/b.py' else None)
    line = '| S ([1x](../configs/a/b.py), [3x](../configs/a/c.py)) | {params / 25} | {flops / 252} | {everything} |\n'
    assert zoo.fill(line).partition(') | ')[2] == '25.50 / 25 | 251.4 / 252 (-0.2%) | 351.3 |\n'
    counts['flops'] = 4.373
    assert zoo.fill('[S](../configs/a/b.py) {params} {flops}') == '[S](../configs/a/b.py) 25.50 4.37'


@pytest.mark.long
def test_every_file_is_up_to_date(monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['model_zoo.py', '--check'])
    zoo.main()
    assert capsys.readouterr().out == 'all files are up to date\n'


def test_a_stale_file_is_named_and_written_again(tmp_path, monkeypatch, capsys):
    for folder in ('docs', 'configs/imagenet'):
        (tmp_path / folder).mkdir(parents=True)
    stale, missing = tmp_path / 'docs' / 'model_zoo.md', tmp_path / 'configs' / 'imagenet' / 'metafile.yml'
    stale.write_text('old')
    monkeypatch.setattr(zoo, 'ROOT', tmp_path)
    monkeypatch.setattr(zoo, 'outputs', lambda: {stale: 'new', missing: 'new'})
    monkeypatch.setattr('sys.argv', ['model_zoo.py', '--check'])
    with pytest.raises(SystemExit, match=r'not up to date: docs/model_zoo.md, configs/imagenet/metafile.yml\. Run: '):
        zoo.main()
    assert stale.read_text() == 'old' and not missing.exists()
    monkeypatch.setattr('sys.argv', ['model_zoo.py'])
    zoo.main()
    assert stale.read_text() == missing.read_text() == 'new'
    zoo.main()
    assert capsys.readouterr().out.endswith('written: nothing\n')


def test_outside_a_checkout_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, 'TEMPLATE', tmp_path / 'model_zoo.md.in')
    monkeypatch.setattr('sys.argv', ['model_zoo.py'])
    with pytest.raises(SystemExit, match='in a checkout'):
        zoo.main()
    assert not list(tmp_path.iterdir())
