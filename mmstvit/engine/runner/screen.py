"""A short account of a run in the terminal before its first iteration; the log file has everything."""

import logging
from collections import Counter

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmstvit.fileio import unwrap

# How MMEngine's long messages begin: environment, config, hooks, a line for each parameter with settings of its own.
_LONG = ('\n---', 'Config:\n', 'Hooks will be executed', 'paramwise_options')


def shorten_screen(logger: MMLogger) -> None:
    """Show no long messages of MMEngine in the terminal."""
    for handler in logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.addFilter(lambda record: not record.getMessage().startswith(_LONG))


class SummaryHook(Hook):
    """Log model, length of the run and optimizer, and where the log file is, before training."""

    priority = 'VERY_LOW'

    def before_train(self, runner: Runner) -> None:
        """Log the summary."""
        model = unwrap(runner.model)
        parts = [type(model).__name__]
        if hasattr(model, 'backbone'):
            parts.append(f'with {type(model.backbone).__name__}')
        size = sum(parameter.numel() for parameter in model.parameters())
        frozen = size - sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        runner.logger.info(f'model: {" ".join(parts)}, {size / 1e6:.2f} M parameters, {frozen / 1e6:.2f} M frozen')
        loop, batch = runner.train_loop, getattr(runner.train_dataloader.batch_sampler, 'batch_size', 'several')
        length = f'{loop.max_iters} iterations'
        if isinstance(loop, EpochBasedTrainLoop):
            length = f'{loop.max_epochs} epochs, {length}'
        processes = get_world_size()
        runner.logger.info(f'length: {length} of {batch} images in {processes} process{"es" * (processes > 1)}')
        wrapper = runner.optim_wrapper
        for one in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
            for key in ('lr', 'weight_decay'):
                counts: Counter[float] = Counter()
                for group in one.param_groups:
                    counts[group.get('initial_lr', group[key]) if key == 'lr' else group[key]] += len(group['params'])
                values = ', '.join(f'{value:g} for {count} tensors' for value, count in counts.items())
                runner.logger.info(f'{type(one.optimizer).__name__}, {key}: {values}')
        for handler in runner.logger.handlers:
            if isinstance(handler, logging.FileHandler):
                runner.logger.info(f'config, environment and all else: {handler.baseFilename}')
