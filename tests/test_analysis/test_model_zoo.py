"""Rows of the model zoo against the paper; the files that are written from the configs."""

import pytest

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


def test_the_paper_has_every_row_but_five():
    assert [row.name for row in zoo.ROWS if row.params is None] == [
        'Faster R-CNN, STViT-S',
        'Faster R-CNN, STViT-B',
        'Faster R-CNN, STViT-L',
        'Cascade Mask R-CNN, STViT-S',
        'Cascade Mask R-CNN, STViT-L',
    ]
    assert len(ROWS) == len(zoo.ROWS) == 18


def test_the_configs_of_a_row_train_one_model():
    rows = [row for row in zoo.ROWS if len(row.configs) > 1]
    assert rows
    for row in rows:
        models = [load_config(path.removesuffix('.py')).model for path in row.configs.values()]
        assert all(model == models[0] for model in models)


def test_every_row_is_in_the_document_and_claims_no_accuracy_of_ours():
    lines = [line for line in (ROOT / 'docs' / 'model_zoo.md').read_text().splitlines() if line.startswith('| ')]
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    assert [row[0].partition(' (')[0] for row in cells[1:]] == list(ROWS)
    column = cells[0].index('accuracy, ours')
    assert {row[column] for row in cells[1:]} == {'not trained'}


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
