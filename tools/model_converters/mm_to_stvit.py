"""Convert the checkpoint of our classifier to the layout of the official implementation.

Example::

    python tools/model_converters/mm_to_stvit.py work_dirs/run/epoch_300.pth stvit-small-mine.pth

The reverse of stvit_to_mm.py. Both directions keep every weight bit for bit.
"""

from typing import TYPE_CHECKING

from mmstvit.command_line import add_paths, make_parser, user_errors
from mmstvit.errors import CheckpointError, prefix_errors

if TYPE_CHECKING:
    from torch import Tensor


def check_round_trip(published: dict[str, 'Tensor'], ours: dict[str, 'Tensor']) -> None:
    """Check that converting back gives every weight bit for bit; raises CheckpointError."""
    from mmstvit.checkpoint import convert_official

    back = convert_official(published)
    wrong = [key for key in ours if key not in back or not back[key].equal(ours[key])]
    if wrong or len(back) != len(ours):
        raise CheckpointError(f'converting back gives other weights (first: {wrong[:3]}). Nothing was written.')


def main() -> None:
    """Convert the checkpoint on the command line."""
    parser = make_parser(__doc__)
    add_paths(parser, 'checkpoint of a classifier: STViT, STViTNeck, LinearClsHead', 'file to write')
    args = parser.parse_args()
    with user_errors():
        from mmstvit.apis.converters import print_summary, verify_classifier, write_checkpoint
        from mmstvit.checkpoint import convert_to_official, is_official
        from mmstvit.fileio import check_target, open_checkpoint

        check_target(args.dst, args.src, args.force)
        checkpoint = open_checkpoint(args.src)
        checkpoint.check_finite()
        ours = checkpoint.weights
        with prefix_errors(args.src):
            if is_official(ours):
                raise CheckpointError('the weights are in the official layout already.', 'Use the file as it is.')
            published = convert_to_official(ours)
            architecture = verify_classifier(ours)
            check_round_trip(published, ours)
        written = write_checkpoint(dict(model=published), args.dst)
    rows = {
        'architecture': architecture,
        'mapped': f'all of {len(ours)} tensors',
        'added': f'{len(published) - len(ours)} (attn.unfold.weights, attn.fold.weights: constants)',
        'verified': 'strictly loaded; every weight is finite and is equal bit for bit when converted back',
        **written,
    }
    print_summary(checkpoint, rows)


if __name__ == '__main__':
    main()
