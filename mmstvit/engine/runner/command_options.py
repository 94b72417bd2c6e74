"""Options of the command line as changes of a config."""

import argparse
from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import get_world_size
from mmengine.logging import print_log

from mmstvit.datasets.wrappers import inner_datasets
from mmstvit.errors import UserError
from mmstvit.nodes import as_list


def allow_no_workers(cfg: Config) -> None:
    """Let ``num_workers=0`` load data in this process: PyTorch refuses it with the options of workers."""
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader is not None and not loader.get('num_workers'):
            loader.persistent_workers = False
            loader.pop('prefetch_factor', None)
            loader.pop('multiprocessing_context', None)


def apply_amp(cfg: Config, args: argparse.Namespace) -> None:
    """``--amp``: mixed precision, in float16 on a GPU and bfloat16 without one unless the config has a ``dtype``.

    Raises:
        UserError: The config's optimizer wrapper, precision or model does not allow it.
    """
    if not args.amp:
        return
    wrapper = cfg.optim_wrapper
    kind = wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(f'--amp replaces OptimWrapper, but the config has optim_wrapper.type={kind!r}.', 'Omit --amp.')
    if wrapper.get('dtype', 'float16') not in ('float16', 'bfloat16'):
        raise UserError(
            f'--amp computes in float16 or bfloat16, but the config has optim_wrapper.dtype={wrapper.dtype!r}.'
        )
    if not torch.cuda.is_available():
        if 'backbone' not in cfg.model:
            raise UserError(f'--amp without a GPU needs a model with a backbone, which {cfg.model.type} does not have.')
        wrapper.type = 'mmstvit.CPUAmpOptimWrapper'  # MMEngine's own asserts a GPU
    elif wrapper.get('dtype') == 'bfloat16' and 'roi_head' in cfg.model:
        raise UserError("mmcv's RoIAlign has no bfloat16 kernel.", 'Train in float16: remove optim_wrapper.dtype.')
    else:
        wrapper.type = 'AmpOptimWrapper'
    wrapper.setdefault('loss_scale', 'dynamic')


def scale_learning_rate(cfg: Config, args: argparse.Namespace) -> None:
    """``--auto-scale-lr``: scale the learning rate to the batch of a step: over processes and accumulated batches.

    MMEngine's rule (0.10.12) ignores ``accumulative_counts``. The config gets the new learning rate, and its batch as
    ``base_batch_size``: MMEngine does not scale again, and neither does a run with the saved config.

    Raises:
        UserError: The config does not say which batch its learning rate is for, or has no learning rate to scale.
    """
    scaling = cfg.get('auto_scale_lr') or {}
    if not (args.auto_scale_lr or scaling.get('enable')):
        return
    base = scaling.get('base_batch_size')
    if base is None:
        raise UserError(
            '--auto-scale-lr needs auto_scale_lr.base_batch_size in the config: the batch its learning rate is for.',
            'Add it with --cfg-options auto_scale_lr.base_batch_size=16',
        )
    optimizer = cfg.optim_wrapper.get('optimizer') or {}
    if 'lr' not in optimizer:
        raise UserError('--auto-scale-lr needs optim_wrapper.optimizer.lr in the config.', 'Omit --auto-scale-lr.')
    loader = cfg.train_dataloader
    batch = loader.get('batch_size') or loader.batch_sampler.batch_size
    counts = cfg.optim_wrapper.get('accumulative_counts', 1)
    total = batch * get_world_size() * counts
    scaled = optimizer.lr * (total / base)
    print_log(
        f'--auto-scale-lr: learning rate {optimizer.lr:g} for a batch of {base} becomes {scaled:g} for {total} '
        f'({batch} × {get_world_size()} processes × {counts} accumulated)',
        logger='current',
    )
    optimizer.lr = scaled
    cfg.auto_scale_lr = ConfigDict(base_batch_size=total, enable=False)


def check_tta(cfg: Config, args: argparse.Namespace) -> None:
    """``--tta``: set the model that merges the predictions, unless the config has one.

    Raises:
        UserError: The library cannot merge flipped predictions of this model by default.
    """
    if not args.tta:
        return
    if cfg.default_scope == 'mmseg' and not (cfg.get('tta_model') and cfg.get('tta_pipeline')):
        # A default of ours would flip the ground truth too.
        raise UserError('--tta needs tta_model and tta_pipeline in a config for segmentation; one is missing.')
    if 'tta_model' not in cfg:
        cfg.tta_model = _default_tta_model(cfg)


def apply_tta(cfg: Config, args: argparse.Namespace) -> None:
    """``--tta``: wrap the model and replace the pipeline of each test dataset, by default with flips.

    Raises:
        UserError: See :func:`check_tta`.
    """
    if not args.tta:
        return
    check_tta(cfg, args)
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    for _, dataset in inner_datasets(cfg.test_dataloader.dataset):
        dataset.pipeline = cfg.get('tta_pipeline') or _flipped(dataset.pipeline)


def _flipped(pipeline: Sequence[ConfigDict]) -> list[dict]:
    """Return a pipeline that loads an image as it is and flipped."""
    # The view that is not flipped comes first: the merged sample takes its ground truth from there.
    flips = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
    pack = deepcopy(pipeline[-1])
    if 'meta_keys' in pack:
        pack.meta_keys = (*pack.meta_keys, 'flip', 'flip_direction')
    return [*pipeline[:-1], dict(type='TestTimeAug', transforms=[flips, [pack]])]


def _default_tta_model(cfg: Config) -> ConfigDict:
    if cfg.default_scope == 'mmpretrain':
        return ConfigDict(type='AverageClsScoreTTA')
    if (cfg.model.get('roi_head') or {}).get('mask_head'):
        return ConfigDict(type='mmstvit.InstanceSegTTAModel')
    if any(key.endswith(('mask_head', 'panoptic_head')) for key in cfg.model):
        raise UserError(
            '--tta merges masks of two-stage detectors (Mask R-CNN, Cascade Mask R-CNN), which this model is not.',
            'Add a tta_model to the config, or omit --tta.',
        )
    return ConfigDict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))


def apply_out(cfg: Config, args: argparse.Namespace) -> None:
    """``--out``: write the predictions, of segmentors as maps into a folder, of others into a pickle file.

    Raises:
        UserError: The file has another suffix.
    """
    if not args.out:
        return
    evaluators = as_list(cfg.test_evaluator)
    if cfg.default_scope == 'mmseg':
        for evaluator in evaluators:
            evaluator.update(output_dir=args.out, keep_results=True)
        return
    if not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out must be a .pkl or .pickle file, but got {args.out}')
    kind = 'DumpDetResults' if cfg.default_scope == 'mmdet' else 'DumpResults'
    dump = ConfigDict(type=kind, out_file_path=args.out)
    if len(evaluators) == 1 and isinstance(evaluators[0], Mapping) and 'metrics' in evaluators[0]:
        evaluators[0].metrics = [*as_list(evaluators[0].metrics), dump]
    else:
        cfg.test_evaluator = [*evaluators, dump]


def leave_out_training(cfg: Config) -> None:
    """Drop what only training uses: ``load_from``, ``resume`` and the strategy."""
    cfg.load_from, cfg.resume = None, False
    if cfg.pop('strategy', None) is not None:
        cfg.pop('runner_type', None)
