"""Convert the checkpoint of our classifier to the layout that the authors publish, for their released code.

Example::

    python tools/model_converters/mm_to_stvit.py work_dirs/run/epoch_300.pth stvit-small-mine.pth

The reverse of stvit_to_mm.py: there and back, every weight is the same to the last bit.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from mmstvit.apis import user_errors
from mmstvit.apis.converters import count, summarize, verify_classifier
from mmstvit.checkpoint import convert_official, convert_to_official, is_official
from mmstvit.errors import CheckpointError, prefix_errors
from mmstvit.fileio import check_finite, check_target, find_weights, read_checkpoint, serialize, write_atomically


def check_round_trip(published: dict[str, Tensor], ours: dict[str, Tensor]) -> None:
    """Refuse a conversion that does not lead back to every weight, bit for bit; raises CheckpointError."""
    back = convert_official(published)
    wrong = [key for key in ours if key not in back or not torch.equal(back[key], ours[key])]
    if wrong or len(back) != len(ours):
        raise CheckpointError(f'the conversion does not lead back to the weights, such as {wrong[:3]}.')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', type=Path, help='checkpoint of a classifier: STViT, STViTNeck, LinearClsHead')
    parser.add_argument('dst', type=Path, help='file to write')
    parser.add_argument('--force', action='store_true', help='overwrite the file if it exists')
    args = parser.parse_args()
    with user_errors():
        check_target(args.dst, args.src, args.force)
        content = read_checkpoint(args.src)
        with prefix_errors(args.src):
            ours, where = find_weights(content)
            if is_official(ours):
                raise CheckpointError("the weights are in the release's layout already.")
            published = convert_to_official(ours)
            arch, parts = verify_classifier(ours)
            check_round_trip(published, ours)
        check_finite(ours, args.src)
        data = serialize(dict(model=published))
        sha256 = write_atomically(data, args.dst)
    rows = {
        'read': f'{args.src}, weights: {where}',
        'architecture': f'STViT, {arch}; {count(ours):,} learned parameters in {", ".join(parts)}',
        'mapped': f'all of {len(ours)} tensors',
        'added': f'{len(published) - len(ours)} (attn.unfold.weights, attn.fold.weights: constants of the release)',
        'verified': f'{", ".join(parts)}: strictly loaded; every weight is finite and comes back bit for bit',
        'written': f"{args.dst} ({len(data) / 1e6:.1f} MB), weights under 'model'",
        'sha256': sha256,
    }
    print(summarize(rows))


if __name__ == '__main__':
    main()
