"""Image files as the pipeline and the model take them: channels, bits, sizes."""

import copy
import inspect
from collections.abc import Iterator

import numpy as np
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor

from mmstvit.datasets.images import Reader, UnreadableError

from .facts import DatasetFacts, Facts
from .findings import Finding
from .headers import Header, choose_unusual

_KIND = 'channels of images'


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
    """Refuse images that the pipeline cannot take, among the narrowest, the largest, and one of each kind of pixels."""
    for data in facts.datasets:
        errors = [(header, load_inputs(data, header)[1]) for header in _choose_kinds(data, unusual=True)]
        works = not all(error for _, error in errors)  # else it is not the image
        for header, error in errors:
            channels = _decoded_channels(data.image_reader, header.path) if error else None
            unusual = channels not in (None, 1, 3)
            if error and (unusual or (works and channels)):  # another rule finds damaged files
                size = f'{header.size[0]}×{header.size[1]}, {channels} channels of {header.bits} bits'
                yield data.finding('image that the pipeline refuses', [f'{header.path} ({size}): {error}'])
                break


def _choose_kinds(data: DatasetFacts, unusual: bool = False) -> list[Header]:
    """Choose an image of each kind of pixels; the narrowest and the largest one, too."""
    kinds: dict[tuple, Header] = {}
    headers = [header for header in data.headers if not header.error]
    for header in headers:
        kinds.setdefault((header.mode, header.bits), header)
    extreme = choose_unusual([header.size for header in headers]) if unusual else []
    return [*kinds.values(), *(headers[position] for position in dict.fromkeys(extreme))]


def check_channels(facts: Facts) -> Iterator[Finding]:
    """Refuse images whose channels differ from each other, from ``mean``, or from ``in_channels`` of the backbone."""
    means = _find_mean(facts.cfg)
    wanted = _find_in_channels(facts.cfg)
    for data in facts.datasets:
        found: dict[int, str] = {}
        for header in _choose_kinds(data):
            shape, _ = load_inputs(data, header)
            channels = shape[0] if shape else _decoded_channels(data.image_reader, header.path)
            if channels is not None:
                name = f'{header.path} has {channels} channels ({header.mode}, '
                found.setdefault(channels, f'{name}color_type={data.image_reader.color_type!r})')
        yield from _compare_channels(data, found, means, wanted)


def _compare_channels(
    data: DatasetFacts, found: dict[int, str], means: tuple[str, int] | None, wanted: tuple[str, int] | None
) -> Iterator[Finding]:
    """Compare the channels of images, a number and an example for each, with the model."""
    values = [f'{key} has {count} values' for key, count in [means] if count not in (1, *found)] if means else []
    values += [f'{key} is {count}' for key, count in [wanted] if count not in found] if wanted else []
    if len(found) > 1 or (found and values):
        yield data.finding(_KIND, [*found.values(), *values])


def _decoded_channels(reader: Reader, path: str) -> int | None:
    try:
        array = reader.read(path)
    except UnreadableError:
        return None
    return array.shape[2] if array.ndim == 3 else 1


def _find_mean(cfg: Config) -> tuple[str, int] | None:
    """Return key and length of the ``mean`` by which images are normalized."""
    for key, owner in (('model.data_preprocessor', cfg.model), ('data_preprocessor', cfg)):
        node = owner.get('data_preprocessor')
        if node is not None:  # as MMEngine's runner: the second one is used where the model has none
            mean = node.get('mean') if isinstance(node, dict) else None
            return (f'{key}.mean', len(mean)) if isinstance(mean, (list, tuple)) else None
    return None


def _find_in_channels(cfg: Config) -> tuple[str, int] | None:
    """Return key and value of the number of channels that the backbone takes, also if it is a default."""
    backbone = cfg.model.get('backbone')
    if not isinstance(backbone, dict) or 'type' not in backbone:
        return None
    value = backbone.get('in_channels')
    if value is None:
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
            kind = backbone['type']
            try:
                cls = MODELS.get(kind) if isinstance(kind, str) else kind
            except KeyError:  # an unknown type: building the model names it
                cls = None
        parameter = inspect.signature(cls).parameters.get('in_channels') if cls else None
        value = parameter.default if parameter else None
    return ('model.backbone.in_channels', value) if isinstance(value, int) else None


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
