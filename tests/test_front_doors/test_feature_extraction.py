"""``docs/feature_extraction.md`` block by block: what a line prints is the comment behind it."""

import re

import cv2
import numpy as np
import pytest
import torch

from ..helpers import ROOT, image, official_shapes
from ..in_process import restored

PAGE = (ROOT / 'docs' / 'feature_extraction.md').read_text()
SHORTER = {'min_size=800, max_size=1333': 'min_size=64, max_size=64', 'out_channels=256': 'out_channels=8'}


@pytest.mark.long  # imports torchvision's detectors, and reads the index of MMPreTrain
def test_blocks_print_what_the_page_says(tmp_path, capsys):
    weights = {key: 0.02 * image(*shape) for key, shape in official_shapes('small').items()}
    weights |= {key: torch.ones_like(value) for key, value in weights.items() if key.endswith('running_var')}
    torch.save(dict(model=weights), tmp_path / 'stvit-small-224.pth')
    cv2.imwrite(str(tmp_path / 'photo.jpg'), np.zeros((40, 60, 3), np.uint8))
    code = '\n'.join(re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL))
    for written, shorter in SHORTER.items():
        assert written in code
        code = code.replace(written, shorter)
    names: dict = {}
    with restored(tmp_path):
        exec(code, names)
    expected = re.findall(r'^ *print\(.*\)  # (.*)$', code, re.MULTILINE)
    printed = capsys.readouterr().out.splitlines()
    assert len(expected) > 7
    assert [line for line in printed if line in expected] == expected
    assert torch.equal(
        names['model'].backbone.stages[0][0].pos_embed.weight, weights['layers.0.blocks.0.pos_embed.conv.weight']
    )
    assert torch.equal(names['model'].head.fc.weight, weights['head.weight'])
    assert names['loss'].isfinite()
    assert next(names['backbone'].parameters()).grad.any()
