"""Check one image with its annotations; runs in parallel processes."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import cv2

from mmstvit.datasets.images import MISSING, Reader, UnreadableError
from mmstvit.datasets.segmentation_labels import Values, count_values

from .findings import Problem
from .masks import check_box, check_mask


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
        problems: Faults and warnings.
        digest: Digest of the image file; None if it cannot be read.
        values: Values in the segmentation map, with their numbers of pixels; None without a map.
    """

    problems: list[Problem]
    digest: bytes | None
    values: Values | None = None


def check_sample(sample: Sample) -> Result:
    """Check a sample."""
    problems: list[Problem] = []
    shape, digest = _check_image(sample, problems)
    size = sample.size or shape
    if size:
        for annotation in sample.annotations:
            where = f'annotation {annotation["id"]}: ' if 'id' in annotation else ''
            for kind, message in _check_annotation(annotation, size):
                problems.append(Problem(kind, sample.image, where + message))
    values = None
    if sample.seg_map is not None:
        try:
            labels = sample.seg_reader.read(sample.seg_map).squeeze()
        except UnreadableError as error:
            kind = 'missing file' if str(error) == MISSING else 'unreadable segmentation map'
            problems.append(Problem(kind, sample.seg_map, str(error)))
        else:
            values = count_values(labels)
            if shape is not None and labels.shape[:2] != shape:
                message = f'the map is {_size(labels.shape)}, its image {_size(shape)}'
                problems.append(Problem('wrong segmentation map size', sample.seg_map, message))
    return Result(problems, digest, values)


def _check_image(sample: Sample, problems: list[Problem]) -> tuple[tuple[int, int] | None, bytes | None]:
    """Check the image file; returns its (height, width) and digest."""
    digest = None
    try:
        content = sample.reader.read_bytes(sample.image)
        digest = hashlib.blake2b(content, digest_size=16).digest()
        shape = sample.reader.decode(content).shape[:2]
    except UnreadableError as error:
        kind = 'missing file' if str(error) == MISSING else 'unreadable image'
        problems.append(Problem(kind, sample.image, str(error)))
        return None, digest
    if sample.size and shape != sample.size:
        hint = ', perhaps rotated by its EXIF orientation' if shape == sample.size[::-1] else ''
        message = f'the file is {_size(shape)}, the annotations have {_size(sample.size)}{hint}'
        problems.append(Problem('wrong image size', sample.image, message))
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
