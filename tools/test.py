"""Test (and evaluate) a detector, segmentor or classifier; the config's ``default_scope`` decides which."""

import argparse
from copy import deepcopy
from numbers import Number

from mmengine.config import Config, ConfigDict
from mmengine.dist import master_only
from mmengine.evaluator import DumpResults
from mmengine.runner import Runner

from mmstvit.apis import (
    UserError,
    add_common_arguments,
    add_trust,
    build_runner,
    check_checkpoint,
    check_data,
    check_model,
    check_parts,
    guard_data,
    leave_process_group,
    load_checkpoint,
    load_config,
    read_matching,
    user_errors,
)
from mmstvit.checkpoint import to_mmstvit
from mmstvit.fileio import safe_loading


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='test config file path')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='the dir to save the file containing evaluation metrics')
    parser.add_argument(
        '--out', help='detection and classification: pickle file for the predictions; segmentation: folder for them'
    )
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--show-dir', help='directory where painted images will be saved')
    parser.add_argument('--wait-time', type=float, default=2, help='display time of every window in seconds')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    add_trust(parser)
    add_common_arguments(parser)
    return parser.parse_args()


def apply_show(cfg: Config, args: argparse.Namespace) -> None:
    """Turn the visualisation hook on; each library has its own words for that."""
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise UserError('--show and --show-dir need default_hooks.visualization in the config, which has none.')
    hook.show, hook.wait_time = args.show, args.wait_time
    if cfg.default_scope == 'mmpretrain':
        hook.enable, hook.out_dir, hook.interval = True, args.show_dir, 1
        return
    hook.draw = True
    if args.show_dir and cfg.default_scope == 'mmdet':
        hook.test_out_dir = args.show_dir
    elif args.show_dir:
        cfg.visualizer.save_dir = args.show_dir


def apply_tta(cfg: Config) -> None:
    """Wrap the model and replace the test pipeline; flips by default where the library can merge them."""
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if cfg.default_scope == 'mmseg' and not (cfg.get('tta_model') and cfg.get('tta_pipeline')):
        # A default of ours would flip the ground truth too.
        raise UserError('--tta needs tta_model and tta_pipeline in a config for segmentation; one is missing.')
    if 'tta_model' not in cfg:
        if cfg.default_scope == 'mmpretrain':
            cfg.tta_model = ConfigDict(type='AverageClsScoreTTA')
        elif (cfg.model.get('roi_head') or {}).get('mask_head'):
            cfg.tta_model = ConfigDict(type='mmstvit.InstanceSegTTAModel')
        elif any(key.endswith(('mask_head', 'panoptic_head')) for key in cfg.model):
            raise UserError(
                '--tta merges the masks of two-stage detectors (Mask R-CNN, Cascade Mask R-CNN); for another kind it '
                'needs a tta_model in the config. Test without --tta.'
            )
        else:
            nms = dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
            cfg.tta_model = ConfigDict(type='DetTTAModel', tta_cfg=nms)
    if 'tta_pipeline' not in cfg:
        # The view that is not flipped comes first: from there the merged sample takes its ground truth.
        flips = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
        pack = deepcopy(dataset.pipeline[-1])
        if 'meta_keys' in pack:
            pack.meta_keys = (*pack.meta_keys, 'flip', 'flip_direction')
        cfg.tta_pipeline = [*dataset.pipeline[:-1], dict(type='TestTimeAug', transforms=[flips, [pack]])]
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline


def apply_out(cfg: Config, out: str) -> None:
    if cfg.default_scope == 'mmseg':
        cfg.test_evaluator.output_dir = out
        cfg.test_evaluator.keep_results = True
    elif not out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out must be a .pkl or .pickle file, but got {out}')


def dump_predictions(runner: Runner, scope: str, out: str) -> None:
    """Add the library's metric that writes the predictions to a pickle file."""
    if scope == 'mmdet':
        from mmdet.evaluation import DumpDetResults

        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=out))
    elif scope == 'mmpretrain':
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=out))


@master_only
def print_metrics(metrics: dict) -> None:
    """The numbers of the test as a table."""
    width = max(map(len, metrics), default=0)
    print()
    for name, value in metrics.items():
        print(f'{name:<{width}}  {value:8.4f}' if isinstance(value, Number) else f'{name:<{width}}  {value}')


def main() -> None:
    args = parse_args()
    with user_errors(), safe_loading(args.trust_checkpoint, to_mmstvit):
        cfg = load_config(args)
        check_parts(cfg, 'test_dataloader', 'test_cfg', 'test_evaluator')
        check_checkpoint(args.checkpoint)
        if args.show or args.show_dir:
            apply_show(cfg, args)
        if args.tta:
            apply_tta(cfg)
        if args.out:
            apply_out(cfg, args.out)
        check_data(cfg, 'test')
        weights = read_matching(check_model(cfg), args.checkpoint)
        guard_data(cfg, 'test')
        runner = build_runner(cfg)
        load_checkpoint(runner, weights)
        if args.out:
            dump_predictions(runner, cfg.default_scope, args.out)
        metrics = runner.test()
    print_metrics(metrics)


if __name__ == '__main__':
    main()
    leave_process_group()
