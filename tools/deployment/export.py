"""Export a trained model to ONNX or OpenVINO.

The file is compared in its own runtime with the model in PyTorch, at several sizes and batches; if they disagree, it is
removed. Class names, colors and the preparation of images are in its metadata.

Example::

    python tools/deployment/export.py CONFIG work_dirs/run/epoch_12.pth --format onnx --out model.onnx
    python tools/deployment/test.py CONFIG model.onnx
    python tools/predict.py model.onnx photos/
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mmstvit.command_line import (
    add_cfg_options,
    add_trust,
    make_parser,
    order_config,
    positive,
    print_rows,
    user_errors,
)

if TYPE_CHECKING:
    from mmstvit.deployment import ExportReport


def parse_batch(text: str) -> int:
    """Return a number of images; 0 for ``any``."""
    return 0 if text == 'any' else positive(text)


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    parser.add_argument('config', help='config file path or name')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--format', choices=['onnx', 'openvino'], required=True, help='format of the file')
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument('--shape', type=positive, nargs=2, metavar=('H', 'W'), help='height and width of all images')
    sizes.add_argument('--dynamic', action='store_true', help='images of any size (the default)')
    parser.add_argument(
        '--batch',
        type=parse_batch,
        metavar='N',
        help='images at once: a number, or "any" except for detectors (1 with --shape and for detectors, else any)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE',
        help='file to write (named like the config, in the folder of the checkpoint)',
    )
    parser.add_argument('--force', action='store_true', help='overwrite the file if it exists')
    parser.add_argument('--features', action='store_true', help='export the backbone alone: its feature maps')
    parser.add_argument('--probabilities', action='store_true', help='classifiers: probabilities instead of logits')
    parser.add_argument('--opset', type=positive, metavar='N', help="version of ONNX's operators (17)")
    add_cfg_options(parser)
    add_trust(parser)
    return order_config(parser.parse_args())


def print_report(report: 'ExportReport') -> None:
    """Print what is in the file, and how well it agrees with PyTorch."""
    metadata = report.metadata
    shape = ', '.join(map(str, report.input))
    sizes = ', '.join('×'.join(map(str, size)) for size in dict.fromkeys(report.sizes))
    rows = {
        'written': f'{report.path} ({report.bytes / 1e6:.1f} MB)',
        'input': f'image, float32 ({shape}): {metadata.color_order}, minus mean, over std',
        **{f'output {name}': meaning for name, meaning in metadata.outputs.items()},
        'metadata': f'{metadata.task}, {len(metadata.classes)} classes, mean, std, color order, test pipeline; '
        f'also in {report.path.name}.json',
        'compared': f'{report.runtime} with PyTorch on images (batch×height×width) {sizes}'
        + (f', {report.objects} objects' if metadata.task == 'detection' else ''),
        'largest error': ', '.join(f'{name} {error:.1g}' for name, error in report.errors.items()),
    }
    print_rows(rows)


def main() -> None:
    """Export the model on the command line."""
    args = parse_args()
    checkpoint = Path(args.checkpoint)
    folder = Path() if '://' in args.checkpoint else checkpoint.parent
    with user_errors():
        from mmstvit.apis.predict.predictor import load_predictor
        from mmstvit.checkpoint import to_mmstvit
        from mmstvit.deployment import FORMATS, check_suffix, export
        from mmstvit.fileio import check_target, safe_loading

        out = args.out or folder / (Path(args.config).stem + FORMATS[args.format].suffix)
        check_suffix(out, args.format)
        beside = [out.with_suffix('.bin')] if args.format == 'openvino' else []
        for path in (out, out.with_name(f'{out.name}.json'), *beside):
            check_target(path, checkpoint, args.force)
        with (
            safe_loading(args.trust_checkpoint, to_mmstvit),
            load_predictor(
                args.checkpoint, args.config, args.cfg_options, False, 'cpu', args.trust_checkpoint
            ) as predictor,
        ):
            report = export(
                predictor.model,
                predictor.scope,
                args.format,
                out,
                args.shape,
                args.batch,
                predictor.classes,
                predictor.colors,
                predictor.steps,
                args.features,
                args.probabilities,
                args.opset,
            )
    print_report(report)


if __name__ == '__main__':
    main()
