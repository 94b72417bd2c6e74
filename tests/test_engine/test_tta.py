"""Test-time augmentation of masks maps all views back exactly, and changes nothing else."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import roi_align
from mmcv.transforms import Compose
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hub import get_config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmstvit.engine import InstanceSegTTAModel
from mmstvit.errors import UserError

from ..helpers import NANO, load_config

FLIPS = ['horizontal', 'vertical', 'diagonal']
CLASSES = 5


@pytest.fixture(autouse=True)
def mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def config(cascade: bool = False, class_agnostic: bool = False) -> Config:
    """The demo's Mask R-CNN, or its cascade."""
    if cascade:
        return load_config('cascade_mask_rcnn/cascade-mask-rcnn_stvit-nano_fpn_scenes')
    cfg = load_config(NANO['mmdet'])
    cfg.model.roi_head.mask_head.class_agnostic = class_agnostic
    cfg.model.roi_head.bbox_head.reg_class_agnostic = class_agnostic
    return cfg


def build(cfg: Config) -> nn.Module:
    """A detector whose scores differ from box to box, though it learned nothing."""
    torch.manual_seed(0)
    detector = MODELS.build(cfg.model).eval()
    for name, parameter in detector.named_parameters():
        if name.endswith(('fc_cls.weight', 'conv_logits.weight')):
            nn.init.normal_(parameter, std=0.5)
    return detector


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Make an image with smooth colors."""
    noise = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) * 255
    return F.interpolate(noise, (height, width), mode='bicubic')[0].permute(1, 2, 0).clamp(0, 255).byte().numpy()


def load(images: list[np.ndarray], scales: list[tuple[int, int]], flips: list[str | None]) -> dict:
    """Load images as a data loader does, by TestTimeAug with scales (w, h) and flips (None: not flipped)."""
    pipeline = [
        dict(type='mmdet.LoadImageFromNDArray'),
        dict(
            type='TestTimeAug',
            transforms=[
                [dict(type='Resize', scale=scale, keep_ratio=False) for scale in scales],
                [dict(type='RandomFlip', prob=float(f is not None), direction=f or 'horizontal') for f in flips],
                [dict(type='PackDetInputs')],
            ],
        ),
    ]
    transform = Compose(pipeline)
    return pseudo_collate([transform(dict(img=image, img_id=i)) for i, image in enumerate(images)])


@torch.no_grad()
def predict(detector: nn.Module, images: list[np.ndarray], scale: tuple[int, int]) -> list[DetDataSample]:
    """Predict with the detector itself, without augmentation."""
    data = load(images, [scale], [None])
    return detector.test_step({key: value[0] for key, value in data.items()})


@torch.no_grad()
def augment(model: InstanceSegTTAModel, *args: list) -> list[DetDataSample]:
    return model.test_step(load(*args))


def iou(a: Tensor, b: Tensor) -> float:
    return ((a & b).sum() / (a | b).sum()).item()


@pytest.mark.parametrize(('cascade', 'class_agnostic'), [(False, False), (False, True), (True, False)])
def test_one_view_without_augmentation_gives_the_detectors_own_prediction(cascade, class_agnostic):
    detector = build(config(cascade, class_agnostic))
    images = [picture(70, 100, seed=1), picture(90, 64, seed=2)]
    plain = predict(detector, images, (128, 96))
    augmented = augment(InstanceSegTTAModel(detector), images, [(128, 96)], [None])
    for one, other, image in zip(augmented, plain, images, strict=True):
        actual, expected = one.pred_instances, other.pred_instances
        assert len(actual) == len(expected) > 5 and torch.equal(actual.labels, expected.labels)
        assert torch.equal(actual.scores, expected.scores) and torch.equal(actual.bboxes, expected.bboxes)
        assert actual.masks.dtype == torch.bool and actual.masks.shape == (len(expected), *image.shape[:2])
        assert 0.01 < expected.masks.float().mean() < 0.99
        assert (actual.masks ^ expected.masks).float().mean() < 1e-3


# The letter L, which every flip changes: corner, height, width, thickness, in pixels of the original image.
LETTERS = [((8, 20), 48, 32, 12), ((30, 50), 30, 50, 10)]
SIZES = [(72, 96), (80, 120)]


def letter(size: tuple[int, int], shape: tuple | None) -> tuple[np.ndarray, Tensor, Tensor]:
    """Make an image with a white L on black (None: only black), its box (1, 4) and mask (1, H, W)."""
    mask = torch.zeros(1, *size, dtype=torch.bool)
    box = torch.zeros(0, 4)
    if shape is not None:
        (y, x), height, width, thickness = shape
        mask[:, y : y + height, x : x + thickness] = True
        mask[:, y + height - thickness : y + height, x : x + width] = True
        box = torch.tensor([[x, y, x + width, y + height]], dtype=torch.float32)
    image = (mask[0, :, :, None].expand(-1, -1, 3) * 255).byte().numpy()
    return image, box, mask


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Callable[[], nn.Module]:
    """Build a detector that finds the white pixels as one object of class 2."""

    def make(sees: Callable[[Tensor], bool] = lambda image: True) -> nn.Module:
        """``sees`` returns False for a view, (3, H, W), without proposals."""
        cfg = config()
        cfg.model.data_preprocessor.update(mean=[0.0] * 3, std=[255.0] * 3)
        detector = build(cfg)

        def propose(features: tuple[Tensor], *_: object, **__: object) -> list[InstanceData]:
            return [InstanceData(bboxes=boxes_of(image) if sees(image) else torch.zeros(0, 4)) for image in features[0]]

        def boxes_of(image: Tensor) -> Tensor:
            ys, xs = torch.where(image[0] > 0.5)
            if not len(ys):
                return torch.zeros(0, 4)
            return torch.tensor([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], dtype=torch.float32)

        def predict_bbox(_: tuple, metas: list, proposals: list[InstanceData], **__: object) -> list[InstanceData]:
            results = []
            for proposal in proposals:
                scores = torch.zeros(len(proposal.bboxes), CLASSES + 1)
                scores[:, 2] = 0.9
                # A box per class, but (0, 4) without a proposal, as MMDetection's box head.
                boxes = proposal.bboxes.repeat(1, CLASSES) if len(scores) else torch.zeros(0, 4)
                results.append(InstanceData(bboxes=boxes, scores=scores))
            return results

        def mask_forward(features: tuple[Tensor], rois: Tensor) -> dict[str, Tensor]:
            crops = roi_align(features[0][:, :1].contiguous(), rois, 28, 1.0, 2, 'avg', True)
            others = crops.new_full((len(rois), CLASSES, 28, 28), -10.0)
            others[:, 2:3] = (crops - 0.5) * 20
            return dict(mask_preds=others)

        monkeypatch.setattr(detector, 'extract_feat', lambda images: (images,))
        monkeypatch.setattr(detector.rpn_head, 'predict', propose)
        monkeypatch.setattr(detector.roi_head, 'predict_bbox', predict_bbox)
        monkeypatch.setattr(detector.roi_head, '_mask_forward', mask_forward)
        return detector

    return make


SCALES = [(96, 96), (160, 120), (240, 320)]


class TestKnownAnswer:
    """Letters in images of different sizes, seen in views of different sizes and directions."""

    @pytest.mark.parametrize('flips', [[None], *[[f] for f in FLIPS], [None, *FLIPS]])
    @pytest.mark.parametrize('scales', [SCALES[:1], SCALES])
    def test_box_and_mask_are_on_the_original_image(self, reader, scales, flips):
        images, boxes, masks = zip(*(letter(*args) for args in zip(SIZES, LETTERS, strict=True)), strict=True)
        samples = augment(InstanceSegTTAModel(reader()), list(images), scales, flips)
        for sample, box, mask in zip(samples, boxes, masks, strict=True):
            found = sample.pred_instances
            assert found.labels.tolist() == [2] and found.scores.tolist() == pytest.approx([0.9])
            assert (found.bboxes - box).abs().max() <= 1.3  # a pixel of the smallest view
            assert found.masks.dtype == torch.bool and found.masks.shape == mask.shape
            assert iou(found.masks, mask) > 0.85
            for axes in ((1,), (2,), (1, 2)):
                assert iou(found.masks, mask.flip(axes)) < 0.7

    def test_views_without_a_detection_contribute_to_the_mask_only(self, reader):
        image, box, mask = letter(SIZES[0], LETTERS[0])
        model = InstanceSegTTAModel(reader(sees=lambda view: view.shape[1] > 300))
        (sample,) = augment(model, [image], SCALES, [None, 'diagonal'])
        assert (sample.pred_instances.bboxes - box).abs().max() <= 0.5
        assert iou(sample.pred_instances.masks, mask) > 0.85

    @pytest.mark.parametrize('letters', [[None, LETTERS[1]], [LETTERS[0], None], [None, None]])
    def test_images_without_a_detection_have_empty_results(self, reader, letters):
        images, _, masks = zip(*(letter(*args) for args in zip(SIZES, letters, strict=True)), strict=True)
        samples = augment(InstanceSegTTAModel(reader()), list(images), SCALES[:2], [None, 'horizontal'])
        for sample, shape, size, mask in zip(samples, letters, SIZES, masks, strict=True):
            found = sample.pred_instances
            count = 0 if shape is None else 1
            assert found.bboxes.shape == (count, 4) and found.scores.shape == found.labels.shape == (count,)
            assert found.masks.shape == (count, *size) and found.masks.dtype == torch.bool
            assert count == 0 or iou(found.masks, mask) > 0.85

    def test_features_of_a_view_are_computed_once(self, reader, monkeypatch):
        detector, calls = reader(), []
        monkeypatch.setattr(detector, 'extract_feat', lambda images: calls.append(images.shape) or (images,))
        augment(InstanceSegTTAModel(detector), [letter(SIZES[0], LETTERS[0])[0]], SCALES, [None, 'horizontal'])
        assert len(calls) == 6

    def test_the_sample_is_of_a_view_that_is_not_flipped(self, reader):
        image, _, _ = letter(SIZES[0], LETTERS[0])
        (sample,) = augment(InstanceSegTTAModel(reader()), [image], SCALES[:1], ['horizontal', None])
        assert sample.flip is False and sample.ori_shape == SIZES[0] and sample.img_id == 0


class TestOptions:
    @pytest.mark.parametrize(('cfg', 'count'), [(None, 20), (dict(max_per_img=3), 3), (dict(score_thr=1.0), 0)])
    def test_override_the_test_cfg_of_the_detector(self, cfg, count):
        model = InstanceSegTTAModel(build(config()), cfg)
        (sample,) = augment(model, [picture(64, 96)], [(128, 96)], [None, 'horizontal'])
        assert len(sample.pred_instances) == count
        assert (sample.pred_instances.scores > 0.05).all()

    def test_iou_threshold(self):
        counts = []
        for threshold in (1.0, 0.3):
            nms = dict(type='nms', iou_threshold=threshold)
            model = InstanceSegTTAModel(build(config()), dict(score_thr=0.5, nms=nms, max_per_img=-1))
            (sample,) = augment(model, [picture(64, 96)], [(128, 96)], [None, 'horizontal'])
            counts.append(len(sample.pred_instances))
        assert counts[0] > 2 * counts[1] > 0

    def test_unknown_option(self):
        with pytest.raises(UserError, match=r"\['score_threshold'\] of tta_cfg") as error:
            InstanceSegTTAModel(build(config()), dict(score_threshold=0.1))
        assert "['score_thr', 'nms', 'max_per_img']" in error.value.remedy

    def test_data_preprocessor_for_a_config(self):
        preprocessor = dict(config().model.data_preprocessor, pad_size_divisor=64)
        model = InstanceSegTTAModel(config().model, data_preprocessor=preprocessor)
        assert model.module.data_preprocessor.pad_size_divisor == 64

    def test_data_preprocessor_for_a_built_detector(self):
        with pytest.raises(UserError, match='module is a built MaskRCNN'):
            InstanceSegTTAModel(build(config()), data_preprocessor=dict(type='DetDataPreprocessor'))


class TestErrors:
    def test_detector_without_masks(self):
        cfg = config()
        cfg.model.roi_head.update(mask_head=None, mask_roi_extractor=None)
        with pytest.raises(UserError, match='MaskRCNN with roi_head StandardRoIHead, without masks') as error:
            InstanceSegTTAModel(cfg.model)
        assert 'DetTTAModel' in error.value.remedy

    @pytest.mark.parametrize(('name', 'words'), [
        ('solo/solo_r50_fpn_1x_coco', 'SOLO with roi_head NoneType, without masks'),
        ('point_rend/point-rend_r50-caffe_fpn_ms-1x_coco', 'PointRend with roi_head PointRendRoIHead, with masks'),
        ('htc/htc-without-semantic_r50_fpn_1x_coco', 'with roi_head HybridTaskCascadeRoIHead, with masks'),
    ])  # fmt: skip
    def test_detector_of_another_kind(self, name, words):
        model = get_config(f'mmdet::{name}.py').model
        model.backbone.init_cfg = None
        with torch.device('meta'), pytest.raises(UserError, match=words):
            InstanceSegTTAModel(model)

    def test_view_without_flip_in_its_metainfo(self):
        data = load([picture(64, 96)], [(128, 96)], [None])
        for sample in data['data_samples'][0]:
            del sample.flip
        with pytest.raises(UserError, match=r"\['flip'\]") as error:
            InstanceSegTTAModel(build(config())).test_step(data)
        assert 'RandomFlip' in error.value.remedy and 'PackDetInputs' in error.value.remedy
