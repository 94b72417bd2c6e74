"""Programs with tensors in and out: equal to what the libraries compute."""

import json

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import nn

from mmstvit.deployment.agreement import draw_images
from mmstvit.deployment.export import wrap
from mmstvit.deployment.metadata import Metadata, read_preprocessing
from mmstvit.deployment.programs import SlicedPool
from mmstvit.deployment.runtime import to_samples
from mmstvit.deployment.standalone import normalize, paste_masks, resize_logits
from mmstvit.errors import UserError

from ..helpers import TINY, assert_near, image, load_config
from .models import make

LIBRARIES = {'classifier': 'mmpretrain', 'segmentor': 'mmseg'}
MULTI_LABEL = dict(_delete_=True, type='MultiLabelLinearClsHead', num_classes=5, in_channels=256)
MASK_TRANSFORMER = dict(
    load_config('mask2former/mask2former_stvit-small_8xb2-160k_ade20k-512x512').model.decode_head,
    _delete_=True,
    in_channels=list(TINY['channels']),
)
AGNOSTIC = {f'model.test_cfg.{name}.nms.class_agnostic': True for name in ('rpn', 'rcnn')}
CLASS_BOXES = {'model.roi_head.bbox_head.reg_class_agnostic': False, 'model.roi_head.mask_head.class_agnostic': False}


@pytest.mark.parametrize('size', [(6, 6), (7, 13), (1, 5), (31, 2)])
@pytest.mark.parametrize('output', [2, 3, (6, 1)])
def test_sliced_pool_is_adaptive_pooling(size, output):
    x = image(2, 3, *size)
    torch.testing.assert_close(SlicedPool(output)(x), nn.AdaptiveAvgPool2d(output)(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('size', [(5, 7), (16, 3), (1, 1), (40, 90)])
def test_logits_are_resized_as_by_pytorch(size, align_corners):
    x = image(2, 8, 11)
    expected = torch.nn.functional.interpolate(x[None], size, mode='bilinear', align_corners=align_corners)[0]
    np.testing.assert_allclose(resize_logits(x.numpy(), size, align_corners), expected.numpy(), atol=5e-6)


@pytest.mark.parametrize('kind', ['classifier', 'segmentor'])
def test_deploy_form_computes_what_the_library_computes(kind):
    options = {'model.data_preprocessor.test_cfg': dict(size_divisor=32)} if kind == 'segmentor' else {}
    program = wrap(make(kind, **options), LIBRARIES[kind])
    assert program.settings['size_divisor'] == (32 if options else 1)
    images = [image(2, 3, 64, 96), image(1, 3, 45, 71)]
    with torch.no_grad():
        expected = [program.reference(x) for x in images]
        program.simplify()
        for x, outputs in zip(images, expected, strict=True):
            (found,) = program(x)
            assert_near({'logits': found}, {'logits': outputs['logits']}, 1e-5)
    assert expected[1]['logits'].shape[2:] in ((), (45, 71))


@pytest.mark.parametrize(
    ('kind', 'options'),
    [('mask', {}), ('mask', CLASS_BOXES), ('faster', AGNOSTIC), ('cascade', {}), ('faster', {})],
    ids=str,
)
def test_detector_finds_what_mmdetection_finds(kind, options):
    program = wrap(make(kind, **options), 'mmdet')
    count = 0
    with torch.no_grad():
        for seed, size in enumerate([(64, 96), (77, 50)]):
            x = draw_images(1, *size, seed=seed)
            expected = program.reference(x)
            found = dict(zip(program.outputs, program(x), strict=True))
            if 'masks' in expected:
                pasted = paste_masks(found.pop('masks').numpy(), found['boxes'].numpy(), size)
                assert ((pasted >= 0.5) != expected.pop('masks').numpy()).mean() < 1e-3
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
            count += len(found['labels'])
    assert count > 3


def test_detector_without_objects_gives_empty_outputs():
    program = wrap(make('mask', **{'model.test_cfg.rcnn.score_thr': 1.0}), 'mmdet')
    boxes, scores, labels, masks = program(draw_images(1, 64, 64, seed=0))
    assert (boxes.shape, scores.shape, labels.shape, masks.shape) == ((0, 4), (0,), (0,), (0, 28, 28))


@pytest.mark.parametrize(
    ('kind', 'library', 'options', 'word'),
    [
        ('mask', 'mmdet', {'model.test_cfg.rcnn.nms.type': 'soft_nms'}, 'soft_nms'),
        ('mask', 'mmdet', {'model.test_cfg.rcnn.nms.offset': 1}, 'offset'),
        ('mask', 'mmdet', {'model.test_cfg.rpn.max_per_img': -1}, 'max_per_img'),
        ('mask', 'mmdet', {'model.roi_head.bbox_head.bbox_coder.clip_border': False}, 'clip_border'),
        ('mask', 'mmdet', {'model.type': 'MaskScoringRCNN'}, 'MaskScoringRCNN'),
        ('segmentor', 'mmseg', {'model.test_cfg': dict(mode='slide', crop_size=(64, 64), stride=(32, 32))}, 'slide'),
        ('segmentor', 'mmseg', {'model.data_preprocessor.test_cfg': dict(size=(64, 64))}, 'test_cfg.size'),
        ('segmentor', 'mmseg', {'model.decode_head': MASK_TRANSFORMER}, 'Mask2FormerHead'),
        ('classifier', 'mmpretrain', {'model.head': MULTI_LABEL}, 'ImageClassifier'),
    ],
)
def test_model_that_cannot_be_exported_is_refused(kind, library, options, word):
    with pytest.raises(UserError, match=word) as refused:
        wrap(make(kind, **options), library)
    assert '--' in refused.value.remedy


def test_metadata_survive_as_text():
    outputs = dict(boxes='n, 4', scores='n', labels='n')
    preprocessing = 'RGB', [1.0, 2.0, 3.0], [4.0, 5.0, 6.0], 32, 0.0
    metadata = Metadata('detection', 'mmdet', outputs, *preprocessing, ['größer'], [[1, 2, 3]], [{'a': (1, 2)}])
    assert Metadata.loads(metadata.dumps(), 'x') == metadata
    content = json.loads(metadata.dumps())
    edited = [dict(task='other'), dict(task=[]), dict(outputs=dict(boxes='n, 4')), dict(outputs=None)]
    edited += [dict(color_order='GRB'), dict(mean='abc'), dict(std=[None] * 3), dict(more=1)]
    edited += [dict(min_side='a'), dict(shape=[64]), dict(shape=['a', 'b']), dict(score_thr=None)]
    edited += [
        dict(pipeline=[1]),
        dict(pipeline=None),
        dict(library='os'),
        dict(library=['mmseg']),
        dict(mean=[10**400] * 3),
    ]
    for text in (None, '', '[]', '{}', '[' * 10**5, *(json.dumps(content | change) for change in edited)):
        with pytest.raises(UserError, match='no metadata'):
            Metadata.loads(text, 'x')


@pytest.mark.parametrize(
    ('task', 'outputs'),
    [
        ('classification', dict(logits=np.zeros((1, 3)))),
        ('segmentation', dict(logits=np.zeros((1, 3, 2, 2)))),
        ('detection', dict(labels=np.array([0, 2]))),
    ],
)
def test_classes_without_names_are_an_error(task, outputs):
    metadata = Metadata(task, 'mmdet', {}, 'RGB', [0.0], [1.0], classes=['a', 'b'])
    with pytest.raises(UserError, match='3 classes'):
        to_samples(outputs, [BaseDataElement()], metadata)


@pytest.mark.parametrize('kind', ['classifier', 'segmentor', 'mask'])
def test_images_are_prepared_as_the_data_preprocessor_does(kind):
    model = make(kind)
    raw = (image(3, 32, 64) * 255).to(torch.uint8)
    samples = None if kind == 'classifier' else []
    with torch.no_grad():
        if kind == 'mask':
            from mmdet.structures import DetDataSample

            samples = [DetDataSample(metainfo=dict(img_shape=(32, 64)))]
        expected = model.data_preprocessor(dict(inputs=[raw], data_samples=samples), False)['inputs'][0]
    actual = normalize(raw.numpy().transpose(1, 2, 0), read_preprocessing(model.data_preprocessor))
    torch.testing.assert_close(torch.from_numpy(actual), expected, rtol=0, atol=1e-5)
