"""What a config's model costs, from image to heads, and what is refused."""

import pytest
from mmengine.config import Config
from mmengine.hub import get_config

from mmstvit.analysis import measure
from mmstvit.analysis.complexity import default_shape
from mmstvit.apis import UserError
from mmstvit.dependencies import require_library

from ..helpers import ROOT

NANO = {
    'mmdet': 'mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py',
    'mmseg': 'upernet/stvit-nano_upernet_scenes.py',
    'mmpretrain': 'imagenet/stvit-nano_scenes.py',
}


def nano(scope: str) -> Config:
    require_library(scope)
    return Config.fromfile(ROOT / 'configs' / NANO[scope])


def foreign(name: str) -> Config:
    require_library(name.partition('::')[0])
    return get_config(name)


@pytest.mark.parametrize('scope', NANO)
def test_modules_add_up_to_the_model(scope):
    result = measure(nano(scope))
    parts = [cost for name, cost in result.modules.items() if name and '.' not in name]
    assert len(parts) > 2
    for quantity in ('params', 'everything', 'paper'):
        assert sum(getattr(cost, quantity) for cost in parts) == getattr(result.total, quantity) > 0
    assert sum(result.total.kinds.values()) == result.total.everything


@pytest.mark.parametrize('scope', NANO)
def test_the_papers_convention_leaves_products_of_activations_out_but_for_classifiers(scope):
    total = measure(nano(scope)).total
    assert total.kinds['matmul'] > 0
    left_out = 0 if scope == 'mmpretrain' else total.kinds['matmul']
    assert total.everything - total.paper == left_out


def test_the_heads_of_a_detector_see_a_thousand_boxes_and_a_hundred_masks():
    cfg = nano('mmdet')
    modules = measure(cfg).modules
    box, mask = cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head
    assert modules['roi_head.bbox_head.fc_cls'].paper == 1000 * (box.num_classes + 1) * (box.fc_out_channels + 1)
    assert modules['roi_head.mask_head.conv_logits'].paper == 100 * 28 * 28 * (mask.conv_out_channels + 1)


def test_every_stage_of_a_cascade_counts():
    require_library('mmdet')
    cfg = Config.fromfile(ROOT / 'configs/cascade_mask_rcnn/cascade-mask-rcnn_stvit-nano_fpn_scenes.py')
    modules = measure(cfg).modules
    for head in ('bbox_head', 'mask_head'):
        stages = [modules[f'roi_head.{head}.{i}'].paper for i in range(3)]
        assert stages[0] > 0 and stages == stages[:1] * 3


def test_the_auxiliary_head_has_parameters_and_does_not_run():
    modules = measure(nano('mmseg')).modules
    assert modules['auxiliary_head'].params > 0 and modules['auxiliary_head'].everything == 0
    assert modules['decode_head'].everything > 0


def test_training_settings_do_not_matter():
    cfg = nano('mmseg')
    cfg.merge_from_dict({'model.backbone.frozen_stages': 2, 'model.backbone.with_cp': True})
    assert measure(cfg) == measure(nano('mmseg'))


def test_the_published_numbers_of_swin_come_out_in_full():
    """48 M parameters and 267 G multiply-accumulates at 800×1280, as its authors print them with their detector."""
    total = measure(foreign('mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py')).total
    assert round(total.params / 1e6) == 48 and round(total.everything / 1e9) == 267
    assert total.paper < total.everything


class TestShape:
    def test_a_detectors_image_is_padded_as_for_inference(self):
        assert measure(nano('mmdet'), (100, 130)) == measure(nano('mmdet'), (128, 160))
        assert measure(nano('mmdet'), (100, 130)).shape == (128, 160)

    def test_others_are_taken_as_they_are(self):
        assert measure(nano('mmseg'), (100, 130)).shape == (100, 130)

    @pytest.mark.parametrize(
        ('pipeline', 'expected'),
        [
            ([dict(type='ResizeEdge', scale=256), dict(type='CenterCrop', crop_size=224)], (224, 224)),
            ([dict(type='CenterCrop', crop_size=(320, 240)), dict(type='PackInputs')], (240, 320)),
            ([dict(type='Resize', scale=(96, 64))], (64, 96)),
        ],
    )
    def test_a_classifiers_is_what_its_pipeline_makes(self, pipeline, expected):
        cfg = Config(dict(default_scope='mmpretrain', test_dataloader=dict(dataset=dict(pipeline=pipeline))))
        assert default_shape(cfg) == expected

    def test_without_a_size_in_the_test_pipeline_that_of_training_counts(self):
        assert default_shape(nano('mmpretrain')) == (64, 64)

    def test_a_classifier_without_any_size_is_refused(self):
        with pytest.raises(UserError, match=r'CenterCrop.*give height and width'):
            default_shape(Config(dict(default_scope='mmpretrain', test_dataloader=None)))


@pytest.mark.parametrize(
    ('name', 'parts'),
    [
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'RetinaNet cannot be counted'),
        ('mmdet::htc/htc_r50_fpn_1x_coco.py', 'HybridTaskCascade with HybridTaskCascadeRoIHead cannot be counted'),
        ('mmpretrain::simclr/simclr_resnet50_8xb32-coslr-200e_in1k.py', 'SimCLR cannot be counted'),
    ],
)
def test_a_model_whose_heads_are_unknown_is_refused(name, parts):
    cfg = foreign(name)
    with pytest.raises(UserError, match=parts) as caught:
        measure(cfg, (224, 224))
    assert '\n' not in str(caught.value)


def test_an_image_that_is_too_small_is_refused():
    with pytest.raises(UserError, match=r'ImageClassifier cannot be counted at 16×16: .*at least 32×32'):
        measure(nano('mmpretrain'), (16, 16))


def test_operators_that_need_more_than_shapes_are_refused():
    cfg = foreign('mmdet::dcn/mask-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py')
    with pytest.raises(UserError, match=r'MaskRCNN cannot be counted at 800×1280: \w') as caught:
        measure(cfg)
    assert '\n' not in str(caught.value)


def test_a_model_that_cannot_be_built_is_refused_with_its_message():
    cfg = nano('mmpretrain')
    cfg.model.backbone.arch = 'smal'
    with pytest.raises(UserError, match=r"cannot be built: .*Did you mean 'small'"):
        measure(cfg)
