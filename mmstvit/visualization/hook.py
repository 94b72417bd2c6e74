"""Log super tokens during training."""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmstvit.compat import create_image_folder
from mmstvit.errors import UserError
from mmstvit.registry import HOOKS

from .extraction import find_backbone, super_tokens
from .panels import draw_blocks
from .token_maps import image_of


@HOOKS.register_module()
class SuperTokenVisHook(Hook):
    """Log the super tokens of a few validation images to the visualizer at each validation of a training run.

    Add ``dict(type='mmstvit.SuperTokenVisHook')`` to ``custom_hooks``. A picture has the boundaries of the super tokens
    and the mean color of each, for the last block of a stage. Its name is ``super_tokens/imageI/stageS_blockB``; its
    step is the epoch, or the iteration in a run without epochs. The weights are those that are validated. The first
    process draws. The run itself does not change: random numbers, BatchNorm statistics and modes stay as they are.

    Args:
        num_images: Number of images, the first of the validation data.
        interval: Draw at every n-th validation, beginning with the first.
        stages: Stages to draw, from 0; by default all that have super tokens.

    Raises:
        ValueError: ``num_images`` or ``interval`` is not a positive integer.
    """

    def __init__(self, num_images: int = 2, interval: int = 1, stages: Sequence[int] | None = None) -> None:
        for name, value in (('num_images', num_images), ('interval', interval)):
            if type(value) is not int or value < 1:
                raise ValueError(f'{name} must be a positive integer, but got {value!r}.')
        self.num_images, self.interval, self.stages = num_images, interval, stages
        self._trains = False
        self._validations = 0
        self._drawn = num_images  # images of this validation; all of them outside of a training run

    def before_train(self, runner: Runner) -> None:
        """Check that the hook has an effect.

        Raises:
            UserError: The model has no STViT; a stage has no super tokens; there is no validation.
        """
        try:
            _, backbone = find_backbone(runner.model)
        except UserError as error:
            raise UserError(
                f'SuperTokenVisHook needs one STViT: {error.problem}', 'Remove the hook from the config.'
            ) from error
        possible = [stage for stage, side in enumerate(backbone.arch.stoken_size) if side > 1]
        wanted = possible if self.stages is None else self.stages
        if not wanted or not set(wanted) <= set(possible):
            raise UserError(
                f'SuperTokenVisHook cannot draw stages={self.stages}: super tokens are in the stages {possible}.',
                f'Set stages={possible}.' if possible else 'Remove the hook from the config.',
            )
        if runner.val_loop is None:
            raise UserError(
                'SuperTokenVisHook draws validation images, but the config has no validation.',
                'Set val_dataloader, val_cfg and val_evaluator, or remove the hook.',
            )
        self._trains = True

    def after_train(self, runner: Runner) -> None:
        """Draw no validation that follows the run."""
        self._trains = False

    def before_val_epoch(self, runner: Runner) -> None:
        """Reset the image counter before each validation."""
        due = self._trains and self._validations % self.interval == 0 and is_main_process()
        self._drawn = 0 if due else self.num_images
        self._validations += self._trains

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Mapping, outputs: Sequence | None = None
    ) -> None:
        """Draw the images of a batch that are among the first."""
        for index in range(min(self.num_images - self._drawn, len(data_batch['inputs']))):
            # Data preprocessors write into data samples.
            sample = {key: copy.deepcopy(values[index]) for key, values in data_batch.items()}
            self._draw(runner, sample)
            self._drawn += 1

    def _draw(self, runner: Runner, sample: Mapping) -> None:
        """Log the pictures of one image."""
        last = {tokens.stage: tokens for tokens in super_tokens(runner.model, sample)}  # of each stage, the last block
        chosen = [tokens for stage, tokens in last.items() if self.stages is None or stage in self.stages]
        step = runner.epoch if isinstance(runner.train_loop, EpochBasedTrainLoop) else runner.iter
        for panels in draw_blocks(image_of(sample), chosen):
            picture = np.concatenate([panel.picture for panel in panels if panel.kind in ('boundaries', 'means')], 1)
            block = panels[0].block
            name = f'super_tokens/image{self._drawn}/stage{block.stage}_block{block.block}'
            create_image_folder(runner.visualizer, name)
            runner.visualizer.add_image(name, picture, step)
