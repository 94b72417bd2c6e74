"""``tools/analysis_tools/contact_sheet.py`` with the libraries whose models are no detectors."""

from pathlib import Path

import cv2
import pytest

from ..in_process import run_main
from ..nano import make_config, save_model
from ..test_datasets.tiny_data import HEIGHT, MAKERS, WIDTH


@pytest.mark.parametrize('library', ['mmseg', 'mmpretrain'])
def test_maps_and_classes_are_shown_beside_the_truth(library, in_folder):
    cfg = make_config(library)
    data = MAKERS[library](in_folder / 'data', 'val', 7)
    cfg.test_dataloader.dataset = dict(data, pipeline=cfg.test_dataloader.dataset.pipeline)
    for head in ('decode_head', 'auxiliary_head', 'head'):
        if head in cfg.model:
            cfg.model[head].num_classes = 2
    cfg.dump('mine.py')
    args = ['--out', 'sheet.png', '--num', 2, '--columns', 2, '--side', HEIGHT, '--work-dir', 'out']
    run_main('analysis_tools/contact_sheet.py', 'mine.py', save_model(cfg, Path('mine.pth')), *args, cwd=in_folder)
    assert cv2.imread('sheet.png').shape[1] == 4 * (WIDTH + 10) + 10
