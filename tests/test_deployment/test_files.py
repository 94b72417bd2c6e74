"""Exported files: equal to PyTorch in their own runtime, whole or not there."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmstvit.deployment import FORMATS, ExportedFile, ExportReport, export
from mmstvit.deployment.agreement import MIN_OBJECTS, compute_references, draw_images, find_errors
from mmstvit.deployment.export import wrap
from mmstvit.deployment.metadata import Metadata
from mmstvit.errors import UserError

from ..helpers import image
from .models import make

EMPTY = [(0, 4), (0,), (0,), (0, 28, 28)]  # outputs of a detector without objects
SUFFIXES = {'onnx': '.onnx', 'openvino': '.xml'}


def run(kind: str, library: str, format: str, folder: Path, **options: object) -> ExportReport:
    path = folder / f'{kind}{SUFFIXES[format]}'
    model = make(kind)
    return export(model, library, format, path, classes=['a', 'b'], palette=[(1, 2, 3), (4, 5, 6)], **options)


def test_classifier_in_onnx_takes_all_sizes_and_tells_how_to_use_it(tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    report = run('classifier', 'mmpretrain', 'onnx', tmp_path, probabilities=True)
    assert max(report.errors.values()) < 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ['classifier.onnx', 'classifier.onnx.json']
    session = onnxruntime.InferenceSession(report.path, providers=['CPUExecutionProvider'])
    assert session.get_inputs()[0].shape == ['batch', 3, 'height', 'width'] == report.input
    metadata = json.loads(session.get_modelmeta().custom_metadata_map['mmstvit'])
    assert metadata['classes'] == ['a', 'b']
    assert metadata['palette'] == [[1, 2, 3], [4, 5, 6]]
    assert (metadata['color_order'], metadata['mean']) == ('RGB', pytest.approx([123.675, 116.28, 103.53]))
    x = image(5, 3, 50, 39)
    (scores,) = session.run(None, {'image': x.numpy()})
    with torch.no_grad():
        expected = make('classifier')(x, mode='tensor').softmax(1)
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-5)
    with pytest.raises(UserError, match='32×32 or more'):  # as PyTorch does
        ExportedFile(report.path).run(image(1, 3, 31, 64).numpy())


def test_features_of_one_size_are_refused_for_others_and_run_in_batches(tmp_path):
    pytest.importorskip('onnxruntime')
    report = run('segmentor', 'mmseg', 'onnx', tmp_path, shape=(64, 96), batch=2, features=True)
    file = ExportedFile(report.path)
    assert file.shape == (2, 3, 64, 96)
    assert list(file.metadata.outputs) == [f'features_{i}' for i in range(4)]
    x = image(3, 3, 64, 96)
    found = file.run(x.numpy())
    with torch.no_grad():
        for actual, expected in zip(found.values(), make('segmentor').backbone(x), strict=True):
            np.testing.assert_allclose(actual, expected.numpy(), atol=1e-4)
    file.metadata.outputs.popitem()  # as of a file with edited metadata
    with pytest.raises(UserError, match='4 outputs, but its metadata name 3'):
        file.run(x.numpy())
    with pytest.raises(UserError, match='64×96, but got one of 64×64') as refused:
        file.run(image(1, 3, 64, 64).numpy())
    assert '--dynamic' in refused.value.remedy


def test_file_that_disagrees_is_not_left_behind(tmp_path, monkeypatch):
    pytest.importorskip('onnxruntime')
    onnx = FORMATS['onnx']

    def sabotage(program, *args):
        with torch.no_grad():
            program.model.head.fc.bias[0] += 0.1
        onnx.write(program, *args)

    monkeypatch.setitem(FORMATS, 'onnx', dataclasses.replace(onnx, write=sabotage))
    (tmp_path / 'classifier.onnx').write_text('older')
    with pytest.raises(UserError, match='disagrees in onnxruntime'):
        run('classifier', 'mmpretrain', 'onnx', tmp_path, shape=(32, 32), batch=1)
    assert [path.name for path in tmp_path.iterdir()] == ['classifier.onnx']
    assert (tmp_path / 'classifier.onnx').read_text() == 'older'


@pytest.fixture(scope='module')
def detector_file(tmp_path_factory) -> Path:
    pytest.importorskip('onnxruntime')
    return run('mask', 'mmdet', 'onnx', tmp_path_factory.mktemp('detector'), shape=(96, 128)).path


# Initializer, what becomes of it, and the output that is wrong.
DAMAGES = {
    'boxes are shifted': ('fc_reg.bias', lambda bias: bias + 0.01, 'boxes'),
    'boxes are NaN': ('fc_reg.bias', lambda bias: bias * np.nan, 'boxes'),
    'scores are lower': ('fc_cls.bias', lambda bias: bias + 0.01 * (np.arange(len(bias)) == len(bias) - 1), 'scores'),
    'classes change places': ('fc_cls.weight', lambda weight: np.concatenate([weight[-2::-1], weight[-1:]]), 'labels'),
    'masks are larger': ('conv_logits.bias', lambda bias: bias + 1, 'masks'),
    'masks are NaN': ('conv_logits.bias', lambda bias: bias * np.nan, 'masks'),
    'no objects': ('fc_cls.bias', lambda bias: bias * np.nan, 'boxes'),
}


@pytest.mark.long
@pytest.mark.parametrize('name', DAMAGES)
def test_detector_that_disagrees_is_not_left_behind(name, detector_file, tmp_path, monkeypatch):
    onnx = pytest.importorskip('onnx')
    model = onnx.load(detector_file)
    part, change, output = DAMAGES[name]
    (weights,) = (weights for weights in model.graph.initializer if weights.name.endswith(part))
    values = change(onnx.numpy_helper.to_array(weights)).astype(np.float32)
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    damaging = dataclasses.replace(FORMATS['onnx'], write=lambda *args: onnx.save(model, args[-2]))
    monkeypatch.setitem(FORMATS, 'onnx', damaging)
    message = f'disagrees in onnxruntime .*{output} by .* It was removed'
    with pytest.raises(UserError, match='different numbers of objects' if name == 'boxes are NaN' else message):
        run('mask', 'mmdet', 'onnx', tmp_path, shape=(96, 128))
    assert [*tmp_path.iterdir()] == []


@pytest.mark.long
def test_segmentor_whose_logits_are_resized_otherwise_is_not_left_behind(tmp_path, monkeypatch):
    """The file itself is right; what users get is not."""
    pytest.importorskip('onnxruntime')
    dumps = Metadata.dumps
    monkeypatch.setattr(Metadata, 'dumps', lambda self: dumps(dataclasses.replace(self, align_corners=False)))
    model = make('segmentor', **{'model.decode_head.align_corners': True})
    with pytest.raises(UserError, match=r'disagrees in onnxruntime .*original size by'):
        export(model, 'mmseg', 'onnx', tmp_path / 'm.onnx')
    assert [*tmp_path.iterdir()] == []


@pytest.mark.long
def test_detector_of_one_size_finds_in_smaller_images_what_mmdetection_finds(detector_file):
    file = ExportedFile(detector_file)
    assert json.loads(Path(f'{detector_file}.json').read_text())['shape'] == [96, 128]
    program = wrap(make('mask'), 'mmdet', shape=(96, 128))
    for height, width in ((96, 128), (50, 128), (61, 70)):
        x = draw_images(1, height, width, seed=3)
        with torch.no_grad():
            expected = program.reference(x)
        found = file.run(x.numpy())
        assert len(found['scores']) == len(expected['scores']) > 3
        np.testing.assert_allclose(found['boxes'], expected['boxes'].numpy(), atol=1e-2)
        assert found['boxes'][:, 2].max() <= width and found['boxes'][:, 3].max() <= height
    with pytest.raises(UserError, match='96×128, but got one of 97×64'):
        file.run(image(1, 3, 97, 64).numpy())


@pytest.mark.long
@pytest.mark.parametrize('format', ['onnx', 'openvino'])
def test_detector_for_several_images_finds_in_each_what_it_finds_alone(format, detector_file, tmp_path):
    pytest.importorskip('openvino' if format == 'openvino' else 'onnxruntime')
    report = run('mask', 'mmdet', format, tmp_path, shape=(96, 128), batch=2)
    assert report.input == [2, 3, 96, 128] and report.errors['images'] == 0
    images = np.concatenate([draw_images(1, 90, 128, seed=seed).numpy() for seed in (3, 4, 5)])
    together = ExportedFile(report.path).run(images)  # two, then one
    one_by_one = [ExportedFile(detector_file).run(image[None]) for image in images]
    assert sorted({*together['images'].tolist()}) == [0, 1, 2]
    for i, alone in enumerate(one_by_one):
        for name in ('boxes', 'scores', 'labels', 'masks'):
            np.testing.assert_allclose(together[name][together['images'] == i], alone[name], atol=1e-2)


@pytest.mark.long
@pytest.mark.parametrize('at', [0.9999, 'a score'])
def test_detector_is_compared_below_its_threshold(at, detector_file, tmp_path):
    """Also where the threshold is the score of an object."""
    found = ExportedFile(detector_file).run(draw_images(1, 96, 128, seed=0).numpy())
    threshold = float(found['scores'][5]) if at == 'a score' else at
    report = export(
        make('mask', **{'model.test_cfg.rcnn.score_thr': threshold}), 'mmdet', 'onnx', tmp_path / 'm.onnx', (96, 128)
    )
    assert report.objects >= MIN_OBJECTS and max(report.errors.values()) < 1e-3
    assert report.metadata.score_thr == threshold
    if at == 0.9999:
        found = ExportedFile(report.path).run(draw_images(1, 96, 128, seed=0).numpy())
        assert [found[name].shape for name in report.metadata.outputs] == EMPTY


@pytest.mark.long
@pytest.mark.parametrize('missing', ['in the file', 'in PyTorch'])
def test_objects_that_one_side_lacks_are_an_error(missing, detector_file, monkeypatch):
    file, program = ExportedFile(detector_file), wrap(make('mask'), 'mmdet', shape=(96, 128))
    ((x, expected),) = compute_references(program, [(1, 96, 128)])
    errors, count = find_errors(file, [(x, expected)])
    assert max(errors.values()) < 1e-3 and count > 3
    if missing == 'in PyTorch':
        expected = {name: values[::2] for name, values in expected.items()}
    else:
        run = file.run
        monkeypatch.setattr(file, 'run', lambda image: {name: values[::2] for name, values in run(image).items()})
    errors, _ = find_errors(file, [(x, expected)])
    assert errors['boxes'] > 0.01


@pytest.mark.long
def test_detector_with_too_few_objects_is_not_left_behind(detector_file, tmp_path, monkeypatch):
    copying = dataclasses.replace(FORMATS['onnx'], write=lambda *args: shutil.copy(detector_file, args[-2]))
    monkeypatch.setitem(FORMATS, 'onnx', copying)
    monkeypatch.setattr(sys.modules[wrap.__module__], 'MIN_OBJECTS', 1000)
    with pytest.raises(UserError, match='objects could be compared') as refused:
        run('mask', 'mmdet', 'onnx', tmp_path, shape=(96, 128))
    assert 'max_per_img' in refused.value.remedy
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ('kind', 'library', 'format', 'sizes', 'word'),
    [
        ('mask', 'mmdet', 'onnx', dict(batch=0), '--batch'),
        ('classifier', 'mmpretrain', 'onnx', dict(shape=(16, 64), batch=1), '32×32'),
    ],
)
def test_request_that_cannot_be_met_names_the_option(kind, library, format, sizes, word, tmp_path):
    with pytest.raises(UserError) as refused:
        run(kind, library, format, tmp_path, **sizes)
    assert word in str(refused.value)
    assert [*tmp_path.iterdir()] == []


def test_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(UserError, match='package onnx ') as refused:
        run('classifier', 'mmpretrain', 'onnx', tmp_path / 'new' / 'folder', shape=(32, 32), batch=1)
    assert 'pip install' in refused.value.remedy
    assert [*tmp_path.iterdir()] == []


def test_names_of_classes_must_be_texts():
    metadata = Metadata('classification', 'mmpretrain', {'logits': ''}, 'RGB', [0.0], [1.0], classes=['a', 'b'])
    assert Metadata.loads(metadata.dumps(), 'a.onnx').classes == ['a', 'b']
    with pytest.raises(UserError, match=r'a\.onnx has no metadata'):
        Metadata.loads(dataclasses.replace(metadata, classes=[{'a': 1}]).dumps(), 'a.onnx')


def test_file_that_is_none_is_refused(tmp_path):
    pytest.importorskip('onnxruntime')
    onnx = pytest.importorskip('onnx')
    (tmp_path / 'damaged.onnx').write_bytes(b'damaged')
    value = onnx.helper.make_tensor_value_info('image', 1, [1])
    same = onnx.helper.make_node('Identity', ['image'], ['y'])
    output = onnx.helper.make_tensor_value_info('y', 1, [1])
    graph = onnx.helper.make_graph([same], 'other', [value], [output])
    opset = [onnx.helper.make_opsetid('', 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / 'other.onnx')
    (tmp_path / 'half.xml').touch()
    for name, reason in {
        'damaged.onnx': 'cannot be loaded by onnxruntime',
        'other.onnx': 'no metadata',
        'gone.onnx': 'does not exist',
        'half.xml': r'half\.bin, the weights',
        'model.pth': 'not an exported file',
    }.items():
        with pytest.raises(UserError, match=reason):
            ExportedFile(tmp_path / name)


@pytest.mark.parametrize('place', ['weight', 'attribute', 'inner graph'])
def test_weights_in_other_files_are_refused(place, tmp_path):
    onnx = pytest.importorskip('onnx')
    report = run('classifier', 'mmpretrain', 'onnx', tmp_path)
    model = onnx.load(report.path)
    outer = onnx.TensorProto(name='outer', data_type=2, dims=[5], data_location=onnx.TensorProto.EXTERNAL)
    outer.external_data.add(key='location', value='../../secret.txt')
    if place == 'weight':
        model.graph.initializer.append(outer)
    elif place == 'attribute':
        model.graph.node.append(onnx.helper.make_node('Constant', [], ['outer'], value=outer))
    else:
        inner = onnx.GraphProto(name='inner', initializer=[outer])
        model.graph.node.append(onnx.helper.make_node('If', ['image'], ['outer'], then_branch=inner, else_branch=inner))
    Path(report.path).write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r'has weights in other files \(external data\)\. Save it as one file'):
        ExportedFile(report.path)


@pytest.mark.long
def test_cascade_agrees_in_openvino(tmp_path):
    """It has all parts of a detector; ``test_tools`` and ``test_standalone.py`` export the other models."""
    pytest.importorskip('openvino')
    report = run('cascade', 'mmdet', 'openvino', tmp_path)  # compares at sizes that the tracer never saw
    assert set(report.errors) >= set(report.metadata.outputs) and report.objects > 3
    assert {path.name for path in tmp_path.iterdir()} == {'cascade.xml.json', 'cascade.xml', 'cascade.bin'}
