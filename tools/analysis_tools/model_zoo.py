"""Write ``docs/model_zoo.md`` and the ``metafile.yml`` of every family from the configs.

The template ``docs/_templates/model_zoo.md.in`` is the page without what is counted. In a row of a table ``{params}``,
``{flops}`` and ``{everything}`` stand for the count of the row's first config, in M and G. ``{params / 25}`` puts the
25 of the paper's tables behind it, and ``{flops / 4.4}`` the difference, too.
"""

import contextlib
import functools
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from mmstvit.command_line import make_parser, user_errors
from mmstvit.errors import UserError

if TYPE_CHECKING:
    from mmstvit.analysis import Complexity

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / 'docs' / '_templates' / 'model_zoo.md.in'
PAPER = {'Title': 'Vision Transformer with Super Token Sampling', 'URL': 'https://arxiv.org/abs/2211.11167'}
LINK = re.compile(r'\(\.\./configs/(\S+\.py)\)')
COUNT = re.compile(r'\{(params|flops|everything)(?: / ([\d.]+))?\}')

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

# Several configs train one model.
_COUNTED: dict[tuple[str, tuple[int, int]], 'Complexity'] = {}


@functools.cache
def count_model(config: str) -> 'Complexity':
    """Count the model of a config below ``configs``, at the default shape of its kind."""
    import torch

    from mmstvit.analysis import count_complexity, default_shape
    from mmstvit.apis import build_model, read_config

    with contextlib.redirect_stdout(sys.stderr):  # libraries log to standard output
        cfg = read_config(str(ROOT / 'configs' / config), None)
        key = str(cfg.model), default_shape(cfg)
        if key not in _COUNTED:
            with torch.device('meta'):  # initializing the weights would take most of the time
                model = build_model(cfg)
            _COUNTED[key] = count_complexity(model, default_shape(cfg))
        return _COUNTED[key]


def count_all(config: str) -> dict[str, float]:
    """Return the counts that a row shows: parameters in M; FLOPs in the paper's convention, and of everything, in G."""
    total = count_model(config).total
    # The paper counts everything in classifiers, and layers alone in detectors and segmentors.
    flops = total.everything if config.startswith('imagenet/') else total.layers
    return {'params': total.params / 1e6, 'flops': flops / 1e9, 'everything': total.everything / 1e9}


def fill(line: str) -> str:
    """Put counts into a line of the template."""
    if not COUNT.search(line):
        return line
    counts = count_all(LINK.search(line)[1])
    digits = {'params': 2, **dict.fromkeys(('flops', 'everything'), 2 if counts['flops'] < 100 else 1)}

    def replace(found: re.Match) -> str:
        name, printed = found.groups()
        text = f'{counts[name]:.{digits[name]}f}' + (f' / {printed}' if printed else '')
        return text + (f' ({counts[name] / float(printed) - 1:+.1%})' if printed and name == 'flops' else '')

    return COUNT.sub(replace, line)


def metafile(family: str) -> str:
    """Return the ``metafile.yml`` of a folder of configs, for mim, MMEngine's hub and MMPreTrain."""
    from mmengine.config import Config

    collection = FAMILIES[family]
    models = []
    for path in sorted((ROOT / 'configs' / family).glob('*.py')):
        train_cfg = Config.fromfile(path).train_cfg
        length = {'Epochs': 'max_epochs', 'Iterations': 'max_iters'}
        result = count_model(f'{family}/{path.name}')
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
    shapes = sorted({count_model(f'{family}/{Path(model["Config"]).name}').shape for model in models})
    sizes = ' or '.join(f'{height}x{width}' for height, width in shapes)
    head = (
        '# Written by tools/analysis_tools/model_zoo.py. No weights are published.\n'
        f'# FLOPs: multiply-accumulates of everything at {sizes}; see docs/model_zoo.md.\n'
    )
    return head + yaml.safe_dump(content, sort_keys=False, width=120)


def document() -> str:
    """Return the text of ``docs/model_zoo.md``."""
    from mmstvit.analysis import NUM_BOXES, NUM_MASKS

    text = ''.join(map(fill, TEMPLATE.read_text().splitlines(keepends=True)))
    return text.replace('{boxes}', str(NUM_BOXES)).replace('{masks}', str(NUM_MASKS))


def outputs() -> dict[Path, str]:
    """Return every file that this tool writes, with its content."""
    files = {ROOT / 'docs' / 'model_zoo.md': document()}
    return files | {ROOT / 'configs' / family / 'metafile.yml': metafile(family) for family in FAMILIES}


def main() -> None:
    """Write the files, or check them."""
    parser = make_parser(__doc__)
    parser.add_argument('--check', action='store_true', help='write nothing; fail if a file is not up to date')
    args = parser.parse_args()
    with user_errors():
        if not TEMPLATE.is_file():
            raise UserError(f'{TEMPLATE} does not exist.', 'Run this tool in a checkout of the project.')
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
