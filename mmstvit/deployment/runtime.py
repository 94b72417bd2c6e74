"""An exported file in the place of a model: for predictions, and for the test of its config."""

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import nn

from mmstvit.errors import UserError

from .formats import ExportedFile
from .results import to_samples


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
