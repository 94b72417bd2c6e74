"""Every row of the model zoo, recomputed; the files that are written from the configs."""

import pytest

from ..helpers import ROOT, load_config, load_tool

zoo = load_tool('analysis_tools/model_zoo.py')
ROWS = {row.name: row for row in zoo.ROWS}

# Counted with the paper's published code inside the same detectors and segmentors, by hooks on layers: parameters in M,
# multiply-accumulates in G in the paper's convention.
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


def total(row):
    return zoo.cost(next(iter(row.configs.values()))).total


@pytest.mark.parametrize('name', [name for name, row in ROWS.items() if row.params])
def test_a_row_agrees_with_the_paper(name):
    row = ROWS[name]
    ours = total(row)
    assert abs(ours.params / 1e6 - row.params) <= 1
    assert ours.paper / 1e9 == pytest.approx(row.gflops, rel=0.01)


@pytest.mark.parametrize('name', RECOMPUTED)
def test_a_row_agrees_with_the_published_code(name):
    params, gflops = RECOMPUTED[name]
    ours = total(ROWS[name])
    assert round(ours.params / 1e6, 2) == params
    assert round(ours.paper / 1e9, 1) == gflops


@pytest.mark.parametrize('size', BACKBONES)
def test_a_backbone_agrees_with_the_published_code(size):
    config = ROWS[f'Mask R-CNN, STViT-{size}'].configs['1x']
    assert round(zoo.cost(config).modules['backbone'].paper / 1e9, 1) == BACKBONES[size]


@pytest.mark.parametrize('name', [name for name, row in ROWS.items() if '²' in name])
def test_a_classifier_has_the_published_parameters(name):
    published = {'S': 25_495_624, 'B': 51_691_288, 'L': 94_971_096}
    assert total(ROWS[name]).params == published[name[6]]


def test_the_paper_has_all_rows_but_two():
    assert [row.name for row in zoo.ROWS if row.params is None] == [
        'Cascade Mask R-CNN, STViT-S',
        'Cascade Mask R-CNN, STViT-L',
    ]
    assert len(ROWS) == len(zoo.ROWS) == 15


def test_the_configs_of_a_row_train_one_model():
    rows = [row for row in zoo.ROWS if len(row.configs) > 1]
    assert rows
    for row in rows:
        models = [load_config(path.removesuffix('.py')).model for path in row.configs.values()]
        assert all(model == models[0] for model in models)


def test_the_table_is_up_to_date():
    assert (ROOT / 'docs' / 'model_zoo.md').read_text() == zoo.document(), 'run tools/analysis_tools/model_zoo.py'


def test_the_table_claims_no_accuracy_of_ours():
    lines = [line for line in zoo.document().splitlines() if line.startswith('| ')]
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    assert len(cells) == 1 + len(zoo.ROWS) == 16
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


def test_outside_of_a_checkout_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, 'ROOT', tmp_path)
    monkeypatch.setattr('sys.argv', ['model_zoo.py'])
    with pytest.raises(SystemExit, match='in a checkout'):
        zoo.main()
    assert not list(tmp_path.iterdir())
