"""Compare weights with a module, load those that fit, and report the rest."""

import dataclasses
import logging
from collections import OrderedDict
from collections.abc import Sequence

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from mmstvit.errors import CheckpointError, one_line

from .weights import Checkpoint

_SHOWN = 3
OTHER_CONFIG = 'Check that the checkpoint belongs to this config.'


@dataclasses.dataclass
class LoadReport:
    """Result of comparing the weights of a file with those of a module.

    Args:
        source: The checkpoint.
        loaded: Names in both, with the same shape.
        missing: Names in the module only; these weights keep their values.
        unexpected: Names in the file only; these weights are not used.
        mismatched: Names in both with different shapes, those of file and module; these weights keep their values.
    """

    source: Checkpoint
    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    def table(self) -> str:
        """Return a line for each kind of weights, with their number and the first names."""
        shapes = [
            f'{name} (file {_format_shape(a)}, model {_format_shape(b)})' for name, (a, b) in self.mismatched.items()
        ]
        rows = [
            ('weights of', f'{self.source.path}, {self.source.where}' if self.source.where else self.source.path),
            ('loaded', str(len(self.loaded))),
            ('dropped by name', _count(sorted(self.source.dropped, key=lambda name: name.count('.')))),
            ('missing', _count(self.missing)),
            ('unexpected', _count(self.unexpected)),
            ('shape mismatch', _count(shapes)),
        ]
        return '\n'.join(f'{name:<15}  {one_line(value)}' for name, value in rows)


def _format_shape(shape: tuple[int, ...]) -> str:
    """Return a shape as ``7×24``."""
    return '×'.join(map(str, shape)) or 'scalar'


def _count(names: Sequence[str]) -> str:
    """Return the number of names and the first of them."""
    if not names:
        return '0'
    return f'{len(names)}: {", ".join(names[:_SHOWN])}' + (', …' if len(names) > _SHOWN else '')


def load_weights(module: nn.Module, source: Checkpoint, complete: bool = False) -> LoadReport:
    """Load the weights that fit into a module, and log the result as a table.

    Args:
        module: The module; wrappers for several processes or test-time augmentation are removed.
        source: The checkpoint.
        complete: Require every parameter of the module.

    Raises:
        CheckpointError: As for :func:`compare`; the module is unchanged then.
    """
    report = compare(module, source, complete)
    loaded = OrderedDict((name, source.weights[name]) for name in report.loaded)
    if hasattr(source.weights, '_metadata'):  # versions of modules
        loaded._metadata = source.weights._metadata
    unwrap(module).load_state_dict(loaded, strict=False)
    level = logging.WARNING if report.missing or report.mismatched else logging.INFO
    print_log(report.table(), logger='current', level=level)
    return report


def compare(module: nn.Module, source: Checkpoint, complete: bool = False) -> LoadReport:
    """Compare weights with a module without loading them.

    Args:
        module: The module; wrappers are removed.
        source: The checkpoint.
        complete: Require every parameter of the module, as a test does.

    Returns:
        What loading would do.

    Raises:
        CheckpointError: Nothing matches; a part of the module refuses the weights (``check_weights``); parameters are
            missing although ``complete`` is set; or weights have NaN or Inf.
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
        if hasattr(part, 'check_weights'):
            part.check_weights(report, f'{name}.' if name else '')
    if not report.loaded:
        raise CheckpointError(
            f'{source.path} has no weight of this model: its keys are like {next(iter(weights), None)!r}, those of the '
            f'model like {next(iter(own), None)!r}.',
            OTHER_CONFIG,
        )
    learned, loaded = [name for name, _ in module.named_parameters()], set(report.loaded)
    absent = [name for name in learned if name not in loaded]
    if complete and absent:
        raise CheckpointError(
            f'{source.path} is missing {len(absent)} of {len(learned)} parameters of this model (first: '
            f'{", ".join(absent[:_SHOWN])}).',
            OTHER_CONFIG,
        )
    source.check_finite(report.loaded)
    return report


def unwrap(module: nn.Module) -> nn.Module:
    """Return the model inside wrappers: DistributedDataParallel, test-time augmentation, or both."""
    while is_model_wrapper(module) or isinstance(module, BaseTTAModel):
        module = module.module
    return module
