"""Comparing checkpoints with the model before a run begins."""

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from torch import nn

from mmstvit.fileio import compare, open_checkpoint

from .requirements import find_pretrained


def check_weights(cfg: Config, model: nn.Module) -> None:
    """Compare pretrained weights, and the checkpoint of ``load_from``, with the model.

    Every file is read once: what is read here is kept for the run.

    Args:
        cfg: The config.
        model: Its model, which is not changed.

    Raises:
        CheckpointError: A file cannot be used: it is damaged, would execute code, or does not have the weights that
            the part of the model needs.
    """
    for part in model.modules():
        for _, init_cfg in find_pretrained(getattr(part, 'init_cfg', None) or [], 'init_cfg'):
            if init_cfg['checkpoint']:
                checkpoint, prefix = open_checkpoint(init_cfg['checkpoint'], keep=True), init_cfg.get('prefix')
                if hasattr(part, 'select_pretrained'):  # a part that knows foreign files
                    checkpoint = part.select_pretrained(checkpoint, prefix)
                elif prefix:
                    checkpoint = checkpoint.select(prefix)
                compare(part, checkpoint)
    if cfg.get('load_from') and not cfg.get('resume'):
        report = compare(model, open_checkpoint(cfg.load_from, keep=True))
        if is_main_process():  # MMEngine's own message names every key
            print_log(report.table(), logger='current')
