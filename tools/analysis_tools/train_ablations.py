"""Train the models of the paper's ablations at nano size on the objects of the bundled scenes, and write a table.

Each model is trained with several seeds, which change its initial weights and the order and augmentation of the images.
The accuracy before training is that of the initial weights. Results are kept in ``results.json`` of the work dir: a
second call continues where the first one stopped.

Examples::

    python tools/analysis_tools/train_ablations.py
    python tools/analysis_tools/train_ablations.py --only stvit-small_sta stvit-small_sta-iter-0 --seeds 0
"""

import argparse
import gc
import itertools
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from mmstvit.arch import ARCHS
from mmstvit.command_line import add_cfg_options, make_parser, positive, user_errors
from mmstvit.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'imagenet'
NANO = CONFIGS / 'stvit-nano_scenes.py'
SUFFIX = '_8xb128_in1k'
SIDE = 64  # of the images, in pixels


def models() -> dict[str, Path]:
    """Return the configs by the name of the model: the ablations that keep the channels of STViT-S, and STViT-S."""
    paths = [*sorted((CONFIGS / 'ablations').glob('stvit-small_*.py')), CONFIGS / f'stvit-small{SUFFIX}.py']
    return {path.stem.removesuffix(SUFFIX): path for path in paths}


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    parser.add_argument('--only', nargs='+', choices=sorted(models()), metavar='NAME', help='these models (all)')
    parser.add_argument('--epochs', type=positive, default=1, help='length of each training run (1)')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='seeds (0 1 2)')
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/ablations'), help='the dir to save the results'
    )
    add_cfg_options(parser)
    return parser.parse_args()


def at_nano_size(config: Path, epochs: int) -> 'Config':
    """Return the config that trains a model of ImageNet on the scenes, with the channels and blocks of nano."""
    from mmstvit.apis import read_config

    cfg, model = read_config(str(NANO), None), read_config(str(config), None).model
    channels = ARCHS['nano'].channels[-1]
    cfg.model.backbone = {**model.backbone, 'arch': 'nano', 'drop_path_rate': 0.0}
    if model.backbone.get('pos_embed') in ('ape', 'rpe'):
        cfg.model.backbone.img_size = SIDE
    if model.neck.type == 'mmstvit.STViTAblationNeck':
        cfg.model.neck = {**model.neck, 'in_channels': channels}
        cfg.model.head.in_channels = channels
    cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = epochs
    cfg.param_scheduler[1].update(end=epochs, T_max=epochs)
    cfg.default_hooks.checkpoint = None
    cfg.log_level = 'ERROR'
    return cfg


def train(cfg: 'Config', seed: int, folder: Path) -> tuple[float, float]:
    """Train a model; return its top-1 accuracy on the validation images before and after, in percent."""
    from mmengine.registry import DefaultScope
    from mmengine.runner import Runner

    cfg.randomness = dict(seed=seed)
    cfg.work_dir, cfg.experiment_name = str(folder), f'{folder.name}-{seed}'
    with DefaultScope.overwrite_default_scope('mmengine'):  # puts back what the runner changes
        runner = Runner.from_cfg(cfg)
        before = runner.val()['accuracy/top1']
        runner.train()
        return before, runner.message_hub.get_scalar('val/accuracy/top1').current()


def table(results: dict[str, dict[str, list[float]]]) -> str:
    """Return the results as a Markdown table: mean and range over the seeds."""
    lines = [
        '| model, at nano size | seeds | before training | after training | lowest to highest |',
        '|---|---|---|---|---|',
    ]
    for name, runs in results.items():
        before, after = zip(*runs.values(), strict=True)
        lines.append(
            f'| {name} | {len(runs)} | {statistics.mean(before):.1f} | {statistics.mean(after):.1f} '
            f'| {min(after):.1f} to {max(after):.1f} |'
        )
    return '\n'.join(lines)


def main() -> None:
    """Train what has no result yet, and print the table."""
    args = parse_args()
    with user_errors():
        from mmstvit.apis import check_data
        from mmstvit.fileio import write_atomically

        path = args.work_dir / 'results.json'
        known = json.loads(path.read_text()) if path.is_file() else {'epochs': args.epochs, 'accuracy': {}}
        if known['epochs'] != args.epochs:
            raise UserError(f'{path} has runs of {known["epochs"]} epochs.', 'Choose another --work-dir.')
        configs = {name: config for name, config in models().items() if not args.only or name in args.only}
        for seed, (name, config) in itertools.product(map(str, args.seeds), configs.items()):
            runs = known['accuracy'].setdefault(name, {})
            if seed in runs:
                continue
            cfg = at_nano_size(config, args.epochs)
            cfg.merge_from_dict(args.cfg_options or {})
            check_data(cfg, 'train', 'val')
            runs[seed] = train(cfg, int(seed), args.work_dir / name)
            gc.collect()  # runners refer to themselves
            write_atomically(json.dumps(known).encode(), path)
            print(f'{name}, seed {seed}: {runs[seed][1]:.1f} %', flush=True)
    print(table({name: known['accuracy'][name] for name in configs}))


if __name__ == '__main__':
    main()
