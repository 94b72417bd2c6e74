"""An exported file in the place of a model: its outputs become the data elements of the libraries."""

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor, nn

from mmstvit.errors import UserError

from .formats import ExportedFile
from .metadata import Metadata


class ExportedModel(nn.Module):
    """A model whose predictions an exported file computes.

    Args:
        file: The file.

    Raises:
        UserError: It holds a backbone alone.
    """

    def __init__(self, file: ExportedFile) -> None:
        super().__init__()
        self.file, self.metadata = file, file.metadata
        # As models of MMEngine have it; its length is the number of channels.
        self.data_preprocessor = SimpleNamespace(mean=torch.tensor(self.metadata.preprocessing.mean))
        if self.metadata.task == 'features':
            raise UserError(f'{file.path} has only feature maps, and no predictions.', 'Export without --features.')

    @torch.no_grad()
    def test_step(self, data: Mapping) -> list[BaseDataElement]:
        """Predict what a data loader collates: images (3, H, W) in the order of OpenCV, and their samples.

        Raises:
            UserError: The file is for images of another size.
        """
        images = [self.metadata.preprocessing(image.numpy()) for image in data['inputs']]
        together = self.metadata.task != 'detection' and len({image.shape for image in images}) == 1
        groups = [slice(0, len(images))] if together else [slice(i, i + 1) for i in range(len(images))]
        return [
            sample
            for group in groups
            for sample in to_samples(self.file.run(np.stack(images[group])), data['data_samples'][group], self.metadata)
        ]


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
    values = {name: torch.from_numpy(value) for name, value in outputs.items()}
    for i, sample in enumerate(samples):
        if detects:
            sample.pred_instances = _instances(values, sample, metadata.mask_threshold)
        elif metadata.task == 'segmentation':
            sample.set_data(_map_of_classes(values['logits'][i], sample))
        else:
            scores = values['probabilities'][i] if 'probabilities' in values else values['logits'][i].softmax(dim=0)
            sample.set_pred_score(scores).set_pred_label(scores.argmax(dim=0, keepdim=True))
    return samples


def _map_of_classes(logits: Tensor, sample: BaseDataElement) -> dict[str, PixelData]:
    logits = F.interpolate(logits[None], sample.ori_shape[:2], mode='bilinear', align_corners=False)[0]
    return dict(seg_logits=PixelData(data=logits), pred_sem_seg=PixelData(data=logits.argmax(dim=0, keepdim=True)))


def _instances(outputs: Mapping[str, Tensor], sample: BaseDataElement, mask_threshold: float) -> InstanceData:
    boxes = outputs['boxes'] / outputs['boxes'].new_tensor(sample.scale_factor).repeat(2)
    found = InstanceData(bboxes=boxes, scores=outputs['scores'], labels=outputs['labels'])
    if 'masks' in outputs:
        pasted = paste_masks(outputs['masks'].numpy(), boxes.numpy(), sample.ori_shape[:2])
        found.masks = torch.from_numpy(pasted >= mask_threshold)
    return found


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
