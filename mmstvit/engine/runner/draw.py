"""Pictures of the predictions of a test, for the three libraries alike."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import mmcv
from mmengine import fileio
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from mmstvit.datasets.wrappers import inner_datasets
from mmstvit.errors import UserError


def check_draw(cfg: Config, args: argparse.Namespace) -> None:
    """Check that ``--show`` and ``--show-dir`` can draw every image; make masks half transparent.

    Raises:
        UserError: The config has no visualizer, or there are several processes, of which MMEngine lets one draw.
    """
    if not (args.show or args.show_dir):
        return
    if cfg.get('visualizer') is None:
        raise UserError('--show and --show-dir need a visualizer in the config, which does not have one.')
    if cfg.get('launcher', 'none') != 'none':
        raise UserError(
            '--show and --show-dir draw in one process only: of several, each has a part of the images.',
            'Run tools/test.py without --launcher.',
        )
    if cfg.visualizer.get('type') in ('DetLocalVisualizer', 'SegLocalVisualizer'):
        cfg.visualizer.setdefault('alpha', 0.5)  # half transparent: object and mask are both visible


class DrawHook(Hook):
    """Draw every test image with its prediction, into a folder, a window or both.

    Args:
        cfg: Config of the test.
        folder: Folder for the pictures; below it they have the paths of the images below the root of the data.
        show: Show each picture in a window.
        wait_time: Seconds for which a window stays open.
    """

    def __init__(self, cfg: Config, folder: str | None, show: bool, wait_time: float) -> None:
        self.folder = folder and Path(folder)
        readers = [reader for _, reader in inner_datasets(cfg.test_dataloader.dataset)]
        roots = [os.path.abspath(os.path.expanduser(reader.get('data_root') or '.')) for reader in readers]
        self.root = os.path.commonpath(roots)
        self.backend_args = readers[0].get('backend_args')
        hook = (cfg.get('default_hooks') or {}).get('visualization') or {}
        self.options = {'score_thr': hook.get('score_thr'), 'show': show, 'wait_time': wait_time}
        self.count = 0

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: object, outputs: Sequence[BaseDataElement]
    ) -> None:
        """Draw the images of a batch."""
        visualizer = runner.visualizer
        if self.folder is None:
            visualizer._vis_backends = {}  # a picture that is only shown is not stored, as in the libraries' own hooks
        options = dict(self.options)
        threshold = options.pop('score_thr')
        draw = getattr(visualizer, 'visualize_cls', None)  # MMPreTrain's
        if draw is None:
            draw = visualizer.add_datasample
            if threshold is not None:
                options['pred_score_thr'] = threshold
        for sample in outputs:
            self.count += 1
            image = mmcv.imfrombytes(fileio.get(sample.img_path, self.backend_args), channel_order='rgb')
            out_file = self.folder and str(self.folder / self.relative_path(sample.img_path))
            draw(name=sample.img_path, image=image, data_sample=sample, out_file=out_file, step=self.count, **options)

    def relative_path(self, path: str) -> Path:
        """Return the path of an image below the root of the data; its whole path if it is elsewhere."""
        absolute = Path(os.path.abspath(path))
        below = absolute.is_relative_to(self.root)
        return absolute.relative_to(self.root if below else absolute.anchor)

    def after_test(self, runner: Runner) -> None:
        """Log where the pictures are."""
        if self.folder is not None:
            runner.logger.info(f'{self.count} pictures of predictions are in {self.folder}')
