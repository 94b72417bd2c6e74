"""Comparing weights with a module before they are loaded, and saying what happened."""

import dataclasses
import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from .errors import CheckpointError
from .reading import check_finite
from .recognise import measure, recognise_arch

_SHOWN = 3


@dataclasses.dataclass
class Source:
    """Weights and where they come from.

    Args:
        path: File or address.
        weights: Tensors by name.
        where: In words, where in the file they were.
        dropped: Names that were left out on purpose.
    """

    path: str
    weights: dict[str, Tensor]
    where: str = ''
    dropped: Sequence[str] = ()


@dataclasses.dataclass
class LoadReport:
    """What becomes of every weight of a file, and of every weight of the module.

    Args:
        source: The weights.
        loaded: Names that both have, with the same shape.
        missing: Names that the module alone has: these weights stay as they are.
        unexpected: Names that the file alone has: these weights are not used.
        mismatched: Names that both have, with the shapes of file and module: these stay as they are.
    """

    source: Source
    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    def table(self) -> str:
        """A line for each kind, with the number of weights and the names of the first."""
        shapes = [f'{name} (file {_times(a)}, model {_times(b)})' for name, (a, b) in self.mismatched.items()]
        rows = [
            ('weights of', f'{self.source.path}, {self.source.where}' if self.source.where else self.source.path),
            ('loaded', str(len(self.loaded))),
            ('dropped by name', _count(sorted(self.source.dropped, key=lambda name: name.count('.')))),
            ('missing', _count(self.missing)),
            ('unexpected', _count(self.unexpected)),
            ('shape mismatch', _count(shapes)),
        ]
        return '\n'.join(f'{name:<15}  {value}' for name, value in rows)


def _times(shape: tuple[int, ...]) -> str:
    return '×'.join(map(str, shape)) or 'a number'


def _count(names: Sequence[str]) -> str:
    if not names:
        return '0'
    return f'{len(names)}: {", ".join(names[:_SHOWN])}' + (', …' if len(names) > _SHOWN else '')


def load_weights(module: nn.Module, source: Source, complete: bool = False) -> LoadReport:
    """Load what fits into a module, and log what happened as a table.

    Args:
        module: The module, perhaps inside wrappers for several processes or test-time augmentation.
        source: The weights.
        complete: Whether all that the module learns must be there.

    Raises:
        CheckpointError: As :func:`compare`; the module is as it was then.
    """
    report = compare(module, source, complete)
    loaded = OrderedDict((name, source.weights[name]) for name in report.loaded)
    if hasattr(source.weights, '_metadata'):  # versions of the modules that had the weights
        loaded._metadata = source.weights._metadata
    unwrap(module).load_state_dict(loaded, strict=False)
    level = logging.WARNING if report.missing or report.mismatched else logging.INFO
    print_log(report.table(), logger='current', level=level)
    return report


def compare(module: nn.Module, source: Source, complete: bool = False) -> LoadReport:
    """Compare weights with a module without loading them.

    Args:
        module: The module, perhaps inside wrappers.
        source: The weights.
        complete: Whether all that the module learns must be there, as for a test: else it would be of chance.

    Returns:
        What would happen.

    Raises:
        CheckpointError: Nothing matches; an STViT in the module would miss some of its weights, be it for its size or
            its form, or with ``complete`` anything would; or weights have NaN or Inf.
    """
    from mmstvit.models.deploy import Deployable, FormError  # not above: models load checkpoints

    module = unwrap(module)
    own, weights = module.state_dict(), source.weights
    common = [name for name in weights if name in own]
    mismatched = {
        name: (tuple(weights[name].shape), tuple(own[name].shape))
        for name in common
        if weights[name].shape != own[name].shape
    }
    report = LoadReport(
        source=source,
        loaded=[name for name in common if name not in mismatched],
        missing=[name for name in own if name not in weights],
        unexpected=[name for name in weights if name not in own],
        mismatched=mismatched,
    )
    for name, part in module.named_modules():
        if isinstance(part, Deployable):
            try:
                part.check_form(weights, f'{name}.' if name else '')
            except FormError as error:
                raise CheckpointError(f'{source.path}: {error}') from error
    for prefix in _backbones(module):
        _check_backbone(report, own, prefix)
    if not report.loaded:
        raise CheckpointError(
            f'{source.path} has no weight of this model: its keys are like {next(iter(weights), None)!r}, the '
            f"model's like {next(iter(own), None)!r}.{_advice(source)}"
        )
    if complete:
        _check_complete(report, [name for name, _ in module.named_parameters()])
    check_finite({name: weights[name] for name in report.loaded}, source.path)
    return report


def _check_complete(report: LoadReport, learned: list[str]) -> None:
    """Refuse weights that leave a learned one as it was."""
    loaded = set(report.loaded)
    absent = [name for name in learned if name not in loaded]
    if absent:
        raise CheckpointError(
            f'{report.source.path} has only {len(learned) - len(absent)} of the {len(learned)} weights that this model '
            f'learns; it lacks {_count(absent)}. Is it the checkpoint of another config?'
        )


def unwrap(module: nn.Module) -> nn.Module:
    """The model inside wrappers; test-time augmentation inside DistributedDataParallel makes two."""
    while is_model_wrapper(module) or isinstance(module, BaseTTAModel):
        module = module.module
    return module


def _backbones(module: nn.Module) -> Iterator[str]:
    """Prefixes of the STViT in a module."""
    from mmstvit.models.stvit import STViT

    for name, part in module.named_modules():
        if isinstance(part, STViT):
            yield f'{name}.' if name else ''


def _check_backbone(report: LoadReport, own: dict[str, Tensor], prefix: str) -> None:
    """Refuse weights that leave a part of an STViT as it was."""
    source = report.source
    needed = [name for name in own if name.startswith(prefix) and not name.endswith('.num_batches_tracked')]
    loaded = set(report.loaded)
    absent = [name for name in needed if name not in loaded]
    if not absent:
        return
    model = {name: own[name] for name in needed}
    file = {name: tensor for name, tensor in source.weights.items() if name.startswith(prefix)}
    sizes = measure(file), measure(model)
    if None not in sizes:
        # A model may have fewer stages than the file, not more.
        stages = len(sizes[1].depths)
        if (sizes[0].channels[:stages], sizes[0].depths[:stages]) != (sizes[1].channels, sizes[1].depths):
            raise CheckpointError(
                f'{source.path}: this is {_name(file)}; the model is {_name(model)}. Set arch of the backbone to that '
                f'of the file, or take another file.'
            )
    stem = report.mismatched.get(f'{prefix}patch_embed.convs.0.weight')
    if stem is not None and stem[0][1] != stem[1][1]:
        raise CheckpointError(
            f'{source.path} is for images of {stem[0][1]} channels; the model has in_channels={stem[1][1]}. Convert '
            f'the stem: python tools/model_converters/stvit_to_mm.py {source.path} DST --in-channels {stem[1][1]}'
        )
    whose = f'the backbone ({prefix[:-1]})' if prefix else 'the backbone'
    advice = _advice(source) if not set(needed) & loaded else ''
    raise CheckpointError(
        f'{source.path} has only {len(needed) - len(absent)} of the {len(needed)} weights that {whose} needs; it lacks '
        f'{_count(absent)}.{advice}'
    )


def _name(weights: dict[str, Tensor]) -> str:
    arch = recognise_arch(weights)
    return f'an STViT with {arch}' if arch.startswith('channels') else f'STViT-{arch}'


def _advice(source: Source) -> str:
    if any(name.startswith('stages.') for name in source.weights) and measure(source.weights) is not None:
        return (
            " These are weights of a backbone alone: name the file in the model's backbone, init_cfg="
            f"dict(type='Pretrained', checkpoint={source.path!r})."
        )
    return ' Is it for another config?'
