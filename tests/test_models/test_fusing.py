"""mmcv.cnn.fuse_conv_bn, which people run before inference, leaves the outputs of every registered module alone."""

import copy

import pytest
import torch
from mmcv.cnn import fuse_conv_bn

from mmstvit import STViTNeck
from mmstvit.models import STViTAblation, STViTAblationNeck
from mmstvit.registry import MODELS

from ..helpers import TINY, image, learned, relative_error, tiny

IMAGES, MAPS = (2, 3, 50, 70), (2, 12, 3, 5)
CASES = {
    'STViT': (tiny, IMAGES),
    'STViTNeck': (lambda: STViTNeck(12, 20), MAPS),
    'STViTAblation': (lambda: STViTAblation(TINY, stem='patch', pos_embed=None, ffn='plain'), IMAGES),
    'STViTAblationNeck': (lambda: STViTAblationNeck(12), MAPS),
}


def test_every_registered_module_is_tried():
    assert set(CASES) == {
        name for name, cls in MODELS.module_dict.items() if cls.__module__.startswith('mmstvit.models')
    }


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('deploy', [False, True])
def test_outputs_stay(name, deploy):
    build, size = CASES[name]
    torch.manual_seed(0)
    model = learned(build()).double()
    if deploy and hasattr(model, 'switch_to_deploy'):
        model.switch_to_deploy()
    fused = fuse_conv_bn(copy.deepcopy(model))
    x = image(*size, dtype=torch.float64)
    with torch.no_grad():
        for actual, expected in zip(fused(x), model(x), strict=True):
            assert relative_error(actual, expected) < 1e-12
