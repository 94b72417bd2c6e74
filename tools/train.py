"""Train a detector, segmentor or classifier; the config's ``default_scope`` decides which."""

import argparse

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from mmstvit.apis import (
    UserError,
    add_common_arguments,
    add_trust,
    build_runner,
    check_checkpoint,
    check_data,
    check_model,
    check_parts,
    check_pretrained,
    check_weights,
    find_checkpoint,
    guard_data,
    leave_process_group,
    load_config,
    make_restartable,
    user_errors,
)
from mmstvit.checkpoint import to_mmstvit
from mmstvit.fileio import safe_loading


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='train config file path')
    parser.add_argument('--work-dir', help='the dir to save logs and models')
    parser.add_argument('--amp', action='store_true', help='enable automatic-mixed-precision training')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help="scale the learning rate to the batch, by the config's base batch"
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint; without a path, from the latest one in the work dir',
    )
    add_trust(parser)
    add_common_arguments(parser)
    return parser.parse_args()


def apply_amp(cfg: Config) -> None:
    """Mixed precision: float16 on a GPU, bfloat16 without one, unless the config has ``optim_wrapper.dtype``."""
    wrapper = cfg.optim_wrapper
    kind = wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(f'--amp replaces OptimWrapper, but the config has optim_wrapper.type={kind!r}. Drop --amp.')
    if wrapper.get('dtype', 'float16') not in ('float16', 'bfloat16'):
        raise UserError(
            f'--amp computes in float16 or bfloat16, but the config has optim_wrapper.dtype={wrapper.dtype!r}.'
        )
    if not torch.cuda.is_available():
        if 'backbone' not in cfg.model:
            raise UserError(f'--amp without a GPU is for models with a backbone, which {cfg.model.type} has not.')
        if wrapper.get('dtype') == 'float16' and 'FSDP' in str((cfg.get('strategy') or {}).get('type')):
            raise UserError(
                'float16 without a GPU does not go with FSDP: each process would look for overflows in its own shard '
                'alone. Drop optim_wrapper.dtype (which means bfloat16), or --amp.'
            )
        wrapper.type = 'mmstvit.CPUAmpOptimWrapper'  # MMEngine's own asserts a GPU
    elif wrapper.get('dtype') == 'bfloat16' and 'roi_head' in cfg.model:
        raise UserError("mmcv's RoIAlign has no bfloat16 kernel. Train in float16: drop optim_wrapper.dtype.")
    else:
        wrapper.type = 'AmpOptimWrapper'
    wrapper.setdefault('loss_scale', 'dynamic')


def apply_auto_scale_lr(cfg: Config) -> None:
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise UserError(
            '--auto-scale-lr needs auto_scale_lr.base_batch_size in the config: the batch its learning rate is for. '
            'Add it with --cfg-options auto_scale_lr.base_batch_size=16'
        )
    cfg.auto_scale_lr.enable = True


def apply_resume(cfg: Config, resume: str) -> None:
    """Set what to resume from, and refuse if there is nothing."""
    if resume == 'auto':
        checkpoint = find_checkpoint(cfg.work_dir)
        if checkpoint is None:
            print_log(f'{cfg.work_dir} has no checkpoint yet: the run begins again', logger='current')
            return
    else:
        check_checkpoint(resume)
    cfg.resume = True
    cfg.load_from = None if resume == 'auto' else resume


def main() -> None:
    args = parse_args()
    with user_errors(), safe_loading(args.trust_checkpoint, to_mmstvit):
        cfg = load_config(args)
        check_parts(cfg, 'train_dataloader', 'train_cfg', 'optim_wrapper')
        if args.amp:
            apply_amp(cfg)
        if args.auto_scale_lr:
            apply_auto_scale_lr(cfg)
        if args.resume is not None:
            apply_resume(cfg, args.resume)
        # Also before resuming: MMEngine initialises the weights first, whatever is loaded over them.
        check_pretrained(cfg)
        check_data(cfg, 'train', 'val')
        check_weights(cfg, check_model(cfg, train=True))
        guard_data(cfg, 'train', 'val')
        make_restartable(cfg)
        runner = build_runner(cfg, train=True)
        runner.train()


if __name__ == '__main__':
    main()
    leave_process_group()
