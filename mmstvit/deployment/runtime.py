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
from .standalone import fit, normalize, paste_masks


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
        self.data_preprocessor = SimpleNamespace(mean=torch.tensor(self.metadata.mean))
        if self.metadata.task == 'features':
            raise UserError(f'{file.path} has only feature maps, and no predictions.', 'Export without --features.')

    @torch.no_grad()
    def test_step(self, data: Mapping) -> list[BaseDataElement]:
        """Predict what a data loader collates: images (3, H, W) in the order of OpenCV, and their samples.

        Images that are larger than a fixed input to which others are padded are reduced.

        Raises:
            UserError: The file is for images of another size.
        """
        images = []
        for image, sample in zip(data['inputs'], data['data_samples'], strict=True):
            image = image.numpy().transpose(1, 2, 0)
            if self.metadata.pads:
                reduced = fit(image, self.metadata.shape)
                if 'scale_factor' in sample:
                    scales = zip(sample.scale_factor, reduced.shape[1::-1], image.shape[1::-1], strict=True)
                    sample.set_metainfo(dict(scale_factor=tuple(old * new / size for old, new, size in scales)))
                image = reduced
            images.append(normalize(image, vars(self.metadata)))
        together = len({image.shape for image in images}) == 1
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
        outputs: Outputs of the file for the images of the samples.
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
            own = {name: value[values['images'] == i] for name, value in values.items()}
            sample.pred_instances = _instances(own, sample, metadata.mask_threshold)
        elif metadata.task == 'segmentation':
            logits, size = values['logits'][i : i + 1], tuple(sample.ori_shape[:2])
            logits = F.interpolate(logits, size, mode='bilinear', align_corners=metadata.align_corners)[0]
            classes = PixelData(data=logits.argmax(dim=0, keepdim=True))
            sample.set_data(dict(seg_logits=PixelData(data=logits), pred_sem_seg=classes))
        else:
            scores = values['probabilities'][i] if 'probabilities' in values else values['logits'][i].softmax(dim=0)
            sample.set_pred_score(scores).set_pred_label(scores.argmax(dim=0, keepdim=True))
    return samples


def _instances(outputs: Mapping[str, Tensor], sample: BaseDataElement, mask_threshold: float) -> InstanceData:
    boxes = outputs['boxes'] / outputs['boxes'].new_tensor(sample.scale_factor).repeat(2)
    found = InstanceData(bboxes=boxes, scores=outputs['scores'], labels=outputs['labels'])
    if 'masks' in outputs:
        pasted = paste_masks(outputs['masks'].numpy(), boxes.numpy(), sample.ori_shape[:2])
        found.masks = torch.from_numpy(pasted >= mask_threshold)
    return found
