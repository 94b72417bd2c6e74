"""Make of a training's checkpoint a file to publish: weights and description alone, with its hash in its name.

Example::

    python tools/model_converters/publish_model.py work_dirs/run/epoch_300.pth stvit-small_in1k.pth

This writes stvit-small_in1k-0123abcd.pth with the first 8 digits of its sha256, which torch.hub can check after a
download (``check_hash=True``). Every model of the OpenMMLab libraries can be published, and anyone loads the file with
``torch.load(path, weights_only=True)``.
"""

import argparse
import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from mmstvit.apis import user_errors
from mmstvit.apis.converters import count, summarize
from mmstvit.errors import CheckpointError, prefix_errors
from mmstvit.fileio import (
    check_finite,
    check_target,
    find_weights,
    plain_data,
    plain_meta,
    read_checkpoint,
    serialize,
    write_atomically,
)


def left_out(content: Mapping, weights: Mapping[str, Tensor]) -> list[str]:
    """What a file holds beside its description and these weights: optimizer, schedules, log, other weights."""
    kept = {id(value) for value in weights.values()}

    def is_kept(value: object) -> bool:
        return id(value) in kept or (isinstance(value, Mapping) and any(id(item) in kept for item in value.values()))

    return [str(name) for name, value in content.items() if name != 'meta' and not is_kept(value)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', type=Path, help='checkpoint of a training')
    parser.add_argument('dst', type=Path, help='file to write; the hash is put into its name')
    parser.add_argument('--force', action='store_true', help='overwrite the file if it exists')
    args = parser.parse_args()
    with user_errors():
        if args.dst.is_dir():
            raise CheckpointError(f'{args.dst} is a folder; name a file, such as {args.dst / args.src.name}.')
        content = read_checkpoint(args.src)
        with prefix_errors(args.src):
            weights, where = find_weights(content)
        check_finite(weights, args.src)
        meta, dropped = plain_meta(content)
        data = serialize(dict(meta=meta, state_dict=plain_data(weights)))
        digest = hashlib.sha256(data).hexdigest()
        target = args.dst.with_name(f'{args.dst.name.removesuffix(".pth")}-{digest[:8]}.pth')
        check_target(target, args.src, args.force)
        write_atomically(data, target)
    rows = {
        'read': f'{args.src}, weights: {where}',
        'kept': f'{len(weights)} tensors ({count(weights):,} learned parameters), meta: {", ".join(meta) or "none"}',
        'left out': ', '.join([*left_out(content, weights), *dropped]) or 'nothing',
        'verified': 'loads with weights_only=True, every weight is finite',
        'written': f'{target} ({len(data) / 1e6:.1f} MB)',
        'sha256': digest,
    }
    print(summarize(rows))


if __name__ == '__main__':
    main()
