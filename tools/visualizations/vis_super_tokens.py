"""Draw the super tokens of images block by block, and the attention of a point.

Writes a contact sheet per image: a row per block with boundaries, mean colors and regions. Examples::

    python tools/visualizations/vis_super_tokens.py photo.jpg work_dirs/RUN/epoch_12.pth --point 320 200
    python tools/visualizations/vis_super_tokens.py photos/ configs/imagenet/stvit-small_8xb128_in1k.py \
        --checkpoint stvit-small-224.pth
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from mmstvit.apis import UserError, add_cfg_options, add_trust, user_errors
from mmstvit.apis.predict.inputs import Source, find_inputs
from mmstvit.apis.predict.model import Predictor, load_predictor
from mmstvit.apis.predict.run import check_out_dir, skip_reason
from mmstvit.checkpoint import to_mmstvit
from mmstvit.datasets.images import UnreadableError
from mmstvit.fileio import safe_loading
from mmstvit.visualization import attention_of, contact_sheet, draw_blocks, image_of, super_tokens, write_gif
from mmstvit.visualization.figures import Panel
from mmstvit.visualization.reading import find_backbone


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('image', help='image, folder or glob pattern')
    parser.add_argument('model', metavar='CONFIG|CHECKPOINT', help='checkpoint with its config in it, or a config')
    parser.add_argument('--config', help='config of the checkpoint (the one in it)')
    parser.add_argument('--checkpoint', help='checkpoint of the config (none: the model is untrained)')
    parser.add_argument('--out-dir', type=Path, default='super_tokens', help='folder, new or empty (super_tokens)')
    parser.add_argument('--stages', type=int, nargs='+', help='stages, from 0 (all)')
    parser.add_argument('--blocks', type=int, nargs='+', help='blocks of each stage, from 0 (all)')
    parser.add_argument('--point', type=int, nargs=2, metavar=('X', 'Y'), help='attention of this pixel of the image')
    parser.add_argument(
        '--soft', nargs='?', const='point', metavar='INDEX', help='membership of a super token (that at the point)'
    )
    parser.add_argument('--grid', action='store_true', help='draw the initial grid too')
    parser.add_argument('--single', action='store_true', help='one PNG per drawing instead of a contact sheet')
    parser.add_argument('--gif', action='store_true', help='write an animation over the blocks too')
    parser.add_argument('--device', default='auto', help='cpu, cuda, cuda:1, … (auto: a GPU if there is one)')
    add_cfg_options(parser)
    add_trust(parser)
    args = parser.parse_args()
    if Path(args.model).suffix in ('.py', '.yml', '.yaml', '.json'):
        args.config, given = args.model, args.config
    else:
        args.checkpoint, given = args.model, args.checkpoint
    if given is not None:
        parser.error(f'the model has two configs or two checkpoints: {args.model} and {given}')
    if args.soft is not None and args.soft != 'point':
        if not args.soft.isdecimal():
            parser.error(f'--soft needs the index of a super token, but got {args.soft!r}')
        args.soft = int(args.soft)
    if args.soft == 'point' and args.point is None:
        parser.error('--soft needs --point, or the index of a super token')
    return args


def draw(source: Source, predictor: Predictor, args: argparse.Namespace) -> list[list[Panel]]:
    """Draw the blocks of an image."""
    if source.is_video:
        raise UnreadableError('this is a video; extract the frames to draw')
    picture = next(predictor.read(source))
    sample = predictor.prepare(picture)
    records = [super_tokens(predictor.model, sample), []]
    if args.point is not None:
        records[1] = attention_of(predictor.model, sample, predictor.locate(picture, args.point))
    for i, found in enumerate(records):
        found = [record for record in found if args.stages is None or record.stage in args.stages]
        records[i] = [record for record in found if args.blocks is None or record.block in args.blocks]
    if not any(records):
        raise UserError('none of these blocks has super tokens.', 'Name others with --stages and --blocks, or --point.')
    image = image_of(sample)
    side = max(960, *image.shape[:2]) if args.single else None
    return draw_blocks(image, *records, args.soft, args.grid, side)


def write(source: Source, rows: list[list[Panel]], args: argparse.Namespace) -> None:
    """Write the drawings of an image."""
    weights = Path(args.checkpoint).name if args.checkpoint else 'UNTRAINED: random weights'
    heading = f'{source.name} · {weights}'
    target = args.out_dir / source.stem
    (target if args.single else target.parent).mkdir(parents=True, exist_ok=True)
    if args.single:
        for panel in (panel for row in rows for panel in row):
            Image.fromarray(panel.picture).save(target / f'{panel.name}.png')
    else:
        Image.fromarray(contact_sheet(rows, heading)).save(f'{target}.png')
    if args.gif:
        write_gif(f'{target}.gif', rows, heading)


def draw_all(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Draw the images; yields name and reason of each that is skipped."""
    check_out_dir(args.out_dir)
    found = find_inputs([args.image])
    yield from found.faults.items()
    options = args.cfg_options, False, args.device, args.trust_checkpoint
    with (
        safe_loading(args.trust_checkpoint, to_mmstvit),
        load_predictor(args.checkpoint, args.config, *options) as predictor,
    ):
        if args.checkpoint is None:
            print('UNTRAINED: no checkpoint is given; the weights are random. Name one with --checkpoint FILE.')
        find_backbone(predictor.model)
        for source in found.sources:
            try:
                rows = draw(source, predictor, args)
            except Exception as error:  # transforms raise all kinds of errors
                yield source.name, skip_reason(error)
            else:
                write(source, rows, args)


def main() -> None:
    """Draw, and name what was skipped."""
    args = parse_args()
    with user_errors():
        skipped = dict(draw_all(args))
    for name, reason in skipped.items():
        print(f'skipped {name}: {reason}', file=sys.stderr)
    print(f'drawings: {args.out_dir}')
    if skipped:
        sys.exit(f'error: {len(skipped)} of the inputs could not be drawn')


if __name__ == '__main__':
    main()
