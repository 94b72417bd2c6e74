"""``tools/deployment``: a checkpoint becomes a file that tests and predictions take in its place."""

import csv
import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmstvit.apis import UserError, predict
from mmstvit.deployment import Metadata

from ..helpers import metrics
from ..in_process import run_main
from ..nano import dump, make_config, save_model
from ..test_datasets.tiny_data import MAKERS

pytest.importorskip('onnxruntime')


def write_run(library: str) -> None:
    """Write ``config.py`` with four test images, and ``model.pth``."""
    cfg = make_config(library)
    data = MAKERS[library](Path('data'), 'val', 7)
    names = [chr(97 + i) for i in range(6 if library == 'mmseg' else 5)]
    data |= dict(classes=names) if library == 'mmpretrain' else dict(metainfo=dict(classes=names))
    cfg.test_dataloader.dataset = dict(data, pipeline=cfg.test_dataloader.dataset.pipeline)
    for name in names if library == 'mmpretrain' else ():
        Path('data/val', name).mkdir(exist_ok=True)  # a folder for each class
    cfg.test_dataloader.num_workers = 0
    Path('config.py').write_text(dump(cfg))
    save_model(cfg, Path('model.pth'))


def rows(folder: str) -> dict[str, list[str]]:
    with open(f'{folder}/predictions.csv', newline='') as stream:
        return {row[0]: row[1:] for row in csv.reader(stream)}


def find_metrics(tool: str, file: str, folder: Path, capsys: pytest.CaptureFixture) -> dict[str, float]:
    """Test a checkpoint or an exported file with the config; return what is printed."""
    run_main(tool, 'config.py', file, '--work-dir', 'run', cwd=folder)
    return metrics(capsys.readouterr().out)


def test_classifier_is_exported_tested_and_predicts(in_folder, capsys):
    write_run('mmpretrain')
    run_main('deployment/export.py', 'config.py', 'model.pth', '--format', 'onnx', cwd=in_folder)
    printed = capsys.readouterr().out
    assert 'config.onnx' in printed
    assert 'largest error' in printed
    expected = find_metrics('test.py', 'model.pth', in_folder, capsys)
    assert list(expected) == ['accuracy/top1']
    assert find_metrics('deployment/test.py', 'config.onnx', in_folder, capsys) == expected
    predict('model.pth', ['data/val'], 'expected')
    predict('config.onnx', ['data/val'], 'found', batch_size=3)
    for name, expected in rows('expected').items():
        found = rows('found')[name]
        assert found[0::2] == expected[0::2]
        if name != 'file':
            assert [*map(float, found[1::2])] == pytest.approx([*map(float, expected[1::2])], abs=1e-4)
    with pytest.raises(UserError, match='--tta'):
        predict('config.onnx', ['data/val'], 'other', tta=True)
    for message, *args in (
        ('exists',),
        ('suffix .onnx', '--out', 'run'),
        ('argument --shape', '--shape', '0', '64'),
        ('argument --batch', '--batch', '-1'),
    ):
        with pytest.raises(SystemExit) as refused:
            run_main('deployment/export.py', 'config.py', 'model.pth', '--format', 'onnx', *args, cwd=in_folder)
        assert message in f'{refused.value} {capsys.readouterr().err}'
    with pytest.raises(SystemExit, match='mmpretrain'):
        write_run('mmseg')
        run_main('deployment/test.py', 'config.py', 'config.onnx', cwd=in_folder)


def test_pipeline_of_a_stranger_is_refused_with_a_remedy_for_files(in_folder):
    onnx = pytest.importorskip('onnx')
    value = onnx.helper.make_tensor_value_info('image', 1, ['b', 5])
    output = onnx.helper.make_tensor_value_info('logits', 1, ['b', 5])
    node = onnx.helper.make_node('Identity', ['image'], ['logits'])
    opset = [onnx.helper.make_opsetid('', 17)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], 'g', [value], [output]), opset_imports=opset, ir_version=8
    )
    entry = model.metadata_props.add(key='mmstvit')
    metadata = Metadata('classification', 'mmpretrain', {'logits': ''}, 'RGB', [0.0], [1.0], classes=['a'])
    for kind, word in {'os.mkdir': '--trust-checkpoint', 'Gone': '--trust-checkpoint', '': 'Export'}.items():
        steps = [dict(type='LoadImageFromFile'), dict(type=kind, path='made')] if kind else []
        entry.value = dataclasses.replace(metadata, pipeline=steps).dumps()
        onnx.save(model, 'm.onnx')
        with pytest.raises(UserError) as refused:
            predict('m.onnx', ['photo.jpg'], 'out')
        assert word in refused.value.remedy
    assert not Path('made').exists()


@pytest.mark.long
def test_segmentor_in_openvino_has_the_same_metrics_and_predicts_the_same_maps(in_folder, capsys):
    pytest.importorskip('openvino')
    write_run('mmseg')
    run_main('deployment/export.py', 'config.py', 'model.pth', '--format', 'openvino', '--out', 'm.xml', cwd=in_folder)
    expected = find_metrics('test.py', 'model.pth', in_folder, capsys)
    assert expected['aAcc'] > 1
    assert find_metrics('deployment/test.py', 'm.xml', in_folder, capsys) == pytest.approx(expected, abs=0.1)
    for file, out in (('model.pth', 'expected'), ('m.xml', 'found')):
        predict(file, ['data/images/val'], out)
    for i in range(4):
        expected, found = (
            cv2.imread(f'{folder}/maps/{i}.png', cv2.IMREAD_UNCHANGED) for folder in ('expected', 'found')
        )
        assert (found == expected).mean() > 0.99
    Path('secret').write_bytes(bytes(Path('m.bin').stat().st_size))
    Path('m.bin').unlink()
    Path('m.bin').symlink_to('secret')
    with pytest.raises(UserError, match=r'm\.bin is not the file that was exported with m\.xml'):
        predict('m.xml', ['data/images/val'], 'leaked')


@pytest.mark.long
def test_detector_predicts_the_same_objects(in_folder):
    write_run('mmdet')
    run_main('deployment/export.py', 'config.py', 'model.pth', '--format', 'onnx', '--out', 'm.onnx', cwd=in_folder)
    objects = {}
    for file in ('model.pth', 'm.onnx'):
        predict(file, ['data/val'], file.replace('.', '_'), score=0.1)
        content = json.loads(Path(file.replace('.', '_'), 'predictions.json').read_text())
        objects[file] = sorted((a['image_id'], a['category_id'], *a['bbox']) for a in content['annotations'])
    assert len(objects['m.onnx']) > 3
    np.testing.assert_allclose(objects['m.onnx'], objects['model.pth'], atol=0.1)
