"""Compare an exported file, in its own runtime, with the model in PyTorch."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .formats import ExportedFile
from .programs import Program
from .runtime import paste_masks

# Of the largest entry of an output; a detector's boxes relative to the sides of the image.
TOLERANCE = 1e-4
# Share of the pixels of an image that may fall on the other side of a mask's threshold.
MASK_TOLERANCE = 1e-3
# The sizes to which tracers are shown, and others that they never see; no side of the last is a multiple of 4.
TRACED = (2, 96, 128)
UNSEEN = ((1, 64, 96), (3, 160, 64), (2, 131, 177))
# Images and what the model in PyTorch computes for them, by name.
Reference = tuple[Tensor, dict[str, np.ndarray]]


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
def compute_references(program: Program, sizes: Sequence[tuple[int, int, int]]) -> list[Reference]:
    """Compute the outputs of the model as it is before :meth:`~mmstvit.deployment.programs.Program.simplify`."""
    images = [draw_images(*size, seed=seed) for seed, size in enumerate(sizes)]
    outputs = [(output.numpy() for output in program.reference(image)) for image in images]
    return [(x, dict(zip(program.outputs, y, strict=True))) for x, y in zip(images, outputs, strict=True)]


def find_errors(file: ExportedFile, references: Sequence[Reference]) -> dict[str, float]:
    """Return the largest error of each output; inf for NaN and for other shapes.

    Args:
        file: The file.
        references: What it should compute.
    """
    errors = dict.fromkeys(file.metadata.outputs, 0.0)
    for image, expected in references:
        found = file.run(image.numpy())
        if file.metadata.task == 'detection':
            new = _compare_objects(found, expected, tuple(image.shape[2:]), file.metadata.mask_threshold)
        else:
            new = {name: _largest_error(found[name], array) for name, array in expected.items()}
        errors = {name: max(error, new[name] if new[name] == new[name] else np.inf) for name, error in errors.items()}
    return errors


def allowed_error(name: str) -> float:
    """Return the largest error that is accepted for an output."""
    return MASK_TOLERANCE if name == 'masks' else TOLERANCE


def _largest_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(abs(found - expected).max() / abs(expected).max()) if found.shape == expected.shape else np.inf


def _compare_objects(
    found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], size: tuple[int, int], threshold: float
) -> dict[str, float]:
    """Compare detections in the order of their scores; those of nearly equal score may have changed places."""
    errors = dict.fromkeys(expected, np.inf)
    if any(len(found[name]) != len(values) for name, values in expected.items()):
        return errors
    rows = _match(found, expected)
    difference = abs(found['boxes'][rows] - expected['boxes']) / [*size[::-1], *size[::-1]]
    errors['boxes'] = float(difference.max(initial=0))
    errors['scores'] = float(abs(found['scores'][rows] - expected['scores']).max(initial=0))
    errors['labels'] = float((found['labels'][rows] != expected['labels']).any())
    if 'masks' in expected:
        masks = paste_masks(found['masks'][rows], found['boxes'][rows], size) >= threshold
        errors['masks'] = float((masks != expected['masks']).mean(axis=(1, 2)).max(initial=0))
    return errors


def _match(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return for each expected object the row of the found one of its class whose box is nearest, each row once."""
    left, rows = list(range(len(found['labels']))), []
    for box, label in zip(expected['boxes'], expected['labels'], strict=True):
        distances = [abs(found['boxes'][i] - box).max() + 1e6 * (found['labels'][i] != label) for i in left]
        rows.append(left.pop(int(np.argmin(distances))))
    return np.array(rows, int)
