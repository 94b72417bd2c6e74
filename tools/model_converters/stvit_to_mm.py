"""Convert a published STViT checkpoint to an mmpretrain classifier's, from which every config here can start.

Example::

    python tools/model_converters/stvit_to_mm.py stvit-small-224.pth checkpoints/stvit-small-224_mm.pth
"""

import argparse
import os
from pathlib import Path

import torch

from mmstvit.apis import UserError, load_safely, user_errors
from mmstvit.checkpoint import convert_official


def load_published(path: Path) -> object:
    """The weights of a published file.

    Tensors, plain containers and the training's arguments are all it may hold; nothing of it is executed.
    """
    content = load_safely(path, [argparse.Namespace])
    return content.get('model', content) if isinstance(content, dict) else content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', type=Path, help='published checkpoint')
    parser.add_argument('dst', type=Path, help='file to write; it must not exist')
    args = parser.parse_args()
    with user_errors():
        if args.dst.exists():
            raise UserError(f'{args.dst} exists; remove it or choose another name.')
        published = load_published(args.src)
        try:
            converted = convert_official(published)
        except ValueError as error:
            raise UserError(f'{args.src}: {error}') from error
    args.dst.parent.mkdir(parents=True, exist_ok=True)
    partial = args.dst.with_name(args.dst.name + '.partial')
    torch.save(dict(state_dict=converted), partial)
    os.replace(partial, args.dst)
    print(f'{args.dst}: {len(converted)} tensors of {len(published)}; dropped by name: attn.unfold/fold.weights')


if __name__ == '__main__':
    main()
