"""Target layers for class activation maps."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ..helpers import ROOT, image, save_untrained, tiny


def test_norm2_sees_a_map_with_channels_first_and_a_gradient():
    model = tiny().eval()
    maps = []
    for blocks in model.stages:
        blocks[-1].norm2.register_forward_hook(lambda module, inputs, output: maps.append(output))
    outputs = model(image(1, 3, 64, 96))
    gradients = torch.autograd.grad(outputs[-1].sum(), maps)
    assert [tuple(x.shape) for x in maps] == [tuple(x.shape) for x in outputs]
    assert all(gradient.abs().max() > 0 for gradient in gradients)


TOOLS = {
    'mmpretrain': (
        'imagenet/stvit-nano_scenes',
        'mmpretrain/.mim/tools/visualization/vis_cam.py',
        ['--target-layers', 'backbone.stages.3.0.norm2', '--save-path', 'cam.png'],
    ),
    'mmseg': (
        'upernet/stvit-nano_upernet_scenes',
        'mmseg/.mim/tools/analysis_tools/visualization_cam.py',
        [
            '--target-layers',
            'backbone.stages[3][0].norm2',
            '--category-index',
            0,
            '--device',
            'cpu',
            '--cam-file',
            'cam.png',
        ],
    ),
}


@pytest.mark.long
@pytest.mark.parametrize('library', TOOLS)
def test_tools_of_the_libraries(library, tmp_path):
    pytest.importorskip('pytorch_grad_cam', reason='grad-cam 1.4.8 is not part of the environment')
    name, tool, options = TOOLS[library]
    checkpoint, photo = tmp_path / 'model.pth', tmp_path / 'photo.png'
    model = save_untrained(name, checkpoint)
    meta = dict(dataset_meta=dict(classes=[*'abcdef'], palette=[[40 * i] * 3 for i in range(6)]))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), checkpoint)
    cv2.imwrite(str(photo), np.random.default_rng(0).integers(0, 255, (192, 192, 3), np.uint8))
    command = [
        sys.executable,
        Path(sysconfig.get_path('purelib')) / tool,
        photo,
        ROOT / f'configs/{name}.py',
        checkpoint,
    ]
    done = subprocess.run([*map(str, [*command, *options])], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(tmp_path / 'cam.png')).shape == (192, 192, 3)
