"""Pictures of the predictions of a test, for the three libraries alike."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from mmstvit.datasets.images import IMAGE_READER
from mmstvit.datasets.wrappers import inner_datasets
from mmstvit.drawing import class_colors, draw_sample, to_rgb
from mmstvit.errors import UserError


def check_draw(cfg: Config, args: argparse.Namespace) -> None:
    """Check that ``--show`` and ``--show-dir`` can draw every image.

    Raises:
        UserError: There are several processes, of which MMEngine lets one draw.
    """
    if (args.show or args.show_dir) and cfg.get('launcher', 'none') != 'none':
        raise UserError(
            '--show and --show-dir draw in one process only: of several, each has a part of the images.',
            'Run tools/test.py without --launcher.',
        )


class DrawHook(Hook):
    """Draw every test image with its ground truth, if it has one, and its prediction side by side.

    Args:
        cfg: Config of the test.
        folder: Folder for the pictures; below it they have the paths of the images below the root of the data.
        show: Show each picture in a window of the visualizer.
        wait_time: Seconds for which a window stays open.
    """

    def __init__(self, cfg: Config, folder: str | None, show: bool, wait_time: float) -> None:
        self.folder = folder and Path(folder)
        readers = [reader for _, reader in inner_datasets(cfg.test_dataloader.dataset)]
        roots = [os.path.abspath(os.path.expanduser(reader.get('data_root') or '.')) for reader in readers]
        self.root = os.path.commonpath(roots)
        self.backend_args = readers[0].get('backend_args')
        score = ((cfg.get('default_hooks') or {}).get('visualization') or {}).get('score_thr')
        self.score = score if score is not None else 0.3 if cfg.get('default_scope') == 'mmdet' else 0.0
        self.show, self.wait_time = show, wait_time
        self.count = 0

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: object, outputs: Sequence[BaseDataElement]
    ) -> None:
        """Draw the images of a batch."""
        for sample in outputs:
            self.count += 1
            picture = self.draw(sample, runner.visualizer.dataset_meta or {})
            if self.folder is not None:
                path = self.folder / self.relative_path(sample.img_path)
                if not cv2.haveImageWriter(str(path)):  # such as HEIC
                    path = path.with_name(f'{path.name}.jpg')
                mmcv.imwrite(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), str(path))  # makes the folder too
            if self.show:
                runner.visualizer.show(picture, sample.img_path, self.wait_time)

    def draw(self, sample: BaseDataElement, meta: dict) -> np.ndarray:
        """Draw ground truth and prediction of an image: RGB.

        Args:
            sample: The image with its prediction.
            meta: ``classes`` and ``palette`` of the dataset.

        Raises:
            UserError: The prediction is of another kind than those of the three libraries' usual heads.
        """
        image = to_rgb(replace(IMAGE_READER, backend_args=self.backend_args).read(sample.img_path))
        classes = [str(name) for name in meta.get('classes') or range(1000)]
        colors = class_colors(classes, meta.get('palette'))
        truth = draw_sample(image, sample, classes, colors, 'gt')
        prediction = draw_sample(image, sample, classes, colors, 'pred', self.score)
        if prediction is None:
            raise UserError(f'--show and --show-dir cannot draw a prediction of {", ".join(sample.keys())}.')
        return prediction if truth is None else np.concatenate([truth, prediction], 1)

    def relative_path(self, path: str) -> Path:
        """Return the path of an image below the root of the data; its whole path if it is elsewhere."""
        absolute = Path(os.path.abspath(path))
        below = absolute.is_relative_to(self.root)
        return absolute.relative_to(self.root if below else absolute.anchor)

    def after_test(self, runner: Runner) -> None:
        """Log where the pictures are."""
        if self.folder is not None:
            runner.logger.info(f'{self.count} pictures of predictions are in {self.folder}')
