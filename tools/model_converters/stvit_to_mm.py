"""Convert a published STViT checkpoint to an mmpretrain classifier's, from which every config here can start.

Example::

    python tools/model_converters/stvit_to_mm.py stvit-small-224.pth checkpoints/stvit-small-224_mm.pth

Files for 224² and 384² convert alike: no weight depends on the size of the image. A published file also loads as it is,
wherever a config names a checkpoint; converted, it loads with the libraries' own tools too, and for other channels.
"""

import argparse
from pathlib import Path

from torch import Tensor

from mmstvit.apis import user_errors
from mmstvit.apis.converters import count, summarize, verify_classifier
from mmstvit.checkpoint import (
    adapt_stem,
    backbone_weights,
    convert_official,
    is_inference_form,
    is_official,
    recognise_arch,
)
from mmstvit.errors import CheckpointError, prefix_errors
from mmstvit.fileio import (
    check_finite,
    check_target,
    find_weights,
    plain_meta,
    read_checkpoint,
    serialize,
    write_atomically,
)

STEM = 'backbone.patch_embed.convs.0.weight'


def to_ours(weights: dict[str, Tensor], adapts: bool) -> dict[str, Tensor]:
    """The weights in our layout; those that are already have to have a stem that is to be converted (``adapts``).

    Raises:
        CheckpointError: There is nothing to convert, or there is no STViT in the weights.
    """
    if is_official(weights):
        return convert_official(weights)
    arch = recognise_arch(weights)
    if arch is None:
        raise CheckpointError(
            f'these are no published STViT weights, but {len(weights)} tensors such as {next(iter(weights))!r}.'
        )
    if not adapts:
        raise CheckpointError(
            f'the weights are in our layout already (STViT, {arch}): use the file as it is, or convert it to the '
            f"release's layout with tools/model_converters/mm_to_stvit.py."
        )
    if is_inference_form(weights):
        raise CheckpointError('the weights are those of the inference form: convert the checkpoint of the training.')
    return weights


def provable(weights: dict[str, Tensor], found: dict[str, Tensor]) -> dict[str, Tensor]:
    """What can be loaded strictly: all of a published classifier; of a model of ours, whatever it is, the backbone."""
    if is_official(found):
        return weights
    return {f'backbone.{key}': value for key, value in backbone_weights(weights)[0].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', type=Path, help='published checkpoint, or .safetensors file')
    parser.add_argument('dst', type=Path, help='file to write')
    parser.add_argument('--force', action='store_true', help='overwrite the file if it exists')
    parser.add_argument('--key', help="where in the file the weights are, such as model_ema; found if it isn't said")
    parser.add_argument(
        '--in-channels',
        type=int,
        metavar='N',
        help='convert the stem to images of N channels: 1 (gray) or more than 3 (red, green, blue, others); '
        'also of a file in our layout',
    )
    args = parser.parse_args()
    with user_errors():
        check_target(args.dst, args.src, args.force)
        content = read_checkpoint(args.src)
        with prefix_errors(args.src):
            found, where = find_weights(content, args.key)
            ours = to_ours(found, adapts=args.in_channels is not None)
            converted = ours if args.in_channels is None else adapt_stem(ours, args.in_channels)
            before, after = (provable(weights, found) for weights in (ours, converted))
            arch, parts = verify_classifier(after)
        check_finite(converted, args.src)
        meta, _ = plain_meta(content)  # a published file has none
        data = serialize(dict(dict(meta=meta) if meta else {}, state_dict=converted))
        sha256 = write_atomically(data, args.dst)
    dropped = len(found) - len(converted)
    channels = [weights[STEM].shape[1] for weights in (before, after)]
    rows = {
        'read': f'{args.src}, weights: {where}',
        'architecture': f'STViT, {arch}; {count(after):,} learned parameters in {", ".join(parts)}',
        'mapped': f'{len(converted)} of {len(found)} tensors',
        'dropped by name': f'{dropped} (attn.unfold.weights, attn.fold.weights: constants)' if dropped else 'none',
        'stem': f'for {channels[0]} channels' if args.in_channels is None else '{} → {} channels'.format(*channels),
        'verified': f'{", ".join(parts)}: strictly loaded; every weight is finite',
        'written': f'{args.dst} ({len(data) / 1e6:.1f} MB)',
        'sha256': sha256,
    }
    print(summarize(rows))


if __name__ == '__main__':
    main()
