"""Predictions of an exported file as the data elements of the libraries."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from mmstvit.errors import UserError

from .metadata import Metadata


def paste_masks(masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Paste masks of boxes into the image.

    Args:
        masks: Probability of the object at a grid of points in each box, (n, rows, columns).
        boxes: Boxes x1, y1, x2, y2 in pixels of the image, (n, 4).
        size: Height and width of the image.

    Returns:
        Probability of the object at each pixel, (n, height, width); it falls to 0 within half a cell outside the box.
    """
    # Bilinear interpolation is a product with one matrix for the rows and one for the columns.
    down = _weights(boxes[:, 1::2], size[0], masks.shape[1])
    across = _weights(boxes[:, 0::2], size[1], masks.shape[2])
    return down @ masks @ across.transpose(0, 2, 1)


def _weights(spans: np.ndarray, length: int, count: int) -> np.ndarray:
    """Return the weights of ``count`` points of a grid for each pixel of a side, (n, length, count)."""
    start, end = spans.astype(np.float32)[:, :, None].transpose(1, 0, 2)  # (n, 1)
    pixels = np.arange(length, dtype=np.float32) + 0.5
    position = (pixels - start) / np.maximum(end - start, 1e-6) * count - 0.5  # (n, length)
    return np.maximum(1 - abs(position[:, :, None] - np.arange(count, dtype=np.float32)), 0)


def to_samples(
    outputs: Mapping[str, np.ndarray], samples: list[BaseDataElement], metadata: Metadata
) -> list[BaseDataElement]:
    """Put predictions into the samples that a test pipeline made.

    Args:
        outputs: Outputs of the file for the images of the samples; of a detector, for the only one.
        samples: Samples with the sizes of their images before and after the pipeline.
        metadata: Metadata of the file.

    Raises:
        UserError: The metadata name fewer classes than the file predicts.
    """
    detects = metadata.task == 'detection'
    count = outputs['labels'].max(initial=-1) + 1 if detects else next(iter(outputs.values())).shape[1]
    if 0 < len(metadata.classes) < count:
        raise UserError(f'the file predicts {count} classes, but its metadata name {len(metadata.classes)}.')
    convert = {'classification': _classify, 'segmentation': _segment, 'detection': _detect}[metadata.task]
    values = {name: torch.from_numpy(value) for name, value in outputs.items()}
    for i, sample in enumerate(samples):
        convert(values if detects else {k: v[i] for k, v in values.items()}, sample, metadata)
    return samples


def _classify(outputs: Mapping[str, torch.Tensor], sample: BaseDataElement, _metadata: Metadata) -> None:
    scores = outputs['probabilities'] if 'probabilities' in outputs else outputs['logits'].softmax(dim=0)
    sample.set_pred_score(scores).set_pred_label(scores.argmax(dim=0, keepdim=True))


def _segment(outputs: Mapping[str, torch.Tensor], sample: BaseDataElement, _metadata: Metadata) -> None:
    logits = F.interpolate(outputs['logits'][None], sample.ori_shape[:2], mode='bilinear', align_corners=False)[0]
    sample.set_data(
        dict(seg_logits=PixelData(data=logits), pred_sem_seg=PixelData(data=logits.argmax(dim=0, keepdim=True)))
    )


def _detect(outputs: Mapping[str, torch.Tensor], sample: BaseDataElement, metadata: Metadata) -> None:
    boxes = outputs['boxes'] / outputs['boxes'].new_tensor(sample.scale_factor).repeat(2)
    found = InstanceData(bboxes=boxes, scores=outputs['scores'], labels=outputs['labels'])
    if 'masks' in outputs:
        pasted = paste_masks(outputs['masks'].numpy(), boxes.numpy(), sample.ori_shape[:2])
        found.masks = torch.from_numpy(pasted >= metadata.mask_threshold)
    sample.pred_instances = found
