"""``standalone.py`` in a process without PyTorch and mmstvit: it finds what our own runtime finds."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmstvit.apis.predict.exported import load_exported_predictor
from mmstvit.apis.predict.inputs import Source
from mmstvit.deployment import export, standalone
from mmstvit.deployment.agreement import draw_images

from ..helpers import image
from ..test_datasets.tiny_data import write
from .models import make

LOAD = dict(type='LoadImageFromFile')
CLASSIFIER = [
    LOAD,
    dict(type='ResizeEdge', scale=80, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=64),
    dict(type='PackInputs'),
]
SEGMENTOR = [LOAD, dict(type='Resize', scale=(128, 80), keep_ratio=True), dict(type='PackSegInputs')]
DETECTOR = [LOAD, dict(type='Resize', scale=(128, 96), keep_ratio=True), dict(type='PackDetInputs')]
ALONE = """
import runpy, sys, numpy
sys.modules.update(dict.fromkeys(['torch', 'mmstvit', 'mmengine', 'mmcv']))
script, model, photo = sys.argv[1:]
numpy.savez('found.npz', **runpy.run_path(script)['predict'](model, photo))
sys.argv = sys.argv[1:]
runpy.run_path(script, run_name='__main__')
"""


def predict_alone(model: Path, photo: str) -> tuple[dict[str, np.ndarray], str]:
    """Predict by the script alone; returns the arrays, and what it prints."""
    command = [sys.executable, '-I', '-c', ALONE, standalone.__file__, str(model), photo]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(np.load('found.npz')), done.stdout


def blobs(height: int, width: int) -> np.ndarray:
    x = draw_images(1, height, width, seed=5)[0].permute(1, 2, 0).numpy()
    return np.clip(x * 50 + 128, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ('kind', 'library', 'pipeline', 'size', 'options'),
    [
        ('classifier', 'mmpretrain', CLASSIFIER, (90, 121), {}),
        ('segmentor', 'mmseg', SEGMENTOR, (90, 121), dict(shape=(80, 96))),
        pytest.param('segmentor', 'mmseg', SEGMENTOR, (131, 97), dict(align_corners=True), marks=pytest.mark.long),
        # An image whose longer side is the other one is reduced to fit.
        pytest.param('mask', 'mmdet', DETECTOR, (203, 150), dict(shape=(96, 128), batch=2), marks=pytest.mark.long),
    ],
)
def test_it_finds_what_our_runtime_finds(kind, library, pipeline, size, options, tmp_path, monkeypatch):
    pytest.importorskip('onnxruntime')
    align = {'model.decode_head.align_corners': True} if options.pop('align_corners', False) else {}
    names = [f'class {i}' for i in range(6)]
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'm.onnx'
    export(make(kind, **align), library, 'onnx', path, classes=names, pipeline=pipeline, **options)
    write(tmp_path / 'photo.png', blobs(*size))
    with load_exported_predictor(str(path), trust=False) as predictor:
        file = next(predictor.read(Source(Path('photo.png'), 'photo.png', 'photo')))
        (expected,) = predictor.predict([predictor.prepare(file)])
    found, printed = predict_alone(path, 'photo.png')
    assert names[0] in printed or kind == 'mask'
    if kind == 'classifier':
        np.testing.assert_allclose(found['probabilities'], expected.pred_score.numpy(), atol=1e-5)
    elif kind == 'segmentor':
        assert (found['labels'] == expected.pred_sem_seg.data[0].numpy()).mean() > 0.9999
    else:
        objects = expected.pred_instances
        assert len(found['scores']) == len(objects) > 3 and len(printed.splitlines()) == len(objects)
        np.testing.assert_allclose(found['boxes'], objects.bboxes.numpy(), atol=1e-2)
        np.testing.assert_allclose(found['scores'], objects.scores.numpy(), atol=1e-4)
        assert (found['masks'] != objects.masks.numpy()).mean() < 1e-4
        assert found['boxes'][:, 2].max() <= size[1] + 0.5 and found['boxes'][:, 3].max() > size[0] / 2


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'usage: python standalone.py model.onnx photo.jpg'),
        (['m.onnx'], 'usage'),
        (['photo.png', 'm.onnx'], 'usage'),
        (['gone.onnx', 'photo.png'], 'error: gone.onnx does not exist'),
        (['m.onnx', 'photo.png'], 'error: m.onnx.json does not exist'),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_one_line(arguments, message, tmp_path, monkeypatch):
    pytest.importorskip('onnxruntime')
    monkeypatch.chdir(tmp_path)
    Path('m.onnx').touch()
    monkeypatch.setattr(sys, 'argv', ['standalone.py', *arguments])
    with pytest.raises(SystemExit, match=message):
        standalone.main()


def test_what_it_does_not_know_is_named(tmp_path):
    with pytest.raises(ValueError, match='RandomFlip'):
        standalone.run_pipeline(image(8, 8, 3).numpy(), [LOAD, dict(type='mmdet.RandomFlip')])
    pytest.importorskip('onnxruntime')
    export(make('classifier'), 'mmpretrain', 'onnx', tmp_path / 'm.onnx', (48, 64), pipeline=CLASSIFIER)
    write(tmp_path / 'photo.png', blobs(90, 121))
    with pytest.raises(ValueError, match='takes 48×64 pixels, but the test pipeline made 64×64'):
        standalone.predict(str(tmp_path / 'm.onnx'), str(tmp_path / 'photo.png'))
