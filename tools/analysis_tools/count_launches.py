"""Count operators, kernel launches and bytes of a backbone's step on CUDA; this needs no GPU.

Example::

    python tools/analysis_tools/count_launches.py stvit-small swin-tiny --mode train --dtype bf16 --batch-size 64
"""

import argparse
import json
import os
import sys
from dataclasses import asdict

from mmstvit.command_line import make_parser, positive, user_errors

EPILOG = """\
entries:
  as for benchmark.py, without exported files and +whole. MMSTVIT_BACKEND is the only environment variable.

A step is a forward pass or, with --mode train, a forward and backward pass without the optimizer. Operators compute:
views and allocations do not count. Counts of operators are exact; launches are modeled, and bytes are those that
operators read and write. No numbers are computed, so a step is counted in seconds, whatever its size.
"""


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, epilog=EPILOG)
    parser.add_argument('entries', nargs='+', metavar='ENTRY', help='what to count; see below')
    parser.add_argument('--mode', choices=['inference', 'train'], default='inference', help='what a step is')
    parser.add_argument('--dtype', choices=['fp32', 'bf16', 'fp16'], default='fp32', help='autocast below fp32')
    parser.add_argument('--shape', type=positive, nargs=2, default=[224, 224], metavar=('H', 'W'), help='image')
    parser.add_argument('--batch-size', type=positive, default=1, help='images per step')
    parser.add_argument('--json', action='store_true', help='print JSON and nothing else')
    return parser.parse_args()


def count_entry(text: str, args: argparse.Namespace) -> dict[str, int]:
    """Count the step of an entry; raises UserError if the entry cannot be counted."""
    import torch
    from benchmark import DTYPES, build_entry, finish, parse_entry

    from mmstvit.analysis import count_launches
    from mmstvit.deployment import is_exported
    from mmstvit.errors import UserError
    from mmstvit.ops import get_backend, use_backend
    from mmstvit.ops.backend import AUTO_ON_CUDA, VARIABLE
    from mmstvit.ops.triton import LAUNCHES

    entry = parse_entry(text)
    if is_exported(entry.name) or 'whole' in entry.switches:
        raise UserError(f'{text}: only backbones are counted.', 'Remove +whole, or name a backbone or its config.')
    if entry.variables.keys() - {VARIABLE}:
        raise UserError(f'{text}: only {VARIABLE} has an effect here.')
    model = build_entry(entry)
    train = args.mode == 'train'
    model.train(train)  # some backbones return None
    dtype = getattr(torch, DTYPES[next((switch for switch in entry.switches if switch in DTYPES), args.dtype)])
    backend = entry.variables.get(VARIABLE, get_backend())
    with use_backend(AUTO_ON_CUDA if backend == 'auto' else backend):
        return asdict(count_launches(finish(entry, model), (args.batch_size, 3, *args.shape), dtype, train, LAUNCHES))


def main() -> int:
    """Count and print; returns 0."""
    args = parse_args()
    os.environ['TRITON_INTERPRET'] = '1'  # the Triton operators refuse tensors on the CPU otherwise; no kernel runs
    with user_errors():
        counts = {text: count_entry(text, args) for text in args.entries}
    if args.json:
        print(json.dumps(counts, indent=2))
        return 0
    width = max(map(len, counts))
    print(f'{"entry":<{width}}  operators  launches      GB')
    for text, row in counts.items():
        print(f'{text:<{width}}  {row["operators"]:9,}  {row["launches"]:8,}  {row["bytes"] / 1e9:6.1f}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
