"""Compare an exported file, in its own runtime, with the model in PyTorch."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .formats import ExportedFile
from .metadata import Metadata
from .programs import RESIZED, Program, original_size
from .standalone import paste_masks

# Of the largest entry of an output; a detector's boxes relative to the sides of the image.
TOLERANCE = 1e-4
# Share of the pixels of an image that may fall on the other side of a mask's threshold.
MASK_TOLERANCE = 1e-3
# Fewer objects than these do not tell whether a detector is right.
MIN_OBJECTS = 20
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


def choose_sizes(shape: Sequence[int] | None, batch: int, pads: bool) -> list[tuple[int, int, int]]:
    """Return batch, height and width of the images to compare; the first are those to trace.

    Args:
        shape: Height and width if they are fixed.
        batch: Images if their number is fixed, else 0.
        pads: True if smaller images are padded to the shape.
    """
    if shape and pads:
        height, width = shape
        lower, narrower = max(height * 3 // 4, min(height, 32)), max(width * 2 // 3, min(width, 32))
        sides = shape, (lower, width), (height, narrower), (lower, narrower)
        return [(batch or 2, *size) for size in sides]
    sizes = [(batch or b, *(shape or (height, width))) for b, height, width in (TRACED, *UNSEEN)]
    sizes = [*dict.fromkeys(sizes)]
    return sizes * 2 if len(sizes) == 1 else sizes  # at least two batches of images


@torch.no_grad()
def compute_references(program: Program, sizes: Sequence[tuple[int, int, int]]) -> list[Reference]:
    """Compute the outputs of the model as it is before :meth:`~mmstvit.deployment.programs.Program.simplify`."""
    images = [draw_images(*size, seed=seed) for seed, size in enumerate(sizes)]
    return [(x, {name: output.numpy() for name, output in program.reference(x).items()}) for x in images]


def find_errors(file: ExportedFile, references: Sequence[Reference]) -> tuple[dict[str, float], int]:
    """Return the largest error of each output, inf for NaN and for other shapes, and the number of compared objects.

    Args:
        file: The file.
        references: What it should compute.
    """
    errors, objects = dict.fromkeys(references[0][1], 0.0), 0
    for image, expected in references:
        found = file.run(image.numpy())
        if file.metadata.task == 'detection':
            pairs = [[_of_image(outputs, i) for outputs in (found, expected)] for i in range(len(image))]
            compared = [_compare_objects(*pair, tuple(image.shape[2:]), file.metadata) for pair in pairs]
            objects += sum(count for _, count in compared)
            found_errors = [new for new, _ in compared]
        else:
            if file.metadata.task == 'segmentation':
                size, logits = original_size(image.shape[2:]), torch.from_numpy(found['logits'])
                align_corners = file.metadata.align_corners
                found[RESIZED] = F.interpolate(logits, size, mode='bilinear', align_corners=align_corners).numpy()
            found_errors = [{name: _largest_error(found[name], array) for name, array in expected.items()}]
        for new in found_errors:
            errors |= {name: max(errors[name], error if error == error else np.inf) for name, error in new.items()}
    return errors, objects


def allowed_error(name: str) -> float:
    """Return the largest error that is accepted for an output."""
    return MASK_TOLERANCE if name == 'masks' else TOLERANCE


def _of_image(outputs: Mapping[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    """Return the objects of one image of several."""
    images = outputs.get('images', np.zeros_like(outputs['labels']))
    return {name: values[images == index] for name, values in outputs.items() if name != 'images'}


def _largest_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(abs(found - expected).max() / abs(expected).max()) if found.shape == expected.shape else np.inf


def _compare_objects(
    found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], size: tuple[int, int], metadata: Metadata
) -> tuple[dict[str, float], int]:
    """Compare detections, each with the nearest of its class; return errors and the number of objects.

    An object whose score lies within the tolerance of the lowest that is kept may be missing on one side.
    """
    different = dict.fromkeys(expected, np.inf), 0
    if any(len(values) != len(found['scores']) or not np.isfinite(values).all() for values in found.values()):
        return different
    if 'masks' in found:
        found = {**found, 'masks': paste_masks(found['masks'], found['boxes'], size) >= metadata.mask_threshold}
    full = [x['scores'].min() for x in (found, expected) if len(x['scores']) >= metadata.max_per_img]
    lowest = max([metadata.score_thr, *full]) + TOLERANCE
    errors = dict.fromkeys(expected, 0.0)
    for left, right in ((expected, found), (found, expected)):
        certain = {name: values[left['scores'] > lowest] for name, values in left.items()}
        if len(certain['scores']) > len(right['scores']):
            return different
        rows = _match(right, certain)
        difference = abs(right['boxes'][rows] - certain['boxes']) / [*size[::-1], *size[::-1]]
        new = {
            'boxes': difference.max(initial=0),
            'scores': abs(right['scores'][rows] - certain['scores']).max(initial=0),
            'labels': (right['labels'][rows] != certain['labels']).any(),
        }
        if 'masks' in expected:
            new['masks'] = (right['masks'][rows] != certain['masks']).mean(axis=(1, 2)).max(initial=0)
        errors = {name: max(error, float(new[name])) for name, error in errors.items()}
    return errors, int((expected['scores'] > lowest).sum())


def _match(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return for each expected object the row of the found one of its class whose box is nearest, each row once."""
    left, rows = list(range(len(found['labels']))), []
    for box, label in zip(expected['boxes'], expected['labels'], strict=True):
        distances = abs(found['boxes'][left] - box).max(axis=1) + 1e6 * (found['labels'][left] != label)
        rows.append(left.pop(int(np.argmin(distances))))
    return np.array(rows, int)
