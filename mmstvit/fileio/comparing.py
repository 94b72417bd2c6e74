"""Comparing weights with a module before they are loaded, and saying what happened."""

import dataclasses
import logging
from collections import OrderedDict
from collections.abc import Sequence

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from mmstvit.errors import CheckpointError

from .weights import Source, check_finite

_SHOWN = 3


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
        shapes = [
            f'{name} (file {format_shape(a)}, model {format_shape(b)})' for name, (a, b) in self.mismatched.items()
        ]
        rows = [
            ('weights of', f'{self.source.path}, {self.source.where}' if self.source.where else self.source.path),
            ('loaded', str(len(self.loaded))),
            ('dropped by name', count_names(sorted(self.source.dropped, key=lambda name: name.count('.')))),
            ('missing', count_names(self.missing)),
            ('unexpected', count_names(self.unexpected)),
            ('shape mismatch', count_names(shapes)),
        ]
        return '\n'.join(f'{name:<15}  {value}' for name, value in rows)


def format_shape(shape: tuple[int, ...]) -> str:
    return '×'.join(map(str, shape)) or 'a number'


def count_names(names: Sequence[str]) -> str:
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
        if hasattr(part, 'check_weights'):  # a part that knows more about its weights than their shapes
            part.check_weights(report, f'{name}.' if name else '')
    if not report.loaded:
        raise CheckpointError(
            f'{source.path} has no weight of this model: its keys are like {next(iter(weights), None)!r}, the '
            f"model's like {next(iter(own), None)!r}.",
            'Is it the checkpoint of another config?',
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
            f'learns; it lacks {count_names(absent)}. Is it the checkpoint of another config?'
        )


def unwrap(module: nn.Module) -> nn.Module:
    """The model inside wrappers; test-time augmentation inside DistributedDataParallel makes two."""
    while is_model_wrapper(module) or isinstance(module, BaseTTAModel):
        module = module.module
    return module
