"""Image files as the pipeline and the model take them: channels, bits, sizes."""

import copy
from collections.abc import Iterator

import numpy as np
from torch import Tensor

from mmstvit.datasets.images import Reader, UnreadableError

from .facts import DatasetFacts, Facts
from .findings import Finding
from .headers import Header, choose_unusual


def load_inputs(data: DatasetFacts, header: Header) -> tuple[tuple[int, int, int] | None, str]:
    """Run the pipeline of a dataset on one image.

    Returns:
        Shape (C, H, W), None if it is unknown; and the error that the pipeline raised, else empty.
    """
    try:
        results = data.pipeline(copy.deepcopy(header.info))
    except Exception as error:  # transforms raise anything
        return None, f'{type(error).__name__}: {" ".join(str(error).split()).rstrip(".")}'
    inputs = results.get('inputs') if isinstance(results, dict) else None
    return (tuple(inputs.shape) if isinstance(inputs, Tensor) and inputs.ndim == 3 else None), ''


def check_pipeline(facts: Facts) -> Iterator[Finding]:
    """Refuse images that the pipeline cannot take, or that have other channels after it than the rest.

    Looked at are the narrowest image, the largest one, and one of each kind of pixels.
    """
    for data in facts.datasets:
        loaded = [(header, *load_inputs(data, header)) for header in _choose_kinds(data)]
        works = not all(error for *_, error in loaded)  # else it is not the image
        refused, channels = [], {}
        for header, shape, error in loaded:
            count = shape[0] if shape else _decoded_channels(data.image_reader, header.path)
            pixels = f'{header.path} ({header.size[0]}×{header.size[1]}, {count} channels of {header.bits} bits)'
            if error and (count not in (None, 1, 3) or (works and count)):  # another rule finds damaged files
                refused.append(f'{pixels}: {error}')
            if count:
                channels.setdefault(count, f'{pixels}, color_type={data.image_reader.color_type!r}')
        if refused:
            yield data.finding('image that the pipeline refuses', refused)
        if len(channels) > 1:
            yield data.finding('channels of images', [*channels.values()])


def _choose_kinds(data: DatasetFacts) -> list[Header]:
    """Choose an image of each kind of pixels, the narrowest and the largest one."""
    kinds: dict[tuple, Header] = {}
    headers = [header for header in data.headers if not header.error]
    for header in headers:
        kinds.setdefault((header.mode, header.bits), header)
    extreme = [headers[position] for position in choose_unusual([header.size for header in headers])]
    return [*{header.path: header for header in [*kinds.values(), *extreme]}.values()]


def _decoded_channels(reader: Reader, path: str) -> int | None:
    try:
        array = reader.read(path)
    except UnreadableError:
        return None
    return array.shape[2] if array.ndim == 3 else 1


def check_pages(facts: Facts) -> Iterator[Finding]:
    """Warn of TIFF files of several pages, of which the libraries read the first."""
    for data in facts.datasets:
        several = [f'{header.path} has several pages' for header in data.headers if header.has_pages]
        if several:
            yield data.finding('pages that are not read', several, total=len(data.headers))


def check_bits(facts: Facts) -> Iterator[Finding]:
    """Warn of 16-bit files with few bits in use, which decoders of 8 bits make black."""
    for data in facts.datasets:
        deep = [header.path for header in data.headers if header.bits > 8][:12]
        dark = [path for path in deep if _is_black(data.image_reader, path)]
        if dark:
            yield data.finding('black 16-bit image', dark, total=len(deep))


def _is_black(reader: Reader, path: str) -> bool:
    try:
        array = reader.read(path)
    except UnreadableError:
        return False
    return array.dtype == np.uint8 and int(array.max()) < 16
