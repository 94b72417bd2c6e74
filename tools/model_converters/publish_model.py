"""Make a file to publish from the checkpoint of a training run: weights and metadata only, with a hash in its name.

Example::

    python tools/model_converters/publish_model.py work_dirs/run/epoch_300.pth stvit-small_in1k.pth

This writes stvit-small_in1k-0123abcd.pth with the first 8 digits of its sha256, which torch.hub can check after a
download (``check_hash=True``). Checkpoints of every OpenMMLab model can be published. The file loads with
``torch.load(path, weights_only=True)``.
"""

import hashlib

from mmstvit.command_line import add_paths, make_parser, user_errors
from mmstvit.errors import CheckpointError


def main() -> None:
    """Publish the checkpoint on the command line."""
    parser = make_parser(__doc__)
    add_paths(parser, 'checkpoint of a training run', 'file to write; the hash is added to its name')
    args = parser.parse_args()
    with user_errors():
        from mmstvit.apis.converters import count_learned, print_summary, write_checkpoint
        from mmstvit.fileio import check_target, open_checkpoint, plain_data, plain_meta, serialize

        if args.dst.is_dir():
            raise CheckpointError(f'{args.dst} is a folder.', f'Name a file, such as {args.dst / args.src.name}.')
        checkpoint = open_checkpoint(args.src)
        checkpoint.check_finite()
        weights = checkpoint.weights
        meta, dropped = plain_meta(checkpoint)
        kept = dict(meta=meta, state_dict=plain_data(weights))
        digest = hashlib.sha256(serialize(kept)).hexdigest()
        target = args.dst.with_name(f'{args.dst.name.removesuffix(".pth")}-{digest[:8]}.pth')
        check_target(target, args.src, args.force)
        written = write_checkpoint(kept, target)
    rows = {
        'kept': f'{len(weights)} tensors ({count_learned(weights):,} parameters), meta: {", ".join(meta) or "none"}',
        'left out': ', '.join(dropped) or 'nothing',
        'verified': 'loads with weights_only=True; every weight is finite',
        **written,
    }
    print_summary(checkpoint, rows)


if __name__ == '__main__':
    main()
