"""compare_superpixels.py: the table, the figure, and refused commands."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from mmstvit.visualization.superpixels import boundary_recall, contour_density, merge_masks, undersegmentation_error

from ..helpers import ROOT, save_untrained
from ..in_process import run_main

TOOL = 'analysis_tools/compare_superpixels.py'
NAME = 'mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes'
CONFIG = ROOT / 'configs' / f'{NAME}.py'
ROW = 'super tokens, stages.{}.0, {} training'


def test_table_and_figure(workspace, capfd):
    """The table has the means over the images; 'before training' is the initialized model of the config's seed."""
    checkpoint = workspace / 'untrained.pth'
    save_untrained(NAME, checkpoint)
    args = [CONFIG, checkpoint, '--num-images', 2, '--out', workspace / 'out/table.json']
    run_main(TOOL, *args, workspace / 'out/figure.png', cwd=workspace)
    content = json.loads((workspace / 'out/table.json').read_text())
    rows = {row['method']: row for row in content['rows']}
    assert {row['cell'] for row in content['rows']} == {32}
    for stage in (0, 1):
        before, after = (rows[ROW.format(stage, when)] for when in ('before', 'after'))
        assert {**before, 'method': ''} == {**after, 'method': ''}
        assert 1 < before['segments'] <= 36
    assert rows['SLIC']['segments'] < rows['SLIC, not connected']['segments'] <= 36
    assert {f'SLIC, not connected, steps of {stride}' for stride in (4, 8)} <= set(rows)

    annotations = json.loads((workspace / 'data/scenes/coco/annotations/instances_val.json').read_text())['annotations']
    truths = [
        merge_masks(np.stack([rle.decode(a['segmentation']) for a in annotations if a['image_id'] == index]))
        for index in (1, 2)
    ]
    cells = np.kron(np.arange(36).reshape(6, 6), np.ones((32, 32), int))
    expected = dict(segments=36, density=contour_density(cells))
    expected['recall'] = np.mean([boundary_recall(cells, truth, 2) for truth in truths])
    expected['error'] = np.mean([undersegmentation_error(cells, truth) for truth in truths])
    assert {key: rows['cells'][key] for key in expected} == pytest.approx(expected, abs=1e-12)

    printed = [line.split(' | ') for line in capfd.readouterr().out.splitlines() if line.startswith('| ')]
    assert [line[0][2:] for line in printed[2:]] == list(rows)
    assert printed[2][3] == f'{expected["recall"]:.3f}'
    with Image.open(workspace / 'out/figure.png') as figure:
        assert figure.width > 3 * figure.height  # eight columns, two rows


def test_other_weights_make_other_super_tokens(workspace):
    checkpoint = workspace / 'other.pth'
    model = save_untrained(NAME, checkpoint)
    state = {name: torch.roll(value, 1, 0) if value.dim() > 1 else value for name, value in model.state_dict().items()}
    torch.save(dict(state_dict=state), checkpoint)
    run_main(TOOL, CONFIG, checkpoint, '--num-images', 1, '--out', 'table.json', cwd=workspace)
    rows = {row['method']: row['error'] for row in json.loads((workspace / 'table.json').read_text())['rows']}
    assert rows[ROW.format(0, 'before')] != rows[ROW.format(0, 'after')]


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        ([ROOT / 'configs/imagenet/stvit-nano_scenes.py'], 'not a detector'),
        ([CONFIG, 'missing.pth'], 'missing.pth does not exist'),
        ([CONFIG, '--cfg-options', 'val_dataloader.dataset.pipeline.2.with_mask=False'], 'with_mask=True'),
        ([CONFIG, '--cfg-options', 'val_dataloader.dataset.data_root=elsewhere/'], 'elsewhere'),
    ],
    ids=['a classifier', 'checkpoint', 'masks', 'data'],
)
def test_refused(workspace, args, words):
    with pytest.raises(SystemExit, match=words):
        run_main(TOOL, *args, cwd=workspace)


@pytest.mark.parametrize('args', [['--num-images', 0], ['--tolerance', -1], ['--out', 'table.txt']])
def test_bad_options(args, tmp_path):
    with pytest.raises(SystemExit) as caught:
        run_main(TOOL, CONFIG, *args, cwd=tmp_path)
    assert caught.value.code == 2
