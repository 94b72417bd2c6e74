"""``tools/analysis_tools/confusion_matrix.py`` counts what a loop over all pixels counts."""

import csv
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ..helpers import ROOT, load_tool

SCENES = ROOT / 'configs' / 'upernet' / 'stvit-nano_upernet_scenes.py'
ADE20K = ROOT / 'configs' / 'upernet' / 'stvit-small_upernet_8xb2-160k_ade20k-512x512.py'


def run(monkeypatch, *args: object) -> None:
    confusion_matrix = load_tool('analysis_tools/confusion_matrix.py')
    monkeypatch.setattr(sys, 'argv', ['confusion_matrix.py', *map(str, args)])
    confusion_matrix.main()


def read_table(path: Path) -> tuple[list[str], np.ndarray]:
    """Names of the classes and counts."""
    header, *rows = csv.reader(path.read_text().splitlines())
    assert [row[0] for row in rows] == header[1:]
    return header[1:], np.array([row[1:] for row in rows], dtype=int)


def write_predictions(folder: Path, truths: dict[str, np.ndarray]) -> None:
    folder.mkdir()
    for name, labels in truths.items():
        Image.fromarray(labels.astype(np.uint8)).save(folder / f'{name}.png')


def scenes_truth(workspace: Path) -> dict[str, np.ndarray]:
    files = (workspace / 'data' / 'scenes' / 'ade20k' / 'annotations' / 'validation').glob('*.png')
    return {file.stem: np.asarray(Image.open(file)) for file in files}


@pytest.fixture
def ade20k(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Two label maps in ADE20K's layout, 0 for "unlabelled" and all 150 classes."""
    rng = np.random.default_rng(0)
    for kind in ('images', 'annotations'):
        (tmp_path / kind / 'validation').mkdir(parents=True)
    truths = {f'ADE_val_{i:08d}': rng.permutation(np.resize(np.arange(151), 20 * 30)).reshape(20, 30) for i in (1, 2)}
    for name, labels in truths.items():
        (tmp_path / 'images' / 'validation' / f'{name}.jpg').touch()  # only listed
        Image.fromarray(labels.astype(np.uint8)).save(tmp_path / 'annotations' / 'validation' / f'{name}.png')
    return tmp_path, truths


def test_classes_of_a_config(workspace, monkeypatch, capsys):
    """Every class is taken for the next one, except that background stays."""
    truths = scenes_truth(workspace)
    next_class = np.array([0, 2, 3, 4, 5, 1])
    write_predictions(workspace / 'predictions', {name: next_class[labels] for name, labels in truths.items()})
    monkeypatch.chdir(workspace)
    run(monkeypatch, SCENES, 'predictions', 'matrix')
    classes, matrix = read_table(workspace / 'matrix' / 'confusion_matrix.csv')
    assert classes == ['background', 'circle', 'square', 'triangle', 'star', 'digit']
    pixels = np.bincount(np.concatenate([labels.ravel() for labels in truths.values()]), minlength=6)
    expected = np.zeros((6, 6), int)
    expected[np.arange(6), next_class] = pixels
    np.testing.assert_array_equal(matrix, expected)
    assert f'pixel accuracy: {pixels[0] / pixels.sum():.4f}' in capsys.readouterr().out
    assert cv2.imread(str(workspace / 'matrix' / 'confusion_matrix.png')).std() > 10


def test_150_classes_and_unlabelled_pixels(ade20k, monkeypatch):
    """Class numbers whose product needs more than 8 bits; 0 in the files is no class."""
    root, truths = ade20k
    rng = np.random.default_rng(1)
    predictions = {name: rng.integers(1, 151, labels.shape) for name, labels in truths.items()}
    write_predictions(root / 'predictions', predictions)
    option = f'test_dataloader.dataset.data_root={root}'
    run(monkeypatch, ADE20K, root / 'predictions', root / 'matrix', '--cfg-options', option)
    _, matrix = read_table(root / 'matrix' / 'confusion_matrix.csv')
    pairs = Counter(
        (int(true) - 1, int(predicted) - 1)
        for name in truths
        for true, predicted in zip(truths[name].flat, predictions[name].flat, strict=True)
        if true != 0
    )
    assert {tuple(map(int, cell)): matrix[tuple(cell)] for cell in np.argwhere(matrix)} == pairs


@pytest.mark.parametrize(
    'spoil, message',
    [
        (lambda labels: None, 'test.py --out'),
        (lambda labels: labels[1:], 'another data set'),
        (lambda labels: labels + 6, '6 classes, 0 to 5'),
    ],
    ids=['missing', 'size', 'label'],
)
def test_refuses_what_does_not_fit(workspace, monkeypatch, spoil, message):
    predictions = scenes_truth(workspace)
    name = sorted(predictions)[-1]
    predictions[name] = spoil(predictions[name])
    if predictions[name] is None:
        del predictions[name]
    write_predictions(workspace / 'predictions', predictions)
    monkeypatch.chdir(workspace)
    with pytest.raises(SystemExit) as refused:
        run(monkeypatch, SCENES, 'predictions', 'matrix')
    assert f'{name}.png' in str(refused.value)
    assert message in str(refused.value)
    assert not (workspace / 'matrix').exists()


def test_refuses_another_library(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    with pytest.raises(SystemExit, match=r'not a segmentor; use the confusion_matrix\.py of mmpretrain'):
        run(monkeypatch, ROOT / 'configs' / 'imagenet' / 'stvit-nano_scenes.py', 'predictions', 'matrix')
