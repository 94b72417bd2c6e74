"""Convert a published STViT checkpoint to that of an mmpretrain classifier, from which every config here can start.

Example::

    python tools/model_converters/stvit_to_mm.py stvit-small-224.pth checkpoints/stvit-small-224_mm.pth

Files for 224² and 384² convert alike: no weight depends on the image size. A published file also loads as it is, as
init_cfg of STViT and in our tools; converted, it loads everywhere, and for other numbers of image channels.
"""

from typing import TYPE_CHECKING

from mmstvit.command_line import add_paths, make_parser, user_errors
from mmstvit.dependencies import tool_command
from mmstvit.errors import CheckpointError, prefix_errors

if TYPE_CHECKING:
    from torch import Tensor

STEM = 'backbone.patch_embed.convs.0.weight'


def to_ours(weights: dict[str, 'Tensor'], adapts: bool) -> dict[str, 'Tensor']:
    """Convert weights to our layout; those in our layout are accepted only to adapt their stem (``adapts``).

    Raises:
        CheckpointError: There is nothing to convert, or the weights have no STViT.
    """
    from mmstvit.checkpoint import check_training_form, convert_official, is_official, recognize_arch

    if is_official(weights):
        return convert_official(weights)
    arch = recognize_arch(weights)
    if arch is None:
        raise CheckpointError(
            f'not published STViT weights: {len(weights)} tensors, the first of which is {next(iter(weights))!r}.'
        )
    if not adapts:
        raise CheckpointError(
            f'the weights are in our layout already (STViT, {arch}).',
            f'Use the file as it is, or convert it to the official layout with: '
            f'{tool_command("model_converters/mm_to_stvit.py")}',
        )
    check_training_form(weights)
    return weights


def verifiable(weights: dict[str, 'Tensor'], found: dict[str, 'Tensor']) -> dict[str, 'Tensor']:
    """Return the weights that can be loaded strictly: those of a published classifier, or the backbone of any model."""
    from mmstvit.checkpoint import backbone_weights, is_official

    if is_official(found):
        return weights
    return {f'backbone.{key}': value for key, value in backbone_weights(weights)[0].items()}


def main() -> None:
    """Convert the checkpoint on the command line."""
    parser = make_parser(__doc__)
    add_paths(parser, 'published checkpoint, or .safetensors file', 'file to write')
    parser.add_argument('--key', help='key of the weights in the file, such as model_ema; found by default')
    parser.add_argument(
        '--in-channels',
        type=int,
        metavar='N',
        help='convert the stem to images of N channels: 1 (gray) or more than 3 (red, green, blue, others); '
        'also for a file in our layout',
    )
    args = parser.parse_args()
    with user_errors():
        from mmstvit.apis.converters import print_summary, verify_classifier, write_checkpoint
        from mmstvit.checkpoint import adapt_stem
        from mmstvit.fileio import check_target, open_checkpoint, plain_meta

        check_target(args.dst, args.src, args.force)
        checkpoint = open_checkpoint(args.src, args.key)
        checkpoint.check_finite()
        found = checkpoint.weights
        with prefix_errors(args.src):
            ours = to_ours(found, adapts=args.in_channels is not None)
            converted = ours if args.in_channels is None else adapt_stem(ours, args.in_channels)
            before, after = (verifiable(weights, found)[STEM].shape[1] for weights in (ours, converted))
            architecture = verify_classifier(verifiable(converted, found))
        meta, _ = plain_meta(checkpoint)  # a published file has none
        written = write_checkpoint(dict(dict(meta=meta) if meta else {}, state_dict=converted), args.dst)
    dropped = len(found) - len(converted)
    rows = {
        'architecture': architecture,
        'mapped': f'{len(converted)} of {len(found)} tensors',
        'dropped by name': f'{dropped} (attn.unfold.weights, attn.fold.weights: constants)' if dropped else 'none',
        'stem': f'for {before} channels' if args.in_channels is None else f'{before} → {after} channels',
        'verified': 'strictly loaded; every weight is finite',
        **written,
    }
    print_summary(checkpoint, rows)


if __name__ == '__main__':
    main()
