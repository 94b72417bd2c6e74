"""Test-time augmentation of two-stage detectors, boxes and masks.

Letters: n detections of an image, C classes, (h, w) a mask head's output.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from mmengine.model import BaseTTAModel
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn

from mmstvit.compat import mask_logits
from mmstvit.dependencies import require_library
from mmstvit.errors import UserError
from mmstvit.registry import MODELS

# MMDetection is imported where it is used: `import mmstvit` works without it.

# Direction of a flip -> axes of a (…, H, W) map that it reverses.
_AXES = {'horizontal': (-1,), 'vertical': (-2,), 'diagonal': (-2, -1)}
_META_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
_OPTIONS = ('score_thr', 'nms', 'max_per_img')


@dataclass(frozen=True)
class AugmentedBatch:
    """Images of a batch in one augmentation; lists have one entry per image.

    Args:
        samples: The data samples.
        features: Input of the box and mask heads, for the batch.
        candidates: Boxes before non-maximum suppression, ``bboxes`` (n, 4) or (n, 4C) and ``scores`` (n, C + 1).
    """

    samples: list[BaseDataElement]
    features: tuple[Tensor, ...]
    candidates: list[InstanceData]


@MODELS.register_module()
class InstanceSegTTAModel(BaseTTAModel):
    """Test-time augmentation for Mask R-CNN and Cascade Mask R-CNN by flips and scales.

    The candidate boxes of all views are mapped to the original image and go through one class-wise non-maximum
    suppression. The mask heads then predict the remaining boxes in every view. Their probabilities are flipped back,
    averaged (over the stages of a cascade too) and pasted into the original image. The features of a view are computed
    once. MMDetection's ``DetTTAModel`` merges boxes, but not masks.

    Args:
        module: The detector, or its config.
        tta_cfg: Overrides ``score_thr``, ``nms`` or ``max_per_img`` of the detector's ``test_cfg.rcnn``.
        data_preprocessor: Replaces the one in a detector's config.

    Raises:
        UserError: The detector is of another kind, ``tta_cfg`` has an unknown option, or ``data_preprocessor`` is
            given with a detector that is already built.
        ImportError: MMDetection is missing.

    Example:
        >>> tta_model = dict(type='mmstvit.InstanceSegTTAModel')
        >>> tta_pipeline = [
        >>>     dict(type='LoadImageFromFile'),
        >>>     dict(
        >>>         type='TestTimeAug',
        >>>         transforms=[
        >>>             [dict(type='Resize', scale=(1333, side), keep_ratio=True) for side in (640, 800, 960)],
        >>>             [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
        >>>             [dict(type='PackDetInputs')],
        >>>         ]),
        >>> ]
    """

    def __init__(
        self, module: dict | nn.Module, tta_cfg: Mapping | None = None, data_preprocessor: dict | None = None
    ) -> None:
        require_library('mmdet')
        if data_preprocessor is not None and isinstance(module, nn.Module):
            raise UserError(
                f'data_preprocessor of InstanceSegTTAModel replaces the one in a config, but module is a built '
                f'{type(module).__name__}.',
                'Pass its config as module, or set module.data_preprocessor.',
            )
        super().__init__(module, data_preprocessor)
        _check_detector(self.module)
        unknown = [key for key in tta_cfg or {} if key not in _OPTIONS]
        if unknown:
            raise UserError(
                f'Unknown options {unknown} of tta_cfg of InstanceSegTTAModel.', f'Known options: {list(_OPTIONS)}.'
            )
        self.tta_cfg = {key: self.module.roi_head.test_cfg[key] for key in _OPTIONS} | dict(tta_cfg or {})

    def test_step(self, data: dict) -> list[BaseDataElement]:
        """Predict the images of a batch from all their views.

        Args:
            data: ``inputs`` and ``data_samples``, each a list with one batch per view, as from TestTimeAug and
                MMEngine's ``pseudo_collate``.

        Returns:
            A data sample per image with ``pred_instances`` on the original image: ``bboxes`` (n, 4), ``scores`` (n,),
            ``labels`` (n,) and ``masks`` (n, H, W) of bool.
        """
        batches = zip(data['inputs'], data['data_samples'], strict=True)
        return self.merge_preds([self._propose(inputs, samples) for inputs, samples in batches])

    def _propose(self, inputs: list[Tensor], samples: list[BaseDataElement]) -> AugmentedBatch:
        detector = self.module
        data = detector.data_preprocessor(dict(inputs=inputs, data_samples=samples), False)
        samples = data['data_samples']
        features = detector.extract_feat(data['inputs'])
        proposals = detector.rpn_head.predict(features, samples, rescale=False)
        metas = [sample.metainfo for sample in samples]
        # Without rcnn_test_cfg: all boxes of all classes.
        candidates = detector.roi_head.predict_bbox(features, metas, proposals, rcnn_test_cfg=None, rescale=False)
        return AugmentedBatch(samples, features, candidates)

    def merge_preds(self, views: Sequence[AugmentedBatch]) -> list[BaseDataElement]:
        """Merge the views of a batch; returns the same as :meth:`test_step`."""
        results = [self._merge_boxes(views, i) for i in range(len(views[0].samples))]
        masks = zip(*(self._predict_masks(view, results) for view in views), strict=True)
        roi_head = self.module.roi_head
        results = _mask_heads(roi_head)[-1].predict_by_feat(
            [sum(of_views) / len(views) for of_views in masks],
            results,
            [dict(ori_shape=sample.ori_shape, scale_factor=(1.0, 1.0)) for sample in views[0].samples],
            rcnn_test_cfg=roi_head.test_cfg,
            rescale=True,  # the boxes are on the original image already
            activate_map=True,  # the masks are probabilities
        )
        merged = []
        for i, instances in enumerate(results):
            # Prefer a view that is not flipped: ground truth may have been flipped with the image.
            sample = min((view.samples[i] for view in views), key=lambda sample: sample.flip)
            sample.pred_instances = instances
            merged.append(sample)
        return merged

    def _merge_boxes(self, views: Sequence[AugmentedBatch], i: int) -> InstanceData:
        """Detect objects on the i-th image, without masks."""
        from mmdet.models.layers import multiclass_nms
        from mmdet.structures.bbox import bbox_mapping_back

        found = [(view.samples[i], view.candidates[i]) for view in views]
        # Without a proposal the boxes of a view are (0, 4), but those of other views may be (n, 4C).
        found = [(sample, candidates) for sample, candidates in found if len(candidates)] or found[:1]
        boxes = [bbox_mapping_back(candidates.bboxes, **_geometry(sample)) for sample, candidates in found]
        detections, labels = multiclass_nms(
            torch.cat(boxes),
            torch.cat([candidates.scores for _, candidates in found]),
            self.tta_cfg['score_thr'],
            self.tta_cfg['nms'],
            self.tta_cfg['max_per_img'],
        )
        return InstanceData(bboxes=detections[:, :4], scores=detections[:, 4], labels=labels)

    def _predict_masks(self, view: AugmentedBatch, results: list[InstanceData]) -> tuple[Tensor, ...]:
        """Predict mask probabilities (n, C or 1, h, w) of each image's detections from one view, flipped back."""
        from mmdet.structures.bbox import bbox2roi, bbox_mapping

        counts = [len(result) for result in results]
        pairs = zip(view.samples, results, strict=True)
        rois = bbox2roi([bbox_mapping(result.bboxes, **_geometry(sample)) for sample, result in pairs])
        if not len(rois):  # not every layer accepts an empty batch
            return rois.new_zeros(0, 1, 1, 1).split(counts)
        stages = mask_logits(self.module.roi_head, view.features, rois)
        masks = torch.stack([logits.sigmoid() for logits in stages]).mean(dim=0).split(counts)
        pairs = zip(view.samples, masks, strict=True)
        return tuple(m.flip(_AXES[sample.flip_direction]) if sample.flip else m for sample, m in pairs)


def _geometry(sample: BaseDataElement) -> dict[str, object]:
    """Return the resize and flip that made a view, as MMDetection's functions on boxes take them.

    Raises:
        UserError: The sample lacks a key.
    """
    missing = [key for key in ('ori_shape', 'img_shape', 'scale_factor', 'flip') if key not in sample.metainfo]
    if missing:
        raise UserError(
            f'Test-time augmentation needs {missing} in the metainfo of every view.',
            f'Give the TestTimeAug of tta_pipeline a RandomFlip (prob=0.0 for a view that is not flipped), and end '
            f"it with dict(type='PackDetInputs', meta_keys={_META_KEYS}).",
        )
    return dict(
        img_shape=sample.img_shape,
        scale_factor=tuple(sample.scale_factor[:2]) * 2,
        flip=sample.flip,
        flip_direction=sample.flip_direction,
    )


def _mask_heads(roi_head: nn.Module) -> list[nn.Module]:
    """Return the mask heads, one per stage of a cascade."""
    return list(roi_head.mask_head) if isinstance(roi_head.mask_head, nn.ModuleList) else [roi_head.mask_head]


def _check_detector(detector: nn.Module) -> None:
    """Check that a detector predicts as Mask R-CNN or Cascade Mask R-CNN do, by the classes of its parts."""
    from mmdet.models.detectors import TwoStageDetector
    from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
    from mmdet.models.roi_heads.mask_heads import FCNMaskHead

    roi_head = getattr(detector, 'roi_head', None)
    with_mask = getattr(roi_head, 'with_mask', False)
    if not (
        with_mask
        and getattr(type(detector), 'predict', None) is TwoStageDetector.predict
        and detector.with_rpn
        and type(roi_head) in (StandardRoIHead, CascadeRoIHead)
        and all(type(head) is FCNMaskHead for head in _mask_heads(roi_head))
    ):
        raise UserError(
            f'InstanceSegTTAModel supports Mask R-CNN and Cascade Mask R-CNN, but got {type(detector).__name__} with '
            f'roi_head {type(roi_head).__name__}, {"with" if with_mask else "without"} masks.',
            "Test without --tta, or merge only the boxes with tta_model = dict(type='DetTTAModel', ...).",
        )
