"""Convert the checkpoint of a training run to deploy form: norms and layer scales are folded into other weights.

Example::

    python tools/model_converters/reparameterize_model.py CONFIG work_dirs/run/epoch_12.pth deployed.pth
    python tools/test.py CONFIG deployed.pth --cfg-options model.backbone.deploy=True

The first command prints the options that the second needs.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmstvit.command_line import add_cfg_options, add_paths, make_parser, user_errors
from mmstvit.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mmstvit.fileio import Checkpoint
    from mmstvit.models.deploy import Deployable

TOLERANCE = 1e-5


def load_strictly(model: 'nn.Module', checkpoint: 'Checkpoint') -> None:
    """Load every weight; raises UserError if one is missing, unexpected or of another shape."""
    from mmstvit.apis.converters import shorten_error
    from mmstvit.fileio import compare

    compare(model, checkpoint, complete=True)  # its messages have remedies
    try:
        model.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        raise UserError(f'{checkpoint.path} does not fit the model of the config: {shorten_error(error)}') from error


def find_deployable(model: 'nn.Module') -> dict[str, 'Deployable']:
    """Return the modules that have a deploy form, by name; raises UserError if there are none in training form."""
    from mmstvit.models.deploy import Deployable

    found = {name: module for name, module in model.named_modules() if isinstance(module, Deployable)}
    if not found:
        raise UserError('the model of the config has neither STViT nor STViTNeck; no other module has a deploy form.')
    for name, module in found.items():
        if module.deploy:
            raise UserError('the config builds the deploy form already.', f'Remove model.{name}.deploy.')
    return found


def extract_features(model: 'nn.Module') -> Sequence['Tensor']:
    """Return features of a random image, after the neck if there is one; odd sides make every padding take part."""
    import torch

    side = getattr(model.backbone, 'img_size', None)  # of the ablations with a position embedding for one size
    size = (side, side) if side else (101, 135)
    image = torch.randn(1, model.backbone.in_channels, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.extract_feat(image)


def largest_error(actual: Sequence['Tensor'], expected: Sequence['Tensor']) -> float:
    """Return the largest difference, relative to the largest entry of its map; inf for NaN."""
    errors = [((a - b).abs().max() / b.abs().max()).item() for a, b in zip(actual, expected, strict=True)]
    return max(error if error == error else float('inf') for error in errors)


def main() -> None:
    """Convert the checkpoint on the command line."""
    parser = make_parser(__doc__)
    parser.add_argument('config', help='config of the training run')
    add_paths(parser, 'checkpoint of the training run', 'file to write')
    add_cfg_options(parser)
    args = parser.parse_args()
    with user_errors():
        from mmstvit.apis import build_model, read_config
        from mmstvit.apis.converters import print_summary, write_checkpoint
        from mmstvit.checkpoint import to_mmstvit
        from mmstvit.fileio import check_target, open_checkpoint, plain_meta, safe_loading

        check_target(args.dst, args.src, args.force)
        model = build_model(read_config(args.config, args.cfg_options)).eval()
        modules = find_deployable(model)
        with safe_loading(convert=to_mmstvit):
            checkpoint = open_checkpoint(args.src)
        checkpoint.check_finite()
        load_strictly(model, checkpoint)
        expected = extract_features(model)
        for module in modules.values():
            module.switch_to_deploy()
        error = largest_error(extract_features(model), expected)
        if not error <= TOLERANCE:
            raise UserError(
                f'the deploy form differs from the training form: its features by {error:.2g} of their largest entry, '
                f'{TOLERANCE:g} is allowed. Nothing was written.'
            )
        # Optimizer, schedules and log only serve to resume the training run.
        meta, dropped = plain_meta(checkpoint)
        kept = dict(meta=meta) if meta else {}
        written = write_checkpoint(dict(kept, state_dict=model.state_dict()), args.dst)
    rows = {
        'in deploy form': ', '.join(modules),
        'left out': ', '.join(dropped) or 'nothing',
        'verified': f'strictly loaded; features differ by {error:.1g} of their largest entry',
        **written,
        'use it with': '--cfg-options ' + ' '.join(f'model.{name}.deploy=True' for name in modules),
    }
    print_summary(checkpoint, rows)


if __name__ == '__main__':
    main()
