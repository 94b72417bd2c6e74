"""Compare an exported file, in its own runtime, with the model in PyTorch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .formats import ExportedFile
from .results import paste_masks
from .wrappers import Exportable

# Of the largest entry of an output; a detector's boxes relative to the sides of the image.
TOLERANCE = 1e-4
# Share of the pixels of an image that may fall on the other side of a mask's threshold.
MASK_TOLERANCE = 1e-3
# The sizes to which tracers are shown, and others that they never see; no side of the last is a multiple of 4.
TRACED = (2, 96, 128)
UNSEEN = ((1, 64, 96), (3, 160, 64), (2, 131, 177))


@dataclass
class Reference:
    """Images and what the model in PyTorch computes for them.

    Args:
        image: Prepared images, (B, 3, H, W).
        outputs: The outputs, by name.
    """

    image: Tensor
    outputs: dict[str, np.ndarray]


def draw_images(batch: int, height: int, width: int, seed: int) -> Tensor:
    """Draw images of soft blobs and noise, (B, 3, H, W); plain noise would give a detector nothing to find."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, 3, -(-height // 16), -(-width // 16), generator=random)
    fine = torch.randn(batch, 3, height, width, generator=random)
    return F.interpolate(coarse, (height, width), mode='nearest') + 0.2 * fine


def choose_sizes(shape: Sequence[int] | None, batch: int | None, batched: bool) -> list[tuple[int, int, int]]:
    """Return batch, height and width of the images to compare; the first are those to trace.

    Args:
        shape: Height and width if they are fixed.
        batch: Images if their number is fixed.
        batched: True if the program takes several images at once.
    """
    sizes = [(b, *(shape or (height, width))) for b, height, width in (TRACED, *UNSEEN)]
    fixed = batch if batched else 1
    sizes = [*dict.fromkeys((fixed or b, height, width) for b, height, width in sizes)]
    return sizes * 2 if len(sizes) == 1 else sizes  # at least two batches of images


@torch.no_grad()
def compute_references(program: Exportable, sizes: Sequence[tuple[int, int, int]]) -> list[Reference]:
    """Compute the outputs of the model as it is before :meth:`Exportable.simplify`."""
    references = []
    for seed, size in enumerate(sizes):
        image = draw_images(*size, seed=seed)
        outputs = [output.numpy() for output in program.reference(image)]
        references.append(Reference(image, dict(zip(program.outputs, outputs, strict=True))))
    return references


def find_errors(file: ExportedFile, references: Sequence[Reference]) -> dict[str, float]:
    """Return the largest error of each output; inf for NaN and for other shapes.

    Args:
        file: The file.
        references: What it should compute.
    """
    errors: dict[str, float] = {}
    compare = _compare_objects if file.metadata.task == 'detection' else _compare_arrays
    for reference in references:
        found = file.run(reference.image.numpy())
        for name, error in compare(found, reference, file.metadata.mask_threshold).items():
            errors[name] = max(errors.get(name, 0.0), error if error == error else np.inf)
    return errors


def allowed_error(name: str) -> float:
    """Return the largest error that is accepted for an output."""
    return MASK_TOLERANCE if name == 'masks' else TOLERANCE


def _compare_arrays(found: Mapping[str, np.ndarray], reference: Reference, _threshold: float) -> dict[str, float]:
    errors = {}
    for name, expected in reference.outputs.items():
        same = found[name].shape == expected.shape
        errors[name] = float(abs(found[name] - expected).max() / abs(expected).max()) if same else np.inf
    return errors


def _compare_objects(found: Mapping[str, np.ndarray], reference: Reference, threshold: float) -> dict[str, float]:
    """Compare detections in the order of their scores; those of nearly equal score may have changed places."""
    expected = reference.outputs
    errors = dict.fromkeys(expected, np.inf)
    if len(found['labels']) != len(expected['labels']):
        return errors
    height, width = reference.image.shape[2:]
    rows = _match(found, expected)
    difference = abs(found['boxes'][rows] - expected['boxes']) / [width, height, width, height]
    errors['boxes'] = float(difference.max(initial=0))
    errors['scores'] = float(abs(found['scores'][rows] - expected['scores']).max(initial=0))
    errors['labels'] = float((found['labels'][rows] != expected['labels']).any())
    if 'masks' in expected:
        masks = paste_masks(found['masks'][rows], found['boxes'][rows], (height, width)) >= threshold
        errors['masks'] = float((masks != expected['masks']).mean(axis=(1, 2)).max(initial=0))
    return errors


def _match(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return for each expected object the row of the found one of its class whose box is nearest, each row once."""
    left, rows = list(range(len(found['labels']))), []
    for box, label in zip(expected['boxes'], expected['labels'], strict=True):
        distances = [abs(found['boxes'][i] - box).max() + 1e6 * (found['labels'][i] != label) for i in left]
        rows.append(left.pop(int(np.argmin(distances))))
    return np.array(rows, int)
