"""Check one image with its annotations; runs in parallel processes."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np

from mmstvit.datasets.images import MISSING, Reader, UnreadableError

from .masks import check_box, check_mask


class Place(NamedTuple):
    """A fault or warning at one place: its kind, the file, and the message."""

    kind: str
    path: str
    message: str


@dataclass(frozen=True, slots=True)
class Sample:
    """An image and its annotations, to be checked.

    Args:
        image: Path of the image.
        reader: How the pipeline reads it.
        size: (height, width) in the annotations; None if they do not have it.
        annotations: COCO annotations.
        seg_map: Path of the segmentation map, if any.
        seg_reader: How the pipeline reads it.
        labels: Allowed labels in the map, as they are in the file.
        ignored: Those of ``labels`` that the model ignores.
    """

    image: str
    reader: Reader
    size: tuple[int, int] | None = None
    annotations: list[Mapping] = field(default_factory=list)
    seg_map: str | None = None
    seg_reader: Reader | None = None
    labels: frozenset[int] = frozenset()
    ignored: frozenset[int] = frozenset()


def check_sample(sample: Sample) -> tuple[list[Place], bytes | None]:
    """Check a sample; returns what it finds and a digest of the image file (None if it cannot be read)."""
    findings: list[Place] = []
    shape, digest = _check_image(sample, findings)
    size = sample.size or shape
    if size:
        for annotation in sample.annotations:
            where = f'annotation {annotation["id"]}: ' if 'id' in annotation else ''
            for kind, message in _check_annotation(annotation, size):
                findings.append(Place(kind, sample.image, where + message))
    if sample.seg_map is not None:
        findings.extend(_check_seg_map(sample, shape))
    return findings, digest


def _check_image(sample: Sample, findings: list[Place]) -> tuple[tuple[int, int] | None, bytes | None]:
    """Check the image file; returns its (height, width) and digest."""
    digest = None
    try:
        content = sample.reader.read_bytes(sample.image)
        digest = hashlib.blake2b(content, digest_size=16).digest()
        shape = sample.reader.decode(content).shape[:2]
    except UnreadableError as error:
        kind = 'missing file' if str(error) == MISSING else 'unreadable image'
        findings.append(Place(kind, sample.image, str(error)))
        return None, digest
    if sample.size and shape != sample.size:
        hint = ', perhaps rotated by its EXIF orientation' if shape == sample.size[::-1] else ''
        message = f'the file is {_size(shape)}, the annotations have {_size(sample.size)}{hint}'
        findings.append(Place('wrong image size', sample.image, message))
    return shape, digest


def _check_annotation(annotation: Mapping, size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    yield from check_box(annotation['bbox'], *size)
    if annotation.get('segmentation'):  # another rule finds those without
        yield from check_mask(annotation['segmentation'], *size)


def _check_seg_map(sample: Sample, shape: tuple[int, int] | None) -> Iterator[Place]:
    path = sample.seg_map
    try:
        labels = sample.seg_reader.read(path).squeeze()
    except UnreadableError as error:
        kind = 'missing file' if str(error) == MISSING else 'unreadable segmentation map'
        yield Place(kind, path, str(error))
        return
    if labels.ndim != 2:
        yield Place('invalid segmentation map', path, f'the file has {labels.shape[-1]} channels, expected 1 (labels)')
        return
    if shape is not None and labels.shape != shape:
        message = f'the map is {_size(labels.shape)}, its image {_size(shape)}'
        yield Place('wrong segmentation map size', path, message)
    values, counts = np.unique(labels, return_counts=True)
    bad = {int(v): int(n) for v, n in zip(values, counts, strict=True) if int(v) not in sample.labels}
    if bad:
        found = ', '.join(f'{value} ({count} pixels)' for value, count in list(bad.items())[:5])
        more = ', …' if len(bad) > 5 else ''
        message = f'labels {found}{more}; allowed are {_ranges(sample.labels)}'
        yield Place('label out of range', path, message)
    if set(values.tolist()) <= sample.ignored:
        yield Place('nothing labeled', path, 'every pixel is ignored')


def _size(shape: tuple[int, ...]) -> str:
    return f'{shape[1]}×{shape[0]}'


def _ranges(values: frozenset[int]) -> str:
    """Write integers as ranges: ``0 to 5 and 255``."""
    ordered = sorted(values)
    starts = [v for v in ordered if v - 1 not in values]
    ends = [v for v in ordered if v + 1 not in values]
    return ' and '.join(
        str(start) if start == end else f'{start} to {end}' for start, end in zip(starts, ends, strict=True)
    )


def use_one_thread() -> None:
    """Turn off OpenCV's threads in a parallel process, which would start one per core."""
    cv2.setNumThreads(0)
