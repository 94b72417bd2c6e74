"""One image with its annotations: what the parallel processes look at."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np

from ..pipeline import Loader
from ..reading import UnreadableError, decode, read_bytes
from .faults import Fault
from .masks import check_box, check_mask


@dataclass(frozen=True)
class Reader:
    """How a pipeline reads a file; see :func:`mmstvit.datasets.reading.decode`."""

    flag: str
    backend: str | None
    backend_args: dict | None = None

    @classmethod
    def of(cls, loader: Loader) -> 'Reader':
        """Of a transform that reads images or maps."""
        return cls(getattr(loader, 'color_type', 'unchanged'), loader.imdecode_backend, loader.backend_args)


@dataclass(frozen=True, slots=True)
class Sample:
    """What is to be looked at.

    Args:
        image: Path.
        reader: How it is read.
        size: (height, width) as the annotations have it; None if they do not say.
        annotations: Raw COCO annotations.
        with_mask: Whether every annotation that is no crowd must have a mask.
        seg_map: Path of the segmentation map.
        seg_reader: How that is read.
        labels: Allowed in the map, as they are in the file.
        ignored: Those of them that are not learned.
    """

    image: str
    reader: Reader
    size: tuple[int, int] | None = None
    annotations: list[Mapping] = field(default_factory=list)
    with_mask: bool = False
    seg_map: str | None = None
    seg_reader: Reader | None = None
    labels: frozenset[int] = frozenset()
    ignored: frozenset[int] = frozenset()


def check_sample(sample: Sample) -> tuple[list[Fault], bytes | None]:
    """Its faults, and a digest of the image's content (None if that cannot be read)."""
    faults: list[Fault] = []
    shape, digest = _check_image(sample, faults)
    size = sample.size or shape
    if size:
        for annotation in sample.annotations:
            where = f'annotation {annotation["id"]}: ' if 'id' in annotation else ''
            for kind, message in _check_annotation(annotation, size, sample.with_mask):
                faults.append(Fault(kind, sample.image, where + message))
    if sample.seg_map is not None:
        faults.extend(_check_seg_map(sample, shape))
    return faults, digest


def _check_image(sample: Sample, faults: list[Fault]) -> tuple[tuple[int, int] | None, bytes | None]:
    """(height, width) of the image and the digest of its content."""
    digest = None
    try:
        content = read_bytes(sample.image, sample.reader.backend_args)
        digest = hashlib.blake2b(content, digest_size=16).digest()
        shape = decode(content, sample.reader.flag, sample.reader.backend).shape[:2]
    except UnreadableError as error:
        faults.append(Fault('unreadable image', sample.image, str(error)))
        return None, digest
    if sample.size and shape != sample.size:
        hint = ': turned by its EXIF orientation?' if shape == sample.size[::-1] else ''
        message = f'{_size(shape)} in the file, {_size(sample.size)} in the annotations{hint}'
        faults.append(Fault('wrong image size', sample.image, message))
    return shape, digest


def _check_annotation(annotation: Mapping, size: tuple[int, int], with_mask: bool) -> Iterator[tuple[str, str]]:
    yield from check_box(annotation.get('bbox'), *size)
    area = annotation.get('area', 1)
    if not isinstance(area, (int, float)) or not area > 0:
        yield 'empty area', f'area is {area!r}; MMDetection drops it'
    mask = annotation.get('segmentation')
    if mask:
        yield from check_mask(mask, *size)
    elif with_mask:
        yield 'no mask', 'it has no segmentation, which the pipeline (with_mask=True) needs'


def _check_seg_map(sample: Sample, shape: tuple[int, int] | None) -> Iterator[Fault]:
    path, reader = sample.seg_map, sample.seg_reader
    try:
        labels = decode(read_bytes(path, reader.backend_args), reader.flag, reader.backend).squeeze()
    except UnreadableError as error:
        yield Fault('unreadable segmentation map', path, str(error))
        return
    if labels.ndim != 2:
        message = f'it has {labels.shape[-1]} channels; a map of labels has one (a palette is fine, colours are not)'
        yield Fault('bad segmentation map', path, message)
        return
    if shape is not None and labels.shape != shape:
        message = f'{_size(labels.shape)}, but its image has {_size(shape)}'
        yield Fault('wrong segmentation map size', path, message)
    values, counts = np.unique(labels, return_counts=True)
    bad = {int(v): int(n) for v, n in zip(values, counts, strict=True) if int(v) not in sample.labels}
    if bad:
        found = ', '.join(f'{value} ({count} pixels)' for value, count in list(bad.items())[:5])
        more = ', …' if len(bad) > 5 else ''
        yield Fault('label out of range', path, f'{found}{more}; allowed are {_ranges(sample.labels)}')
    if set(values.tolist()) <= sample.ignored:
        yield Fault('nothing labelled', path, 'every pixel is ignored', warning=True)


def _size(shape: tuple[int, ...]) -> str:
    return f'{shape[1]}×{shape[0]}'


def _ranges(values: frozenset[int]) -> str:
    """Whole numbers in words: ``0 to 5 and 255``."""
    ordered = sorted(values)
    starts = [v for v in ordered if v - 1 not in values]
    ends = [v for v in ordered if v + 1 not in values]
    return ' and '.join(
        str(start) if start == end else f'{start} to {end}' for start, end in zip(starts, ends, strict=True)
    )


def use_one_thread() -> None:
    """For each of the parallel processes, which would otherwise start as many threads as there are cores."""
    cv2.setNumThreads(0)
