"""What CheckFiniteHook costs: iterations of a classifier's training with it and without it, in turn, in one run."""

import argparse
import statistics
import tempfile
import time

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from mmstvit.apis import UserError, add_cfg_options, read_config, user_errors
from mmstvit.hooks import CheckFiniteHook


class Noise(Dataset):
    """Images of noise, 0 to 255, in memory: what is timed is training, not reading."""

    def __init__(self, size: int, length: int) -> None:
        self.image = torch.randint(256, (3, size, size), dtype=torch.uint8)
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=self.image, data_samples=DataSample().set_gt_label(index % 5))


class InTurn(Hook):
    """Lets another hook see every second iteration, and times all of them."""

    priority = CheckFiniteHook.priority

    def __init__(self, hook: CheckFiniteHook) -> None:
        self.hook = hook
        self.seconds: list[float] = []

    def before_train(self, runner: Runner) -> None:
        self.hook.before_train(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        self._wait()
        self._start = time.perf_counter()
        if runner.iter % 2:
            self.hook.before_train_iter(runner, batch_idx, data_batch)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: dict | None = None
    ) -> None:
        if runner.iter % 2:
            self.hook.after_train_iter(runner, batch_idx, data_batch, outputs)
        self._wait()
        self.seconds.append(time.perf_counter() - self._start)

    def _wait(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def report(self, warmup: int) -> str:
        without, with_hook = (self.seconds[2 * warmup + i :: 2] for i in (0, 1))
        ratios = sorted(b / a for a, b in zip(without, with_hook, strict=True))
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        return (
            f'an iteration with CheckFiniteHook / without: {statistics.median(ratios):.4f} (half of {len(ratios)} '
            f'pairs between {low:.4f} and {high:.4f}); without: {statistics.median(without) * 1e3:.1f} ms'
        )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of a classifier')
    parser.add_argument('--batch-size', type=int, default=8, help='images of an iteration')
    parser.add_argument('--image-size', type=int, default=224, help='their side')
    parser.add_argument('--pairs', type=int, default=20, help='how many pairs of iterations to time')
    parser.add_argument('--warmup', type=int, default=2, help='pairs before them')
    add_cfg_options(parser)
    return parser.parse_args()


def measure(args: argparse.Namespace, cfg: Config, work_dir: str) -> str:
    iterations = 2 * (args.pairs + args.warmup)
    in_turn = InTurn(CheckFiniteHook(interval=iterations))  # the weights, looked at once at the end, are timed apart
    runner = Runner(
        model=cfg.model,
        data_preprocessor=cfg.get('data_preprocessor'),
        optim_wrapper=cfg.optim_wrapper,
        work_dir=work_dir,
        train_dataloader=dict(
            batch_size=args.batch_size,
            num_workers=0,
            dataset=Noise(args.image_size, args.batch_size * iterations),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=iterations),
        default_hooks=dict(checkpoint=None, logger=None),
        custom_hooks=[in_turn],
        default_scope=cfg.default_scope,
        log_level='WARNING',
    )
    runner.train()
    begin = time.perf_counter()
    in_turn.hook.before_val(runner)
    weights = (time.perf_counter() - begin) * 1e3
    return f'{in_turn.report(args.warmup)}; a look at the weights, every 50 iterations by default: {weights:.1f} ms'


def main() -> None:
    args = parse_args()
    with user_errors():
        cfg = read_config(args.config, args.cfg_options)
        if cfg.default_scope != 'mmpretrain':
            raise UserError(f'{args.config} is no classifier: its default_scope is {cfg.default_scope!r}.')
        with tempfile.TemporaryDirectory() as work_dir:
            print(measure(args, cfg, work_dir))


if __name__ == '__main__':
    main()
