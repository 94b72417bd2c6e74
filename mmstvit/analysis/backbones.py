"""Backbones by name: ours, the published algorithm on our weights, the usual rivals, and those of any config.

A name may carry options: ``stvit-small+with_cp=True+compile``.
"""

import ast
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmstvit.apis import UserError, read_config
from mmstvit.arch import ARCHS, suggest
from mmstvit.dependencies import require_library
from mmstvit.models import STViT

from .published import PublishedSTViT

# The rivals as detectors use them, without stochastic depth: library and arguments. Those that state no `out_indices`
# return four maps by default.
_RIVALS = {
    'swin-tiny': ('mmdet', dict(type='SwinTransformer', embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24))),
    'swin-small': (
        'mmdet',
        dict(type='SwinTransformer', embed_dims=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    ),
    'swin-base': (
        'mmdet',
        dict(type='SwinTransformer', embed_dims=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
    ),
    **{
        f'convnext-{size}': (
            'mmpretrain',
            dict(type='ConvNeXt', arch=size, out_indices=(0, 1, 2, 3), gap_before_final_norm=False),
        )
        for size in ('tiny', 'small', 'base')
    },
    'pvtv2-b2': (
        'mmdet',
        dict(type='PyramidVisionTransformerV2', embed_dims=64, num_layers=(3, 4, 6, 3), mlp_ratios=(8, 8, 4, 4)),
    ),
}
NAMES = [*(f'stvit-{arch}' for arch in ARCHS), *(f'naive-{arch}' for arch in ARCHS), *_RIVALS]
# fp32, or autocast.
DTYPES = ('fp32', 'bf16', 'fp16')


@dataclass(frozen=True)
class Entry:
    """A backbone and how to run it; see :func:`parse_entry`.

    Args:
        text: As it was given, which is also its name in tables.
        name: One of :data:`NAMES`, the path of a config, or ``library::path`` of a library's own config.
        arguments: Arguments of the backbone to set; a dotted key reaches into an argument that is a dict.
        compile: Whether to run it through ``torch.compile``.
        deploy: Whether to call its ``switch_to_deploy()``.
        dtype: ``'fp32'``, ``'bf16'`` or ``'fp16'`` for this one alone; None for that of the run.
    """

    text: str
    name: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    compile: bool = False
    deploy: bool = False
    dtype: str | None = None


def parse_entry(text: str) -> Entry:
    """Read ``NAME[+OPTION…]``.

    An option is ``compile``, ``deploy``, one of :data:`DTYPES` or an argument of the backbone, ``key=value`` with a
    Python literal or else a string: ``stvit-small+with_cp=True``, ``stvit-small+stoken_size=8,4,2,1``.

    Raises:
        UserError: The name is unknown, or an option is none of these.
    """
    name, *options = text.split('+')
    if name.endswith('.py') and '::' not in name:
        if not Path(name).is_file():
            raise UserError(f'{text}: the config file {name} does not exist.')
    elif '::' not in name and name not in NAMES:
        raise UserError(
            f'unknown backbone {name!r}.{suggest(name, NAMES)} Choose from {", ".join(NAMES)}, or give a config: '
            f'CONFIG.py or mmdet::FOLDER/CONFIG.py'
        )
    arguments = {}
    for option in options:
        key, equals, value = option.partition('=')
        if key and equals:
            arguments[key] = _literal(value)
        elif option not in ('compile', 'deploy', *DTYPES):
            raise UserError(
                f'{text}: an option is compile, deploy, {", ".join(DTYPES)} or key=value, but got {option!r}.'
            )
    dtypes = [option for option in options if option in DTYPES]
    if len(dtypes) > 1:
        raise UserError(f'{text}: there can be one of {", ".join(DTYPES)}, but got {", ".join(dtypes)}.')
    return Entry(text, name, arguments, 'compile' in options, 'deploy' in options, *dtypes)


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def build_backbone(entry: Entry) -> nn.Module:
    """Build an entry's backbone with the weights of seed 0; no pretrained weights are read.

    Returns:
        The backbone in training mode, neither compiled nor deployed.

    Raises:
        UserError: The config has no backbone, or the backbone refuses its arguments.
        ImportError: The library that it comes from is missing.
    """
    scope, cfg = _config(entry)
    published = entry.name.startswith('naive-')
    if published and 'with_cp' in entry.arguments:
        raise UserError(f'{entry.text}: the published algorithm here has no with_cp.')
    for key, value in entry.arguments.items():
        _set(entry, cfg, key, value)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        try:
            backbone = MODELS.build(cfg)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise UserError(f'{entry.text} cannot be built: {error}') from error
    return PublishedSTViT(backbone) if published else backbone


def _config(entry: Entry) -> tuple[str, ConfigDict]:
    """The library that an entry's backbone comes from, and the backbone's config."""
    family, _, size = entry.name.partition('-')
    if family in ('stvit', 'naive') and size in ARCHS:
        return 'mmstvit', ConfigDict(type=STViT, arch=asdict(ARCHS[size]))
    if entry.name in _RIVALS:
        scope, arguments = _RIVALS[entry.name]
        require_library(scope)
        return scope, ConfigDict(arguments, drop_path_rate=0.0)
    cfg = _read(entry)
    backbone = cfg.get('model', {}).get('backbone')
    if backbone is None:
        raise UserError(f'{entry.text}: the config has no model.backbone.')
    backbone.pop('init_cfg', None)
    return cfg.default_scope, backbone


def _read(entry: Entry) -> Config:
    if '::' not in entry.name:
        return read_config(entry.name, None)
    library = entry.name.partition('::')[0]
    try:
        require_library(library)
        return get_config(entry.name)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f'{entry.text}: the library has no such config: {error}') from error


def _set(entry: Entry, cfg: ConfigDict, key: str, value: object) -> None:
    *outer, last = key.split('.')
    for name in outer:
        cfg = cfg.get(name)
        if not isinstance(cfg, dict):
            raise UserError(f'{entry.text}: {key} reaches into {name}, which is no dict of the backbone.')
    cfg[last] = value
