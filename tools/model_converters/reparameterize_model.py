"""Convert the checkpoint of a training to one for inference, with norms and the like folded into the weights.

Example::

    python tools/model_converters/reparameterize_model.py CONFIG work_dirs/run/epoch_12.pth deployed.pth
    python tools/test.py CONFIG deployed.pth --cfg-options model.backbone.deploy=True

The second command is printed by the first, with what the model needs.
"""

import argparse
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmstvit.apis import UserError, add_cfg_options, build_model, load_safely, read_config, user_errors
from mmstvit.models.deploy import Deployable

TOLERANCE = 1e-5


def _named(name: str, function: Callable) -> Callable:
    """``function``, to be called by a file that asks for ``name``."""

    def stand_in(*args: object) -> object:
        return function(*args)

    stand_in.__module__, _, stand_in.__name__ = name.rpartition('.')
    stand_in.__qualname__ = stand_in.__name__
    return stand_in


def load_trained(path: Path) -> dict:
    """The content of a checkpoint. Besides tensors, plain containers and MMEngine's log it may hold nothing.

    Raises:
        UserError: It is damaged, holds something else, or no weights.
    """
    # The log goes no further, so it need not be one: MMEngine's class would take its methods from the file, which names
    # them by getattr, as a harmful file may name anything.
    log = type('HistoryBuffer', (), dict(__module__='mmengine.logging.history_buffer'))
    numbers = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64, bool)]
    allowed = [log, _named('builtins.getattr', lambda *_: None), np.ndarray, np.dtype, *numbers]
    for package in ('numpy._core', 'numpy.core'):  # of numpy 2, of numpy 1; the log may come from either
        for array in (np.empty(0), np.float64()):
            function = array.__reduce__()[0]
            allowed.append(_named(f'{package}.multiarray.{function.__name__}', function))
    content = load_safely(path, allowed)
    if not isinstance(content, dict) or not isinstance(content.get('state_dict', content), dict):
        raise UserError(f'{path} holds {type(content).__name__}, not a checkpoint (a dict with state_dict).')
    return content if 'state_dict' in content else dict(state_dict=content)


def load_weights(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Load every weight; raises UserError if one is missing, left over or of another shape."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error) if len(str(error)) < 1000 else f'{str(error)[:1000]} …'  # it lists all of the keys
        raise UserError(f'{path} does not fit the model of the config: {reason}') from error


def find_deployable(model: nn.Module) -> dict[str, Deployable]:
    """The modules of a model that have an inference form, by name; raises UserError if none is to be changed."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, Deployable)}
    if not found:
        raise UserError('the model of the config has neither STViT nor STViTNeck, which alone have an inference form.')
    for name, module in found.items():
        if module.deploy:
            raise UserError(f'the config builds the inference form already: remove model.{name}.deploy.')
    return found


@torch.no_grad()
def extract_features(model: nn.Module) -> Sequence[Tensor]:
    """Features of a random image, after the neck if there is one. Its sides are odd: every padding takes part."""
    image = torch.randn(1, model.backbone.in_channels, 101, 135, generator=torch.Generator().manual_seed(0))
    return model.extract_feat(image)


def largest_error(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference, as a share of the largest entry of its map; inf for what is not a number."""
    errors = [((a - b).abs().max() / b.abs().max()).item() for a, b in zip(actual, expected, strict=True)]
    return max(error if error == error else float('inf') for error in errors)


def write(content: dict, path: Path) -> None:
    """Write a checkpoint, whole or not at all; raises UserError if that is impossible."""
    buffer = io.BytesIO()  # writing straight to a full disk, torch.save raises an error that does not say so
    torch.save(content, buffer)
    partial = path.with_name(path.name + '.partial')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(buffer.getbuffer())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error}') from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the training')
    parser.add_argument('checkpoint', type=Path, help='checkpoint of the training')
    parser.add_argument('save_path', type=Path, help='file to write')
    parser.add_argument('--force', action='store_true', help='overwrite the file if it exists')
    add_cfg_options(parser)
    args = parser.parse_args()
    target = args.save_path
    with user_errors():
        if target.exists():
            if args.checkpoint.exists() and os.path.samefile(target, args.checkpoint):
                raise UserError(
                    f"{target} is the training's checkpoint, which nothing brings back; choose another name."
                )
            if not args.force:
                raise UserError(f'{target} exists; choose another name, or overwrite it with --force.')
        model = build_model(read_config(args.config, args.cfg_options)).eval()
        modules = find_deployable(model)
        content = load_trained(args.checkpoint)
        load_weights(model, content['state_dict'], args.checkpoint)
        expected = extract_features(model)
        for module in modules.values():
            module.switch_to_deploy()
        error = largest_error(extract_features(model), expected)
        if not error <= TOLERANCE:
            raise UserError(
                f'the inference form disagrees with the trained one: features differ by {error:.2g} of their size, and '
                f'{TOLERANCE:g} is allowed. Nothing was written. Are all weights of {args.checkpoint} finite?'
            )
        # What resumes a training (optimizer, schedules, log) has no use here.
        kept = dict(meta=content['meta']) if 'meta' in content else {}
        write(dict(kept, state_dict=model.state_dict()), target)
    if 'ema_state_dict' in content:
        print('Converted: the averaged weights (EMA), which MMEngine keeps under state_dict and evaluates.')
    options = ' '.join(f'model.{name}.deploy=True' for name in modules)
    print(f'{target}: {", ".join(modules)} in the inference form; features differ by {error:.1g} of their size')
    print(f'Use it with: --cfg-options {options}')


if __name__ == '__main__':
    main()
