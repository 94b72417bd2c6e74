"""Rows of the model zoo against the paper; the files that are written from the configs."""

import pytest
import torch

from mmstvit.apis import build_model
from mmstvit.ops import use_backend

from ..helpers import ROOT, load_config, load_tool

zoo = load_tool('analysis_tools/model_zoo.py')
ROWS = {row.name: row for row in zoo.ROWS}

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


def rows(names):
    """Test rows of STViT-S by default, the larger ones in the long tests."""
    return [name if 'STViT-S' in name else pytest.param(name, marks=pytest.mark.long) for name in names]


@pytest.mark.parametrize('name', rows(name for name, row in ROWS.items() if row.params))
def test_a_row_agrees_with_the_paper(name):
    row = ROWS[name]
    config = next(iter(row.configs.values()))
    total = zoo.count(config).total
    params, gflops = total.params / 1e6, zoo.paper_macs(config, total) / 1e9
    assert abs(params - row.params) <= 1
    assert gflops == pytest.approx(row.gflops, rel=0.01)
    if name in RECOMPUTED:
        assert (round(params, 2), round(gflops, 1)) == RECOMPUTED[name]
    if name.startswith('Mask R-CNN'):
        assert round(zoo.count(config).modules['backbone'].layers / 1e9, 1) == BACKBONES[name[-1]]


@pytest.mark.long
@pytest.mark.parametrize('row', zoo.ABLATIONS, ids=lambda row: row.name)
def test_an_ablation_agrees_with_the_paper(row):
    total = zoo.count(row.path).total
    if row.params and not row.note:
        assert total.params / 1e6 == pytest.approx(float(row.params), abs=0.1 if '.' in row.params else 0.5)
    if row.gflops:
        assert total.everything / 1e9 == pytest.approx(float(row.gflops), rel=0.02)


def test_the_parts_of_the_first_table_add_up():
    params = []
    for row in zoo.ABLATIONS[:7]:
        with torch.device('meta'):
            model = build_model(load_config(row.path.removesuffix('.py')))
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
    rows = {row.name: row for row in zoo.ABLATIONS}
    with use_backend('naive'):
        for name in ('grids 8, 4, 2, 1', 'two iterations'):
            assert f'{zoo.count.__wrapped__(rows[name].path).total.everything / 1e9:.2f}' == rows[name].gflops


def test_the_paper_has_every_row_but_eight():
    assert [row.name for row in zoo.ROWS if row.params is None] == [
        'Faster R-CNN, STViT-S',
        'Faster R-CNN, STViT-B',
        'Faster R-CNN, STViT-L',
        'Cascade Mask R-CNN, STViT-S',
        'Cascade Mask R-CNN, STViT-L',
        'Mask2Former, instances, STViT-S',
        'Mask2Former, semantic, STViT-S',
        'DINO, 4 scales, STViT-S',
    ]
    assert len(ROWS) == len(zoo.ROWS) == 21


def test_the_configs_of_a_row_train_one_model():
    rows = [row for row in zoo.ROWS if len(row.configs) > 1]
    assert rows
    for row in rows:
        models = [load_config(path.removesuffix('.py')).model for path in row.configs.values()]
        assert all(model == models[0] for model in models)


def test_every_row_is_in_the_document_and_claims_no_accuracy_of_ours():
    lines = [line for line in (ROOT / 'docs' / 'model_zoo.md').read_text().splitlines() if line.startswith('| ')]
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    start = next(i for i, row in enumerate(cells) if row[0] == 'table')
    assert [row[0].partition(' (')[0] for row in cells[1:start]] == list(ROWS)
    assert [row[1].partition(']')[0] for row in cells[start + 1 :]] == [f'[{row.name}' for row in zoo.ABLATIONS]
    for table in (cells[:start], cells[start:]):
        column = table[0].index('accuracy, ours')
        assert {row[column] for row in table[1:]} == {'not trained'}


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
    monkeypatch.setattr(zoo, 'ROOT', tmp_path)
    monkeypatch.setattr('sys.argv', ['model_zoo.py'])
    with pytest.raises(SystemExit, match='in a checkout'):
        zoo.main()
    assert not list(tmp_path.iterdir())
