"""The architectures of STViT, and validation of custom ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .errors import suggest

NUM_STAGES = 4


@dataclass(frozen=True)
class Arch:
    """One architecture; every tuple has one entry per stage.

    Args:
        channels: Channels C.
        depths: Blocks.
        num_heads: Attention heads; divides the stage's channels.
        stoken_size: Side of a super token's cell, in tokens; 1 is global self-attention.
        layer_scale_init_value: Initial value of the learned layer scale; 0 means none.
        mlp_ratio: Expansion of the FFN, for all stages.
    """

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    stoken_size: tuple[int, ...] = (8, 4, 1, 1)
    layer_scale_init_value: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    mlp_ratio: float = 4.0


ARCHS = {
    'small': Arch((64, 128, 320, 512), (3, 5, 9, 3), (1, 2, 5, 8)),
    'base': Arch((96, 192, 384, 512), (4, 6, 14, 6), (2, 3, 6, 8), layer_scale_init_value=(0.0, 0.0, 1e-6, 1e-6)),
    'large': Arch((96, 192, 448, 640), (4, 7, 19, 8), (2, 3, 7, 10), layer_scale_init_value=(0.0, 0.0, 1e-6, 1e-6)),
    # Ours, for tests, the demo and first steps on a laptop.
    'nano': Arch((32, 64, 128, 192), (1, 1, 2, 1), (1, 2, 4, 6)),
}

_REQUIRED = ('channels', 'depths', 'num_heads')
_OPTIONAL = ('stoken_size', 'layer_scale_init_value', 'mlp_ratio')


def is_number(value: object, kind: type | tuple[type, ...]) -> bool:
    """Return True if ``value`` is a finite number of that kind; True and False do not count as numbers."""
    return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)


def positive_integer(name: str, value: object) -> int:
    """Return ``value`` if it is a positive integer, else raise a ValueError that names it."""
    if not is_number(value, int) or value < 1:
        raise ValueError(f'{name} must be a positive integer, but got {value!r}.')
    return value


def check_rate(name: str, value: object) -> None:
    """Raise a ValueError unless ``value`` is a drop probability, a number in [0, 1)."""
    if not is_number(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f'{name} must be a number in [0, 1), but got {value!r}.')


def per_stage(name: str, value: object, kind: type | tuple[type, ...], minimum: float) -> tuple:
    """Return ``value`` as a tuple with one checked number per stage, else raise a ValueError."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or len(value) != NUM_STAGES:
        raise ValueError(f'{name} must be a sequence of {NUM_STAGES} numbers, one per stage, but got {value!r}.')
    for i, number in enumerate(value):
        if not is_number(number, kind) or number < minimum:
            what = 'an integer' if kind is int else 'a number'
            raise ValueError(f'{name}[{i}] must be {what} of at least {minimum}, but got {number!r} in {value!r}.')
    return tuple(value)


def resolve_arch(arch: str | Mapping) -> Arch:
    """Look an architecture up by name, or check one given as a dict.

    Args:
        arch: A name of :data:`ARCHS` or a dict with the fields of :class:`Arch`; ``channels``, ``depths`` and
            ``num_heads`` are required.

    Returns:
        The architecture.

    Raises:
        ValueError: The name is unknown, or a field is missing, unknown or out of range.
        TypeError: ``arch`` is neither a string nor a dict.
    """
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise ValueError(
                f'Unknown arch {arch!r} of STViT.{suggest(arch, list(ARCHS))} Choose one of {list(ARCHS)}, or pass a '
                f'dict with {", ".join(_REQUIRED)}.'
            )
        return ARCHS[arch]
    if not isinstance(arch, Mapping):
        raise TypeError(f'arch must be one of {list(ARCHS)} or a dict, but got {type(arch).__name__}: {arch!r}.')

    missing = [key for key in _REQUIRED if key not in arch]
    unknown = [key for key in arch if key not in _REQUIRED + _OPTIONAL]
    if missing or unknown:
        hints = ''.join(suggest(key, _REQUIRED + _OPTIONAL) for key in unknown)
        raise ValueError(
            f'The arch dict must have {list(_REQUIRED)} and may have {list(_OPTIONAL)}; missing: {missing}, '
            f'unknown: {unknown}.{hints}'
        )
    fields = {key: per_stage(f'arch[{key!r}]', arch[key], int, 1) for key in _REQUIRED}
    if 'stoken_size' in arch:
        fields['stoken_size'] = per_stage("arch['stoken_size']", arch['stoken_size'], int, 1)
    if 'layer_scale_init_value' in arch:
        value = arch['layer_scale_init_value']
        fields['layer_scale_init_value'] = per_stage("arch['layer_scale_init_value']", value, (int, float), 0)
    if 'mlp_ratio' in arch:
        ratio = arch['mlp_ratio']
        if not is_number(ratio, (int, float)) or int(min(fields['channels']) * ratio) < 1:
            raise ValueError(
                f"arch['mlp_ratio'] must be a number that leaves every FFN a hidden channel, but got {ratio!r}."
            )
        fields['mlp_ratio'] = float(ratio)
    for i, (channels, heads) in enumerate(zip(fields['channels'], fields['num_heads'], strict=True)):
        if channels % heads:
            raise ValueError(
                f"arch['num_heads'][{i}] = {heads} does not divide arch['channels'][{i}] = {channels}: every head "
                f'needs the same number of channels.'
            )
    if fields['channels'][0] % 2:
        raise ValueError(
            f"arch['channels'][0] must be even (the stem starts with half of it), but got {fields['channels'][0]}."
        )
    return Arch(**fields)
