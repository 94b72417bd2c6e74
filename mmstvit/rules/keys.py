"""Top-level keys of a config that have no effect: of MMDetection 2.x and its siblings, or misspelt."""

import difflib
import re
from collections.abc import Iterator

from .facts import Facts
from .findings import Finding

# Keys of MMCV's runner that MMEngine ignores -> what has their effect today.
OLD_KEYS = dict(
    data='train_dataloader, val_dataloader and test_dataloader (samples_per_gpu is batch_size today)',
    optimizer='optim_wrapper.optimizer',
    optimizer_config='optim_wrapper.clip_grad and optim_wrapper.accumulative_counts',
    lr_config='param_scheduler',
    momentum_config='param_scheduler',
    runner='train_cfg.max_epochs, or train_cfg.max_iters of an IterBasedTrainLoop',
    total_epochs='train_cfg.max_epochs',
    evaluation='train_cfg.val_interval, val_evaluator, and default_hooks.checkpoint.save_best',
    fp16="optim_wrapper.type='AmpOptimWrapper' (--amp)",
    checkpoint_config='default_hooks.checkpoint',
    log_config='default_hooks.logger.interval and visualizer.vis_backends',
    resume_from='load_from and resume=True (--resume CHECKPOINT)',
    auto_resume='resume=True (--resume)',
    workflow='train_cfg.val_interval and val_dataloader',
    seed='randomness.seed',
    deterministic='randomness.deterministic',
    gpu_ids='the environment variable CUDA_VISIBLE_DEVICES',
    dist_params='env_cfg.dist_cfg',
    cudnn_benchmark='env_cfg.cudnn_benchmark',
    mp_start_method='env_cfg.mp_cfg.mp_start_method',
    opencv_num_threads='env_cfg.mp_cfg.opencv_num_threads',
)
# Keys that MMEngine's runners, the libraries' tools or those of mmstvit read.
_KEYS = (
    *('auto_scale_lr', 'custom_hooks', 'custom_imports', 'data_faults', 'data_preprocessor', 'default_hooks'),
    *('default_scope', 'env_cfg', 'experiment_name', 'find_unused_parameters', 'load_from', 'log_level'),
    *('log_processor', 'model', 'model_wrapper_cfg', 'optim_wrapper', 'param_scheduler', 'randomness', 'resume'),
    *('rules', 'runner_type', 'strategy', 'sync_bn', 'test_cfg', 'test_dataloader', 'test_evaluator', 'train_cfg'),
    *('train_dataloader', 'tta_model', 'val_cfg', 'val_dataloader', 'val_evaluator', 'visualizer', 'work_dir'),
)


def check_keys(facts: Facts) -> Iterator[Finding]:
    """Warn of top-level keys of the 2.x libraries and of misspelt ones; helper variables are legal."""
    for key, value in facts.cfg.items():
        if value is None or key in _KEYS or _is_variable(key, facts.cfg.text):
            continue
        near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.85)
        if key in OLD_KEYS:
            values, remedy = ['of MMDetection 2.x and its siblings'], f'Set {OLD_KEYS[key]}, and remove {key}.'
            yield Finding('key without effect', key, values, remedy=remedy)
        elif near and not key.startswith(f'{near[0]}_'):
            yield Finding('key without effect', key, remedy=f'Did you mean {near[0]}?')


def _is_variable(key: str, text: str) -> bool:
    """Return True if a config uses the value of a key elsewhere, as in ``dict(optimizer=optimizer)``."""
    code = re.sub(r'#.*', '', text or '')
    used = rf'[=(\[,:*]\s*(_base_\.|{{{{_base_\.)?{re.escape(key)}\s*([,)\]}}.\[]|$)'
    return re.search(used, code, re.MULTILINE) is not None
