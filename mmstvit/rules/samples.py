"""Check one image with its annotations; runs in parallel processes."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2

from mmstvit.datasets.images import MISSING, Reader, UnreadableError
from mmstvit.datasets.label_maps import Values, count_values

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
    """

    image: str
    reader: Reader
    size: tuple[int, int] | None = None
    annotations: list[Mapping] = field(default_factory=list)
    seg_map: str | None = None
    seg_reader: Reader | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """Result of the check of a sample.

    Args:
        places: Faults and warnings.
        digest: Digest of the image file; None if it cannot be read.
        values: Values in the segmentation map, with their numbers of pixels; None without a map.
    """

    places: list[Place]
    digest: bytes | None
    values: Values | None = None


def check_sample(sample: Sample) -> Result:
    """Check a sample."""
    places: list[Place] = []
    shape, digest = _check_image(sample, places)
    size = sample.size or shape
    if size:
        for annotation in sample.annotations:
            where = f'annotation {annotation["id"]}: ' if 'id' in annotation else ''
            for kind, message in _check_annotation(annotation, size):
                places.append(Place(kind, sample.image, where + message))
    values = None
    if sample.seg_map is not None:
        try:
            labels = sample.seg_reader.read(sample.seg_map).squeeze()
        except UnreadableError as error:
            kind = 'missing file' if str(error) == MISSING else 'unreadable segmentation map'
            places.append(Place(kind, sample.seg_map, str(error)))
        else:
            values = count_values(labels)
            if shape is not None and labels.shape[:2] != shape:
                message = f'the map is {_size(labels.shape)}, its image {_size(shape)}'
                places.append(Place('wrong segmentation map size', sample.seg_map, message))
    return Result(places, digest, values)


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


def _size(shape: tuple[int, ...]) -> str:
    return f'{shape[1]}×{shape[0]}'


def use_one_thread() -> None:
    """Turn off OpenCV's threads in a parallel process, which would start one per core."""
    cv2.setNumThreads(0)
