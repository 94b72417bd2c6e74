"""Parameters and multiply-accumulates of the model of a config, in two conventions; no data and no weights needed."""

import argparse
import contextlib
import json
import sys

from mmstvit.analysis import NUM_BOXES, NUM_MASKS, Complexity, measure
from mmstvit.apis import UserError, add_cfg_options, read_config, user_errors

EVERYTHING = 'convolutions, linear layers, norms and all matrix products, attention and super tokens included'
PAPER = {
    'mmdet': f'convolutions, linear layers and norms alone; {NUM_BOXES} regions through the box heads, {NUM_MASKS} '
    'through the mask heads',
    'mmseg': 'convolutions, linear layers and norms alone; without the auxiliary head, which inference does not run',
    'mmpretrain': 'everything',
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file path')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help="height and width of the image; default: the paper's, 800 1280 for detection and 512 2048 for "
        "segmentation, and the config's crop for classification",
    )
    parser.add_argument('--depth', type=int, default=0, help='break down by module, this many levels deep')
    parser.add_argument('--json', action='store_true', help='print JSON and nothing else')
    add_cfg_options(parser)
    return parser.parse_args()


def check_args(args: argparse.Namespace) -> None:
    if args.shape is not None and min(args.shape) < 1:
        raise UserError(f'--shape must be two positive numbers, but got {args.shape[0]} {args.shape[1]}.')
    if args.depth < 0:
        raise UserError(f'--depth must be 0 (no breakdown) or more, but got {args.depth}.')


def as_dict(args: argparse.Namespace, scope: str, result: Complexity) -> dict:
    """What ``--json`` prints; counts are single multiply-accumulates and parameters."""
    return {
        'config': args.config,
        'input_shape': [1, 3, *result.shape],
        'parameters': result.total.params,
        'macs': {'everything': result.total.everything, 'paper': result.total.paper},
        'conventions': {'everything': EVERYTHING, 'paper': PAPER[scope]},
        'macs_by_kind': dict(result.total.kinds),
        'modules': [
            {'name': name, 'parameters': cost.params, 'macs': {'everything': cost.everything, 'paper': cost.paper}}
            for name, cost in result.modules.items()
            if name and name.count('.') < args.depth
        ],
    }


def print_report(args: argparse.Namespace, scope: str, result: Complexity) -> None:
    total = result.total
    print(f'config      {args.config}')
    print(f'input       1 × 3 × {result.shape[0]} × {result.shape[1]}')
    if args.shape and tuple(args.shape) != result.shape:
        print(f'            {args.shape[0]} × {args.shape[1]} padded as the data preprocessor does')
    print(f'parameters  {total.params / 1e6:.2f} M')
    print('multiply-accumulates')
    print(f'  everything  {total.everything / 1e9:10.2f} G  {EVERYTHING}')
    print(f'  paper       {total.paper / 1e9:10.2f} G  {PAPER[scope]}')
    print('of everything')
    for kind, macs in total.kinds.items():
        if macs:
            print(f'  {kind:<12}{macs / 1e9:10.2f} G')
    if args.depth:
        print_modules(args.depth, result)


def print_modules(depth: int, result: Complexity) -> None:
    rows = [
        ('  ' * name.count('.') + name.rpartition('.')[2], cost)
        for name, cost in result.modules.items()
        if name and name.count('.') < depth and (cost.params or cost.everything)
    ]
    width = max(len(label) for label, _ in rows)
    print(f'\n{"module":<{width}}  {"parameters":>12}  {"everything":>12}  {"paper":>12}')
    for label, cost in rows:
        print(
            f'{label:<{width}}  {cost.params / 1e6:>10.3f} M  {cost.everything / 1e9:>10.3f} G  '
            f'{cost.paper / 1e9:>10.3f} G'
        )


def main() -> None:
    args = parse_args()
    # Libraries log to standard output; it is for the result.
    with user_errors(), contextlib.redirect_stdout(sys.stderr):
        check_args(args)
        cfg = read_config(args.config, args.cfg_options)
        result = measure(cfg, args.shape)
    if args.json:
        print(json.dumps(as_dict(args, cfg.default_scope, result), indent=2))
    else:
        print_report(args, cfg.default_scope, result)


if __name__ == '__main__':
    main()
