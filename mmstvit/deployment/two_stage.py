"""Mask R-CNN, Faster R-CNN and Cascade R-CNN as a program without branches on the data.

It computes what MMDetection computes, with NMS and RoIAlign of torchvision, which have operators of ONNX.

Letters: n boxes · K classes · A anchors · h, w sides of a map.
"""

from collections.abc import Iterator, Sequence

import torch
from mmdet.models.task_modules.coders.delta_xywh_bbox_coder import delta2bbox
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

from mmstvit.errors import UserError

from .programs import ADVICE, Program

# Number of candidates for objects with which a file is checked.
CANDIDATES = 400
# Settings of parts that change a computation -> the value for which it is written down here.
_SETTINGS = {
    'with_shared_head': False,
    'add_ctr_clamp': False,
    'clip_border': True,
    'custom_activation': False,
    'with_reg': True,
    'pool_mode': 'avg',
    'use_box_type': False,
}


class TwoStage(Program):
    """A two-stage detector of MMDetection: boxes, scores, labels and masks.

    Everything before the proposals computes all images at once, the rest one image after the other: their numbers of
    boxes differ.

    Args:
        model: The detector.
        shape: Height and width of the input if they are fixed; smaller images are padded then.
        batch: Number of images.

    Raises:
        UserError: A part of the detector is of another kind than in Mask R-CNN and its relatives.
    """

    task = 'detection'

    def __init__(self, model: nn.Module, shape: Sequence[int] | None = None, batch: int = 1) -> None:
        super().__init__(model, shape)
        _check(model)
        self.outputs = {
            'boxes': 'boxes x1, y1, x2, y2 in pixels of the input, (n, 4), the highest score first',
            'scores': 'scores, (n)',
            'labels': 'labels, which count the classes from 0, (n)',
        }
        if model.roi_head.with_mask:
            self.outputs['masks'] = 'probability of the object at a grid of points in each box, (n, rows, columns)'
        if batch > 1:
            self.outputs['images'] = 'image of each object, which counts those of the input from 0, (n)'
        self.axes = {name: {0: 'objects'} for name in self.outputs}
        cfg = model.roi_head.test_cfg
        self.settings |= dict(score_thr=cfg.score_thr, nms_iou=cfg.nms.iou_threshold, max_per_img=cfg.max_per_img)
        if model.roi_head.with_mask:
            self.settings['mask_threshold'] = cfg.mask_thr_binary

    def inputs(self, image: Tensor) -> dict[str, Tensor]:
        """Return the images, (B, 3, h, w), padded to the fixed shape, with their own heights and widths."""
        inputs = super().inputs(image)
        if self.shape is not None:
            inputs['valid'] = image.new_tensor(image.shape[2:]).expand(len(image), 2)
        return inputs

    def forward(self, image: Tensor, valid: Tensor | None = None) -> tuple[Tensor, ...]:
        """Detect objects: (B, 3, H, W) -> boxes (n, 4), scores (n), labels (n), masks (n, rows, columns), images (n).

        Args:
            image: The images.
            valid: Height and width of each image without its padding, (B, 2); boxes end there.
        """
        features = self.model.extract_feat(self.pad(image))
        maps = [*zip(*self.model.rpn_head(features), strict=True)]  # logits and deltas of each level
        found = []
        for i in range(len(image)):
            height, width = image.shape[2:] if valid is None else valid[i]
            limits = torch.stack([image.new_zeros(()) + side for side in (width, height)])
            own = [level[i : i + 1] for level in features]
            rois = self._propose([(logits[i], deltas[i]) for logits, deltas in maps], limits)
            boxes, scores, labels = self._detect(own, rois, limits)
            outputs = dict(boxes=boxes, scores=scores, labels=labels, images=torch.full_like(labels, i))
            if 'masks' in self.outputs:
                outputs['masks'] = self._segment(own, boxes, labels)
            found.append([outputs[name] for name in self.outputs])
        return tuple(map(torch.cat, zip(*found, strict=True)))

    def _propose(self, maps: Sequence[tuple[Tensor, Tensor]], limits: Tensor) -> Tensor:
        """Compute the proposals of the RPN, (n, 4), from logits (A, h, w) and deltas (4·A, h, w) of each level."""
        head, cfg = self.model.rpn_head, self.model.rpn_head.test_cfg
        parts = []
        for level, (logits, deltas) in enumerate(maps):
            size = logits.shape[1], logits.shape[2]
            anchors = head.prior_generator.single_level_grid_priors(size, level, logits.dtype, logits.device)
            logits = logits.permute(1, 2, 0).reshape(-1, head.cls_out_channels)
            scores = logits.sigmoid()[:, 0] if head.use_sigmoid_cls else logits.softmax(dim=1)[:, 0]
            deltas = deltas.permute(1, 2, 0).reshape(-1, 4)
            if cfg.get('nms_pre', -1) > 0:
                scores, best = scores.topk(_smaller(cfg.nms_pre, scores.shape[0]))
                deltas, anchors = deltas[best], anchors[best]
            parts.append((anchors, deltas, scores, torch.full_like(scores, level)))
        anchors, deltas, scores, levels = map(torch.cat, zip(*parts, strict=True))
        boxes = _decode(head.bbox_coder, anchors, deltas, limits)[:, 0]
        if cfg.get('min_bbox_size', -1) >= 0:
            sides = boxes[:, 2:] - boxes[:, :2]
            rows = (sides > cfg.min_bbox_size).all(dim=1).nonzero()[:, 0]
            boxes, scores, levels = boxes[rows], scores[rows], levels[rows]
        return boxes[_keep(boxes, scores, levels, cfg.nms, cfg.max_per_img, limits)]

    def _classify(self, features: Sequence[Tensor], rois: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
        """Compute scores (n, K) and boxes (n, K or 1, 4) of the proposals."""
        head = self.model.roi_head
        stages = [*zip(_stages(head.bbox_roi_extractor), _stages(head.bbox_head), strict=True)]
        total = 0
        for i, (extractor, bbox_head) in enumerate(stages):
            logits, deltas = _run(bbox_head, extractor, features, rois)
            total = total + logits
            boxes = _decode(bbox_head.bbox_coder, rois, deltas, limits)  # (n, K or 1, 4)
            if i + 1 < len(stages):
                rois = _of_class(boxes, logits[:, :-1].argmax(dim=1))
        return (total / len(stages)).softmax(dim=1)[:, :-1], boxes

    def _detect(self, features: Sequence[Tensor], rois: Tensor, limits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute boxes (n, 4), scores (n) and labels (n) of the objects."""
        cfg = self.model.roi_head.test_cfg
        scores, boxes = self._classify(features, rois, limits)
        roi, labels = (scores > cfg.score_thr).nonzero().unbind(1)
        scores = scores.flatten()[roi * scores.shape[1] + labels]
        boxes = _of_class(boxes[roi], labels)
        keep = _keep(boxes, scores, labels, cfg.nms, cfg.max_per_img, limits)
        return boxes[keep], scores[keep], labels[keep]

    def _segment(self, features: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """Compute the mask of each box, (n, rows, columns)."""
        head = self.model.roi_head
        stages = [*zip(_stages(head.mask_roi_extractor), _stages(head.mask_head), strict=True)]
        masks = [_of_class(*_run(mask_head, extractor, features, boxes), labels) for extractor, mask_head in stages]
        return sum(logits.sigmoid() for logits in masks) / len(masks)

    @torch.no_grad()
    def thresholds(self, image: Tensor) -> list[float]:
        """Return a score that hundreds of candidates reach, if it is lower than the model's own, and that one."""
        features = self.model.extract_feat(self.pad(image[:1]))
        maps = [(logits[0], deltas[0]) for logits, deltas in zip(*self.model.rpn_head(features), strict=True)]
        limits = image.new_tensor(image.shape[:1:-1])
        scores = self._classify(features, self._propose(maps, limits), limits)[0].flatten()
        own, low = float(self.settings['score_thr']), float(scores.topk(min(CANDIDATES, len(scores))).values[-1])
        return [low, own] if low < own else [own]

    def set_threshold(self, score: float) -> None:
        """Set the lowest score of objects."""
        self.model.roi_head.test_cfg.score_thr = score

    def reference(self, image: Tensor) -> dict[str, Tensor]:
        """Detect as MMDetection does; masks are (n, H, W), True on the object."""
        from mmdet.structures import DetDataSample

        x = self.pad(self.pad_to_shape(image))
        size, padded = tuple(image.shape[2:]), tuple(x.shape[2:])
        shapes = dict(img_shape=size, ori_shape=size, pad_shape=padded, batch_input_shape=padded)
        samples = [DetDataSample(metainfo=dict(shapes, scale_factor=(1.0, 1.0))) for _ in image]
        found = [sample.pred_instances for sample in self.model.predict(x, samples)]
        for i, objects in enumerate(found):
            objects.images = torch.full_like(objects.labels, i)
        names = {'boxes': 'bboxes'}
        return {name: torch.cat([objects[names.get(name, name)] for objects in found]) for name in self.outputs}


def _stages(part: nn.Module) -> Sequence[nn.Module]:
    """Return the heads of a cascade, or the only one."""
    return part if isinstance(part, nn.ModuleList) else [part]


def _smaller(limit: int, count: int | Tensor) -> int | Tensor:
    """Return the smaller of two numbers; while a tracer records, sizes are tensors."""
    return torch.minimum(torch.tensor(limit), count) if isinstance(count, Tensor) else min(limit, count)


def _of_class(values: Tensor, labels: Tensor) -> Tensor:
    """Return the values of each box's class: (n, K or 1, …), (n) -> (n, …)."""
    if values.shape[1] == 1:
        return values[:, 0]
    index = labels.view(-1, *[1] * (values.dim() - 1)).expand(-1, 1, *values.shape[2:])
    return values.gather(1, index)[:, 0]


def _decode(coder: object, boxes: Tensor, deltas: Tensor, limits: Tensor) -> Tensor:
    """Move boxes (n, 4) by deltas (n, 4·K), and clip them to the image: (n, K, 4)."""
    decoded = delta2bbox(boxes, deltas, coder.means, coder.stds).unflatten(1, (-1, 4))
    return torch.minimum(decoded.clamp(min=0), limits.repeat(2))


def _keep(boxes: Tensor, scores: Tensor, groups: Tensor, cfg: dict, count: int, limits: Tensor) -> Tensor:
    """Return the rows that NMS keeps in each group of boxes, at most ``count``, by falling score."""
    if not cfg.get('class_agnostic', False):
        # Groups far apart do not overlap. The boxes are inside the image.
        boxes = boxes + (groups.to(boxes) * (limits.max() + 1))[:, None]
    kept = nms(boxes, scores, cfg['iou_threshold'])
    # Not argsort: TensorRT sorts at most 3,840 numbers, and thousands of boxes may be kept.
    return kept[scores[kept].topk(_smaller(count, kept.shape[0])).indices]


def _run(head: nn.Module, extractor: nn.Module, features: Sequence[Tensor], boxes: Tensor) -> list[Tensor]:
    """Run a head on the features of boxes, (n, 4); return its outputs, (n, …) each."""
    # With a box more than there are: GroupNorm in onnxruntime fails without any.
    outputs = head(_extract(extractor, features, torch.cat([boxes, boxes.new_ones(1, 4)])))
    return [output[:-1] for output in (outputs if isinstance(outputs, tuple) else [outputs])]


def _extract(extractor: nn.Module, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Pool the features of boxes, each from the level for its size: (n, 4) -> (n, C, rows, columns)."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    last = len(extractor.roi_layers) - 1
    levels = torch.floor(torch.log2(area.sqrt() / extractor.finest_scale + 1e-6)).clamp(0, last)
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
    rows, pooled = [], []
    for level, layer in enumerate(extractor.roi_layers):
        rows.append((levels == level).nonzero()[:, 0])
        settings = layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned
        pooled.append(roi_align(features[level], rois[rows[-1]], *settings))
    return torch.cat(pooled)[torch.cat(rows).argsort()]


def _parts(model: nn.Module) -> Iterator[tuple[str, object, str]]:
    """Yield name, part and the classes whose computation is the one written down here."""
    yield 'model', model, 'MaskRCNN FasterRCNN CascadeRCNN'
    rpn, roi = model.rpn_head, model.roi_head
    yield 'model.rpn_head', rpn, 'RPNHead'
    yield 'model.rpn_head.anchor_generator', rpn.prior_generator, 'AnchorGenerator'
    yield 'model.rpn_head.bbox_coder', rpn.bbox_coder, 'DeltaXYWHBBoxCoder'
    yield 'model.roi_head', roi, 'StandardRoIHead CascadeRoIHead'
    extractors = [*_stages(roi.bbox_roi_extractor)]
    for head in _stages(roi.bbox_head):
        yield 'model.roi_head.bbox_head', head, 'BBoxHead ConvFCBBoxHead Shared2FCBBoxHead Shared4Conv1FCBBoxHead'
        yield 'model.roi_head.bbox_head.bbox_coder', head.bbox_coder, 'DeltaXYWHBBoxCoder'
    if roi.with_mask:
        extractors += _stages(roi.mask_roi_extractor)
        for head in _stages(roi.mask_head):
            yield 'model.roi_head.mask_head', head, 'FCNMaskHead'
    for extractor in extractors:
        yield 'model.roi_head.roi_extractor', extractor, 'SingleRoIExtractor'
        for layer in extractor.roi_layers:
            yield 'model.roi_head.roi_extractor.roi_layer', layer, 'RoIAlign'


def _check(model: nn.Module) -> None:
    """Refuse a detector with other parts, or with settings that change their computation; raises UserError."""
    for name, part, kinds in _parts(model):
        if type(part).__name__ not in kinds.split():
            expected = kinds.replace(' ', ' or ')
            raise UserError(f'{name} of type {type(part).__name__} cannot be exported: it must be {expected}.', ADVICE)
        for setting, value in _SETTINGS.items():
            if getattr(part, setting, value) != value:
                raise UserError(f'{name} cannot be exported unless {setting} is {value}.', ADVICE)
    for name, cfg in (('rpn', model.rpn_head.test_cfg), ('rcnn', model.roi_head.test_cfg)):
        if cfg.max_per_img < 1:
            raise UserError(
                f'model.test_cfg.{name}.max_per_img must be 1 or more, but is {cfg.max_per_img}.',
                f'Set --cfg-options model.test_cfg.{name}.max_per_img=100',
            )
        nms_cfg = dict(cfg.get('nms') or {})
        others = sorted(nms_cfg.keys() - {'type', 'iou_threshold', 'class_agnostic', 'split_thr'})
        if nms_cfg.get('type', 'nms') != 'nms' or others or 'iou_threshold' not in nms_cfg:
            raise UserError(
                f'model.test_cfg.{name}.nms must be plain NMS, but is {nms_cfg}.',
                f'Set --cfg-options model.test_cfg.{name}.nms.type=nms model.test_cfg.{name}.nms.iou_threshold=0.5'
                + (f', and remove {", ".join(others)} from the config.' if others else ''),
            )
