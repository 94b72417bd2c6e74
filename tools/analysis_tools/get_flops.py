"""Print the parameters and multiply-accumulates of the model of a config, in two conventions.

Neither data nor weights are needed. Example::

    python tools/analysis_tools/get_flops.py configs/mask_rcnn/mask-rcnn_stvit-small_fpn_1x_coco.py --depth 2
"""

import argparse
import contextlib
import json
import sys
from typing import TYPE_CHECKING

from mmstvit.command_line import add_cfg_options, count, make_parser, positive, user_errors

if TYPE_CHECKING:
    from mmstvit.analysis import Complexity, Cost

EVERYTHING = 'convolutions, linear layers, norms and all matrix products, attention and super tokens included'
# The convention of the paper's FLOPs, by library.
PAPER = {
    'mmdet': 'convolutions, linear layers and norms alone; in two-stage detectors {boxes} regions through the box '
    'heads, {masks} through the mask heads',
    'mmseg': 'convolutions, linear layers and norms alone; without the auxiliary head, which inference does not run',
    'mmpretrain': 'everything',
}


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    parser.add_argument('config', help='config file path, or its name such as mmstvit::imagenet/NAME.py')
    parser.add_argument(
        '--shape',
        type=positive,
        nargs=2,
        metavar=('H', 'W'),
        help="height and width of the image; default: the paper's, 800 1280 for detection and 512 2048 for "
        "segmentation, and the config's crop for classification",
    )
    parser.add_argument('--depth', type=count, default=0, help='break down by module, this many levels deep')
    parser.add_argument('--json', action='store_true', help='print JSON and nothing else')
    add_cfg_options(parser)
    return parser.parse_args()


def macs_by_convention(cost: 'Cost', scope: str) -> dict[str, int]:
    """Return the multiply-accumulates in both conventions."""
    return {'everything': cost.everything, 'paper': cost.everything if PAPER[scope] == 'everything' else cost.layers}


def as_dict(args: argparse.Namespace, scope: str, result: 'Complexity') -> dict:
    """Return the content of ``--json``; counts are single multiply-accumulates and parameters."""
    from mmstvit.analysis import NUM_BOXES, NUM_MASKS

    paper = PAPER[scope].format(boxes=NUM_BOXES, masks=NUM_MASKS)
    return {
        'config': args.config,
        'input_shape': [1, 3, *result.shape],
        'parameters': result.total.params,
        'macs': macs_by_convention(result.total, scope),
        'conventions': {'everything': EVERYTHING, 'paper': paper},
        'macs_by_kind': dict(result.total.kinds),
        'modules': [
            {'name': name, 'parameters': cost.params, 'macs': macs_by_convention(cost, scope)}
            for name, cost in result.modules.items()
            if name and name.count('.') < args.depth
        ],
    }


def print_report(args: argparse.Namespace, content: dict) -> None:
    """Print the content as text."""
    height, width = content['input_shape'][2:]
    print(f'config      {content["config"]}')
    print(f'input       1 × 3 × {height} × {width}')
    if args.shape and args.shape != [height, width]:
        print(f'            {args.shape[0]} × {args.shape[1]} padded as the data preprocessor does')
    print(f'parameters  {content["parameters"] / 1e6:.2f} M')
    print('multiply-accumulates')
    for name, macs in content['macs'].items():
        print(f'  {name:<10}  {macs / 1e9:10.2f} G  {content["conventions"][name]}')
    print('of everything')
    for kind, macs in content['macs_by_kind'].items():
        if macs:
            print(f'  {kind:<12}{macs / 1e9:10.2f} G')
    rows = [
        ('  ' * m['name'].count('.') + m['name'].rpartition('.')[2], m['parameters'], *m['macs'].values())
        for m in content['modules']
        if m['parameters'] or m['macs']['everything']
    ]
    if rows:
        width = max(len(label) for label, *_ in rows)
        print(f'\n{"module":<{width}}  {"parameters":>12}  {"everything":>12}  {"paper":>12}')
        for label, params, everything, paper in rows:
            print(f'{label:<{width}}  {params / 1e6:>10.3f} M  {everything / 1e9:>10.3f} G  {paper / 1e9:>10.3f} G')


def main() -> None:
    """Count and print."""
    args = parse_args()
    # Libraries log to standard output.
    with user_errors(), contextlib.redirect_stdout(sys.stderr):
        from mmstvit.analysis import count_complexity, default_shape
        from mmstvit.apis import build_model, read_config

        cfg = read_config(args.config, args.cfg_options)
        result = count_complexity(build_model(cfg), args.shape or default_shape(cfg))
    content = as_dict(args, cfg.default_scope, result)
    if args.json:
        print(json.dumps(content, indent=2))
    else:
        print_report(args, content)


if __name__ == '__main__':
    main()
