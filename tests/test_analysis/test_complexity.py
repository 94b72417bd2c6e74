"""Cost of a config's model from image to heads."""

import pytest
import torch
from mmengine.config import Config

from mmstvit.analysis import Complexity, count_complexity, default_shape
from mmstvit.apis import build_model, read_config
from mmstvit.errors import UserError

from ..helpers import NANO, ROOT, config_path


def nano(scope: str) -> Config:
    return read_config(str(config_path(NANO[scope])), None)


def count(cfg: Config, shape: tuple[int, int] | None = None) -> Complexity:
    return count_complexity(build_model(cfg), shape or default_shape(cfg))


@pytest.mark.parametrize('scope', NANO)
def test_modules_add_up_to_the_model(scope):
    result = count(nano(scope), (64, 64))
    parts = [cost for name, cost in result.modules.items() if name and '.' not in name]
    assert len(parts) > 2
    for quantity in ('params', 'everything', 'layers'):
        assert sum(getattr(cost, quantity) for cost in parts) == getattr(result.total, quantity) > 0
    assert result.total.everything - result.total.layers == result.total.kinds['matmul'] > 0


@pytest.mark.parametrize('name', ['lsj-50e_coco', pytest.param('160k_ade20k-512x512', marks=pytest.mark.long)])
def test_the_masks_of_queries_are_products_of_the_head(name):
    cfg = read_config(str(ROOT / f'configs/mask2former/mask2former_stvit-small_8xb2-{name}.py'), None)
    with torch.device('meta'):
        model = build_model(cfg)
    result = count_complexity(model, (64, 96))
    head = 'panoptic_head' if 'coco' in name else 'decode_head'
    parts = (cost.kinds['matmul'] for part, cost in result.modules.items() if part.rpartition('.')[0] == head)
    # 100 queries of 256 channels at a fourth of the size, after each of nine layers and before the first.
    assert result.modules[head].kinds['matmul'] - sum(parts) == 10 * 100 * 256 * 16 * 24
    assert result.modules[head].everything + result.modules['backbone'].everything == result.total.everything


class TestShape:
    def test_of_a_detector_is_padded_as_at_inference(self):
        assert count(nano('mmdet'), (100, 130)).shape == (128, 160)
        assert count(nano('mmseg'), (100, 130)).shape == (100, 130)

    @pytest.mark.parametrize(
        ('pipeline', 'expected'),
        [
            ([dict(type='ResizeEdge', scale=256), dict(type='CenterCrop', crop_size=224)], (224, 224)),
            ([dict(type='CenterCrop', crop_size=(320, 240)), dict(type='PackInputs')], (240, 320)),
            ([dict(type='Resize', scale=(96, 64))], (64, 96)),
        ],
    )
    def test_of_a_classifier_is_that_of_its_pipeline(self, pipeline, expected):
        cfg = Config(dict(default_scope='mmpretrain', test_dataloader=dict(dataset=dict(pipeline=pipeline))))
        assert default_shape(cfg) == expected

    def test_of_training_counts_if_the_test_pipeline_has_no_size(self):
        assert default_shape(nano('mmpretrain')) == (64, 64)

    def test_is_required_if_the_pipelines_have_none(self):
        with pytest.raises(UserError, match=r'CenterCrop.*--shape H W'):
            default_shape(Config(dict(default_scope='mmpretrain', test_dataloader=None)))


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('mmdet::htc/htc_r50_fpn_1x_coco.py', 'HybridTaskCascade with HybridTaskCascadeRoIHead cannot be counted'),
        ('mmdet::dcn/mask-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py', r'MaskRCNN cannot be counted at 224×224: \w'),
        ('mmpretrain::simclr/simclr_resnet50_8xb32-coslr-200e_in1k.py', 'SimCLR cannot be counted'),
    ],
)
def test_an_unsupported_model_is_refused_in_one_line(name, reason):
    with pytest.raises(UserError, match=reason) as caught:
        count(read_config(name, None), (224, 224))
    assert '\n' not in str(caught.value)
