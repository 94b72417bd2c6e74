"""Write ``docs/model_zoo.md`` and the ``metafile.yml`` of every family from the configs and the paper's tables."""

import argparse
import contextlib
import functools
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from mmengine.config import Config

from mmstvit.analysis import NUM_BOXES, NUM_MASKS, Complexity, Cost, count_complexity, default_shape
from mmstvit.apis import build_model, read_config, user_errors
from mmstvit.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PAPER = {'Title': 'Vision Transformer with Super Token Sampling', 'URL': 'https://arxiv.org/abs/2211.11167'}


@dataclass(frozen=True)
class Row:
    """A model of the paper, or one of ours that completes a family.

    Args:
        name: Name in the table.
        configs: Configs of the model below ``configs``, by schedule.
        params: Millions of parameters, as the paper prints them; None if the paper does not have the model.
        gflops: Billions of multiply-accumulates, as the paper prints them.
        reported: The paper's accuracy.
        note: A remark.
    """

    name: str
    configs: dict[str, str]
    params: int | None = None
    gflops: float | None = None
    reported: str = '–'
    note: str = ''


def _imagenet(size: str, name: str, side: int, params: int, gflops: float, top1: float, note: str = '') -> Row:
    config = f'imagenet/stvit-{size}_{"8xb128_in1k" if side == 224 else "8xb64_in1k-384px"}.py'
    return Row(f'STViT-{name}, {side}²', {'config': config}, params, gflops, f'{top1} % top-1', note)


def _mask_rcnn(size: str, name: str, params: int, gflops: float, once: str, thrice: str) -> Row:
    configs = {schedule: f'mask_rcnn/mask-rcnn_stvit-{size}_fpn_{schedule}_coco.py' for schedule in ('1x', 'ms-3x')}
    reported = f'1x {once}, 3x {thrice} AP box / mask'
    return Row(f'Mask R-CNN, STViT-{name}', configs, params, gflops, reported)


def _faster_rcnn(size: str, name: str) -> Row:
    config = f'faster_rcnn/faster-rcnn_stvit-{size}_fpn_1x_coco.py'
    return Row(f'Faster R-CNN, STViT-{name}', {'1x': config}, note='not in the paper')


def _cascade(size: str, name: str, params: int | None = None, gflops: float | None = None, ap: str = '–') -> Row:
    config = f'cascade_mask_rcnn/cascade-mask-rcnn_stvit-{size}_fpn_4conv1fc-giou_ms-3x_coco.py'
    note = '' if params else 'not in the paper'
    return Row(f'Cascade Mask R-CNN, STViT-{name}', {'ms-3x': config}, params, gflops, ap, note)


def _upernet(size: str, name: str, params: int, gflops: float, miou: str) -> Row:
    config = f'upernet/stvit-{size}_upernet_8xb2-160k_ade20k-512x512.py'
    return Row(f'UPerNet, STViT-{name}', {'160k': config}, params, gflops, f'{miou} mIoU single / multi-scale')


def _transformer(name: str, schedule: str, config: str) -> Row:
    return Row(f'{name}, STViT-S', {schedule: config}, note='not in the paper; recipe of the library, settings of ours')


# Source of every number: the tables of the paper (arXiv 2211.11167).
ROWS = (
    _imagenet('small', 'S', 224, 25, 4.4, 83.6),
    _imagenet('base', 'B', 224, 52, 9.9, 84.8),
    _imagenet('large', 'L', 224, 95, 15.6, 85.3),
    _imagenet('small', 'S', 384, 25, 14.1, 85.0),
    _imagenet('base', 'B', 384, 52, 31.5, 86.0, '32.5 G in the README of the official implementation is a typo'),
    _imagenet('large', 'L', 384, 95, 49.7, 86.4),
    _mask_rcnn('small', 'S', 44, 252, '47.6 / 43.1', '49.2 / 44.2'),
    _mask_rcnn('base', 'B', 70, 359, '49.7 / 44.8', '51.0 / 45.4'),
    _mask_rcnn('large', 'L', 114, 470, '50.8 / 45.5', '51.7 / 45.9'),
    _faster_rcnn('small', 'S'),
    _faster_rcnn('base', 'B'),
    _faster_rcnn('large', 'L'),
    _cascade('small', 'S'),
    _cascade('base', 'B', 108, 837, '3x 53.9 / 46.8 AP box / mask'),
    _cascade('large', 'L'),
    _upernet('small', 'S', 54, 926, '48.6 / 49.0'),
    _upernet('base', 'B', 80, 1036, '50.7 / 51.9'),
    _upernet('large', 'L', 125, 1151, '52.4 / 53.2'),
    _transformer('Mask2Former, instances', '50e', 'mask2former/mask2former_stvit-small_8xb2-lsj-50e_coco.py'),
    _transformer('Mask2Former, semantic', '160k', 'mask2former/mask2former_stvit-small_8xb2-160k_ade20k-512x512.py'),
    _transformer('DINO, 4 scales', '12e', 'dino/dino-4scale_stvit-small_8xb2-12e_coco.py'),
)


@dataclass(frozen=True)
class Ablation:
    """A row of the paper's Tables 6, 7 and 9.

    Args:
        tables: Numbers of the tables.
        name: Name in the table.
        config: Config below ``configs/imagenet``, without ``_8xb128_in1k.py``.
        params: Millions of parameters, as the paper prints them; empty if it does not.
        gflops: Billions of multiply-accumulates, as the paper prints them; empty if it does not.
        note: A remark.
    """

    tables: str
    name: str
    config: str
    params: str
    gflops: str
    note: str = ''

    @property
    def path(self) -> str:
        """Return the path of the config below ``configs``."""
        return f'imagenet/{self.config}_8xb128_in1k.py'


_STA = 'ablations/stvit-small_sta'
# Source of every number: the tables of the paper.
ABLATIONS = (
    Ablation('6, 7, 9', 'STA-4stage: grids 8, 4, 1, 1; one iteration', _STA, '24.1', '3.97'),
    Ablation('6', '+ convolution stem', f'{_STA}-stem', '24.2', '4.26'),
    Ablation('6', '+ projection', f'{_STA}-stem-projection', '25.2', '4.29'),
    Ablation('6', '+ CPE', f'{_STA}-stem-projection-cpe', '25.3', '4.30'),
    Ablation('6', '+ ConvFFN: STViT-S', 'stvit-small', '25.4', '4.37'),
    Ablation(
        '6', 'APE instead of CPE', f'{_STA}-stem-projection-ape', '24.2', '4.29',
        'a misprint: an embedding cannot take a million parameters away from the row with projection',
    ),
    Ablation('6', 'RPE instead of CPE', f'{_STA}-stem-projection-rpe', '25.3', '4.29'),
    Ablation('6', 'ConvFFN without shortcut', 'ablations/stvit-small_ffn-without-shortcut', '', ''),
    Ablation('7', 'grids 8, 1, 1, 1', f'{_STA}-grid-8-1-1-1', '', '4.97'),
    Ablation('7', 'grids 8, 4, 2, 1', f'{_STA}-grid-8-4-2-1', '', '3.27'),
    Ablation('7', 'grids 4, 2, 1, 1', f'{_STA}-grid-4-2-1-1', '', '4.15'),
    Ablation('7', 'no iteration', f'{_STA}-iter-0', '', '3.93'),
    Ablation('7', 'two iterations', f'{_STA}-iter-2', '', '4.00'),
    Ablation('9', 'blocks and channels of Swin-T', 'ablations/stvit-swin-tiny_sta', '30', '4.3'),
    Ablation('9', 'with RPE', f'{_STA}-rpe', '24', '4.0'),
)  # fmt: skip

# Folder of configs -> name of its collection.
FAMILIES = {
    'imagenet': 'STViT',
    'imagenet/ablations': 'STViT ablations',
    'mask_rcnn': 'STViT Mask R-CNN',
    'faster_rcnn': 'STViT Faster R-CNN',
    'cascade_mask_rcnn': 'STViT Cascade Mask R-CNN',
    'upernet': 'STViT UPerNet',
    'mask2former': 'STViT Mask2Former',
    'dino': 'STViT DINO',
}
# Part of a config's name -> what it trains on.
DATA = {'_in1k': 'ImageNet-1k', '_coco': 'COCO', '_ade20k': 'ADE20K', '_scenes': 'bundled scenes'}

TEXT = f"""# Model zoo

<!-- Written by tools/analysis_tools/model_zoo.py from the configs; edit that file and run it. -->

**This project has trained none of these models on ImageNet, COCO or ADE20K, and publishes no weights.** The accuracy is
what the paper ([arXiv 2211.11167]({PAPER['URL']})) reports; the configs follow its recipes. The last column
says which models are not in the paper. Parameters and FLOPs are counted from the configs and compared with the paper's
by a test. The published ImageNet checkpoints can be used after `tools/model_converters/stvit_to_mm.py`.

{{table}}

FLOPs are multiply-accumulates of one image at inference, in units of 10⁹, at 224² or 384² for classifiers, 800×1280 for
detectors and 512×2048 for segmentors. The difference from the paper is in brackets.

```bash
python tools/analysis_tools/get_flops.py CONFIG            # both conventions, for any config
python tools/analysis_tools/get_flops.py CONFIG --depth 2  # by module
```

## Two conventions

**Everything** counts convolutions and linear layers (one per product, and one per output element for the bias), norms
(two per element) and every product of activations: attention, and the association, update and upsampling of super
tokens. Activation functions, softmax, pooling, interpolation, element-wise sums and products, RoIAlign and NMS are not
counted.

**The paper's convention** is *everything* for classifiers. For detectors and segmentors it is convolutions, linear
layers and norms alone: counters that attach to layers do not see a product of two activations. The paper does not say
so; its numbers do. With the products, Mask R-CNN with STViT-S has 351 G, not the 252 G that the paper prints. Most of
the difference is the global attention of the third stage. Numbers of other papers may include it: the 267 G that Swin's
authors print for Mask R-CNN with Swin-T do (counted here: 267.1 G with, 264.0 G without).

- Detectors: {NUM_BOXES} regions pass every box head, {NUM_MASKS} every mask head. Cascade Mask R-CNN has three of each.
- Segmentors: the parameters include the auxiliary head, here and in the paper. Its FLOPs (3 G) are left out, because
  inference does not run it.
- Mask2Former and DINO: all queries pass all layers. Deformable attention counts its linear layers; it samples by
  interpolation and sums element-wise. The 279 G that DINO's authors print for four scales with ResNet-50 are 279.2 G
  here, with attention. The product of classes and masks that makes a map of Mask2Former (16 G) comes after the head and
  is left out.

## Ablations

{{ablations}}

The models of Tables 6, 7 and 9 of the paper at 224², derived from its text and its numbers: the official implementation
does not have them. STA-4stage is STViT-S with a 4×4 patch stem, without position embedding, convolution in the FFN and
1×1 convolution before the pooling. A row with "+" adds to the row before it. Without iteration, super tokens are
the means of their cells, and the association serves the upsampling alone. The configs have the 224² recipe.

The paper's FLOPs seem to contain the convolutions by which the official implementation gathers the neighbors of a super
token. They are slices here, which multiply nothing. The backend `naive` has these convolutions. With it, grids
8, 4, 2, 1 come to the 3.27 of the paper and two iterations to its 4.00:

```bash
MMSTVIT_BACKEND=naive python tools/analysis_tools/get_flops.py configs/imagenet/{_STA}-grid-8-4-2-1_8xb128_in1k.py
```
"""

ABLATION_HEAD = (
    '| table | model | parameters, M / in the paper | FLOPs, G / in the paper | accuracy, ours | remark |',
    '|---|---|---|---|---|---|',
)

TABLE_HEAD = (
    "| model | parameters, M / in the paper | FLOPs, G, paper's convention / in the paper | FLOPs, G, everything "
    '| accuracy reported by the paper | accuracy, ours | remark |',
    '|---|---|---|---|---|---|---|',
)


# Several configs train one model.
_COUNTED: dict[tuple[str, tuple[int, int]], Complexity] = {}


@functools.cache
def count(config: str) -> Complexity:
    """Count the model of a config below ``configs``, at the default shape of its kind."""
    with contextlib.redirect_stdout(sys.stderr):  # libraries log to standard output
        cfg = read_config(str(ROOT / 'configs' / config), None)
        key = str(cfg.model), default_shape(cfg)
        if key not in _COUNTED:
            with torch.device('meta'):  # initializing the weights would take most of the time
                model = build_model(cfg)
            _COUNTED[key] = count_complexity(model, default_shape(cfg))
        return _COUNTED[key]


def paper_macs(config: str, cost: Cost) -> int:
    """Return multiply-accumulates in the paper's convention: everything for classifiers, layers alone for others."""
    return cost.everything if config.startswith('imagenet/') else cost.layers


def table_line(row: Row) -> str:
    """Return a row of the table; all configs of a row have the same model."""
    config = next(iter(row.configs.values()))
    total = count(config).total
    links = ', '.join(f'[{name}](../configs/{path})' for name, path in row.configs.items())
    ours = paper_macs(config, total) / 1e9
    digits = 2 if ours < 100 else 1
    flops = f'{ours:.{digits}f}' + (f' / {row.gflops} ({ours / row.gflops - 1:+.1%})' if row.gflops else '')
    cells = [
        f'{row.name} ({links})',
        f'{total.params / 1e6:.2f}' + (f' / {row.params}' if row.params else ''),
        flops,
        f'{total.everything / 1e9:.{digits}f}',
        row.reported,
        'not trained',
        row.note,
    ]
    return '| ' + ' | '.join(map(str, cells)) + ' |'


def ablation_line(row: Ablation) -> str:
    """Return a row of the table of ablations."""
    total = count(row.path).total
    gflops = total.everything / 1e9
    printed = f' / {row.gflops} ({gflops / float(row.gflops) - 1:+.1%})' if row.gflops else ''
    cells = [
        row.tables,
        f'[{row.name}](../configs/{row.path})',
        f'{total.params / 1e6:.2f}' + (f' / {row.params}' if row.params else ''),
        f'{gflops:.2f}{printed}',
        'not trained',
        row.note,
    ]
    return '| ' + ' | '.join(map(str, cells)) + ' |'


def metafile(family: str) -> str:
    """Return the ``metafile.yml`` of a folder of configs, for mim, MMEngine's hub and MMPreTrain."""
    collection = FAMILIES[family]
    models = []
    for path in sorted((ROOT / 'configs' / family).glob('*.py')):
        train_cfg = Config.fromfile(path).train_cfg
        length = {'Epochs': 'max_epochs', 'Iterations': 'max_iters'}
        result = count(f'{family}/{path.name}')
        metadata = {'Training Data': next(data for part, data in DATA.items() if part in path.stem)}
        metadata.update({name: train_cfg[key] for name, key in length.items() if key in train_cfg})
        metadata.update({'FLOPs': result.total.everything, 'Parameters': result.total.params})
        config = path.relative_to(ROOT).as_posix()
        models.append({'Name': path.stem, 'In Collection': collection, 'Config': config, 'Metadata': metadata})
    architecture = {'Architecture': ['Super Token Attention', 'Convolutional Position Embedding']}
    content = {
        'Collections': [{'Name': collection, 'Metadata': architecture, 'Paper': PAPER}],
        'Models': models,
    }
    shapes = sorted({count(f'{family}/{Path(model["Config"]).name}').shape for model in models})
    sizes = ' or '.join(f'{height}x{width}' for height, width in shapes)
    head = (
        '# Written by tools/analysis_tools/model_zoo.py. No weights are published.\n'
        f'# FLOPs: multiply-accumulates of everything at {sizes}; see docs/model_zoo.md.\n'
    )
    return head + yaml.safe_dump(content, sort_keys=False, width=120)


def document() -> str:
    """Return the text of ``docs/model_zoo.md``."""
    tables = {
        '{table}': [*TABLE_HEAD, *map(table_line, ROWS)],
        '{ablations}': [*ABLATION_HEAD, *map(ablation_line, ABLATIONS)],
    }
    text = TEXT
    for place, lines in tables.items():
        text = text.replace(place, '\n'.join(lines))
    return text


def outputs() -> dict[Path, str]:
    """Return every file that this tool writes, with its content."""
    files = {ROOT / 'docs' / 'model_zoo.md': document()}
    return files | {ROOT / 'configs' / family / 'metafile.yml': metafile(family) for family in FAMILIES}


def main() -> None:
    """Write the files, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='write nothing; fail if a file is not up to date')
    args = parser.parse_args()
    with user_errors():
        if not (ROOT / 'docs').is_dir():
            raise UserError(f'{ROOT} does not have a folder docs.', 'Run this tool in a checkout of the project.')
        files = outputs()
        stale = [path for path, text in files.items() if not path.is_file() or path.read_text() != text]
        names = ', '.join(path.relative_to(ROOT).as_posix() for path in stale) or 'nothing'
        if args.check and stale:
            raise UserError(f'not up to date: {names}.', 'Run: python tools/analysis_tools/model_zoo.py')
    for path in stale:
        path.write_text(files[path])
    print('all files are up to date' if args.check else f'written: {names}')


if __name__ == '__main__':
    main()
