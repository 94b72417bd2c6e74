"""Convert the checkpoint of a training to one for inference, with norms and the like folded into the weights.

Example::

    python tools/model_converters/reparameterize_model.py CONFIG work_dirs/run/epoch_12.pth deployed.pth
    python tools/test.py CONFIG deployed.pth --cfg-options model.backbone.deploy=True

The second command is printed by the first, with what the model needs.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mmstvit.apis import UserError, add_cfg_options, build_model, read_config, user_errors
from mmstvit.checkpoint import convert_official, is_official
from mmstvit.errors import prefix_errors
from mmstvit.fileio import (
    check_finite,
    check_target,
    find_weights,
    plain_meta,
    read_checkpoint,
    serialize,
    write_atomically,
)
from mmstvit.models.deploy import Deployable

TOLERANCE = 1e-5


def find_trained(content: object, path: Path) -> tuple[dict[str, Tensor], str]:
    """The weights of a checkpoint, in our layout, and in words where they were; raises CheckpointError."""
    with prefix_errors(path):
        weights, where = find_weights(content)
        weights = convert_official(weights) if is_official(weights) else weights
    check_finite(weights, path)
    return weights, where


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
        check_target(target, args.checkpoint, args.force)
        model = build_model(read_config(args.config, args.cfg_options)).eval()
        modules = find_deployable(model)
        content = read_checkpoint(args.checkpoint)
        weights, where = find_trained(content, args.checkpoint)
        load_weights(model, weights, args.checkpoint)
        expected = extract_features(model)
        for module in modules.values():
            module.switch_to_deploy()
        error = largest_error(extract_features(model), expected)
        if not error <= TOLERANCE:
            raise UserError(
                f'the inference form disagrees with the trained one: features differ by {error:.2g} of their size, and '
                f'{TOLERANCE:g} is allowed. Nothing was written.'
            )
        # What resumes a training (optimizer, schedules, log) has no use here.
        meta, dropped = plain_meta(content)
        kept = dict(meta=meta) if meta else {}
        write_atomically(serialize(dict(kept, state_dict=model.state_dict())), target)
    print(f'Converted: {args.checkpoint}, weights: {where}')
    if dropped:
        print(f'Left out, being no plain data: {", ".join(dropped)}')
    options = ' '.join(f'model.{name}.deploy=True' for name in modules)
    print(f'{target}: {", ".join(modules)} in the inference form; features differ by {error:.1g} of their size')
    print(f'Use it with: --cfg-options {options}')


if __name__ == '__main__':
    main()
