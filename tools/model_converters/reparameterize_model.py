"""Convert the checkpoint of a training to one for inference, with norms and the like folded into the weights.

Example::

    python tools/model_converters/reparameterize_model.py CONFIG work_dirs/run/epoch_12.pth deployed.pth
    python tools/test.py CONFIG deployed.pth --cfg-options model.backbone.deploy=True

The second command is printed by the first, with what the model needs.
"""

import argparse
import os
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from torch import Tensor, nn

from mmstvit.apis import UserError, add_cfg_options, build_model, read_config, user_errors

TOLERANCE = 1e-5


def _no_method(*_: object) -> None:
    """Stands in for ``getattr``, by which the log of a training names its methods, and a harmful file anything."""


_no_method.__module__, _no_method.__name__, _no_method.__qualname__ = 'builtins', 'getattr', 'getattr'


def load_trained(path: Path) -> dict:
    """The content of a checkpoint. Besides tensors, plain containers and MMEngine's log it may hold nothing.

    Raises:
        UserError: It is damaged, holds something else, or no weights.
    """
    multiarray = getattr(np, '_core', None) or np.core
    numbers = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64, bool)]
    arrays = [multiarray.multiarray._reconstruct, multiarray.multiarray.scalar, np.ndarray, np.dtype]
    torch.serialization.add_safe_globals([_no_method, HistoryBuffer, *arrays, *numbers])
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f'{path} is not a checkpoint that can be loaded safely: {reason}') from error
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


def find_deployable(model: nn.Module) -> dict[str, nn.Module]:
    """The outermost modules that have an inference form, by name."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f'{outer}.') for outer in found)
        if hasattr(module, 'switch_to_deploy') and not inside:
            found[name] = module
    if not found:
        raise UserError('no module of the model has an inference form (a method switch_to_deploy).')
    done = [name for name, module in found.items() if getattr(module, 'deploy', False)]
    if done:
        raise UserError(f'the config builds the inference form already: remove model.{done[0]}.deploy.')
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
        if not args.checkpoint.is_file():
            raise UserError(f'the checkpoint {args.checkpoint} does not exist.')
        if target.exists() and not args.force:
            raise UserError(f'{target} exists; choose another name, or overwrite it with --force.')
        if target.exists() and os.path.samefile(target, args.checkpoint):
            raise UserError(f'{target} is the checkpoint of the training, which nothing brings back: choose another.')
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
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + '.partial')
    torch.save(dict(kept, state_dict=model.state_dict()), partial)
    os.replace(partial, target)
    options = ' '.join(f'model.{name}.deploy=True' for name in modules)
    print(f'{target}: {", ".join(modules)} in the inference form; features differ by {error:.1g} of their size')
    print(f'Use it with: --cfg-options {options}')


if __name__ == '__main__':
    main()
