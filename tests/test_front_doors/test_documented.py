"""The last section of ``docs/training.md``, command by command: the tools of the libraries, on a few scenes.

The commands and Python blocks are read from the document. Each runs in a fork of a process that has imported the
library and not mmstvit: only the config names mmstvit. Options shorten the training runs.
"""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from ..helpers import NANO, ROOT, link_scenes, scalars

DOCUMENT = (ROOT / 'docs' / 'training.md').read_text().partition("## Our configs in the libraries' own tools")[2]
TITLES = {'mmdet': 'MMDetection', 'mmseg': 'MMSegmentation', 'mmpretrain': 'MMPreTrain'}
SHORT = {
    'mmdet': ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1'],
    'mmseg': ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2'],
    'mmpretrain': ['train_cfg.max_epochs=1'],
}
NAMES = {library: Path(config).name for library, config in NANO.items()}
DOORS = Path('work_dirs') / 'doors'

# Appended to the Python blocks: compare the results with a forward pass on an image and weights that are read here.
CHECKS = {
    'mmdet': """
prediction = result['predictions'][0]
count = len(prediction['scores'])
assert 0 < count <= 20
assert [len(prediction[key]) for key in ('labels', 'bboxes', 'masks')] == [count] * 3
assert all(0 <= label < 5 for label in prediction['labels'])
assert inferencer.model.dataset_meta['classes'] == ('circle', 'square', 'triangle', 'star', 'digit')
""",
    'mmseg': """
from mmseg.models.utils import resize

logits = model.decode_head(model.backbone(read('data/scenes/ade20k/images/validation/000001.jpg')))
expected = resize(logits, size=(192, 192), mode='bilinear', align_corners=False).argmax(1)[0]
assert (torch.from_numpy(result['predictions']) == expected).all()
""",
    'mmpretrain': """
logits = model.head.fc(model.neck(model.backbone(read(str(image))))[-1])
torch.testing.assert_close(torch.from_numpy(result[0]['pred_scores']), logits.softmax(-1)[0], rtol=1e-5, atol=1e-6)
assert result[0]['pred_class'] == ['circle', 'digit', 'square', 'star', 'triangle'][logits.argmax()]
""",
}
OUR_FORWARD = """
import cv2
import torch
from mmstvit import STViT

torch.set_grad_enabled(False)
model = inferencer.model
assert isinstance(model.backbone, STViT) and not model.training
state = torch.load(checkpoint, weights_only=False)['state_dict']
assert state.keys() == model.state_dict().keys()
assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())

def read(path):
    image = torch.from_numpy(cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)).permute(2, 0, 1)[None].float()
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    return (image - mean[:, None, None]) / std[:, None, None]
"""

long = pytest.mark.long


def code_blocks(title: str, language: str) -> list[str]:
    """Blocks of code of one section."""
    section = re.search(rf'^### {title}\n(.*?)(?=^### |\Z)', DOCUMENT, re.MULTILINE | re.DOTALL).group(1)
    return re.findall(rf'```{language}\n(.*?)```', section, re.DOTALL)


def commands(library: str) -> dict[str, str]:
    """The commands of a library's section by the name of the script."""
    (block,) = code_blocks(TITLES[library], 'bash')
    lines = block.replace('\\\n', ' ').splitlines()
    return {Path(re.search(r'\S+\.py', line.split('/bin/python ')[1]).group()).stem: line for line in lines}


# Arguments: library, JSON of [name, kind, command or code]. Writes name.log, and the exit codes to codes.json.
DRIVER = """
import importlib, json, os, runpy, subprocess, sys, traceback

library, jobs = sys.argv[1], json.loads(sys.argv[2])
importlib.import_module(f'{library}.utils').register_all_modules(init_default_scope=False)
importlib.import_module(f'{library}.apis')
assert 'mmstvit' not in sys.modules

def run(kind, command):
    if kind == 'code':
        exec(compile(command, '<document>', 'exec'), {'__name__': '__main__'})
        return
    expand = subprocess.run(['bash', '-ec', 'printf "%s\\\\0" ' + command], capture_output=True, text=True, check=True)
    _, *sys.argv = expand.stdout.split('\\0')[:-1]
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name='__main__')

codes = {}
for name, kind, command in jobs:
    child = os.fork()
    if child == 0:
        log = os.open(f'{name}.log', os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = 0
        try:
            run(kind, command)
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0 if code is None else code if isinstance(code, int) else 1)
    codes[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
json.dump(codes, open('codes.json', 'w'))
"""


class Doors:
    """A checkout in which all documented commands of a library ran.

    Args:
        library: Import name.
        folder: Root of the checkout.
    """

    def __init__(self, library: str, folder: Path) -> None:
        self.library = library
        self.folder = folder
        self.codes = json.loads((folder / 'codes.json').read_text())

    def check(self, name: str) -> None:
        """Fail with the log of a command that failed."""
        assert self.codes[name] == 0, (self.folder / f'{name}.log').read_text()[-3000:]


@pytest.fixture(scope='module', params=TITLES)
def doors(request, scenes, tmp_path_factory) -> Doors:
    library = request.param
    folder = link_scenes(tmp_path_factory.mktemp(library), scenes)
    for name, target in (('configs', ROOT / 'configs'), ('tools', ROOT / 'tools'), ('.venv', Path(sys.prefix))):
        (folder / name).symlink_to(target)
    short = ['--cfg-options', 'default_hooks.logger.interval=1', *SHORT[library]]
    jobs = [
        (name, 'command', ' '.join([line, *short]) if name == 'train' else line)
        for name, line in commands(library).items()
    ]
    snippet = code_blocks(TITLES[library], 'python')[0]
    fresh = "import sys\nassert 'mmstvit' not in sys.modules\n"
    jobs.append(('inferencer', 'code', '\n'.join([fresh, snippet, OUR_FORWARD, CHECKS[library]])))
    if library == 'mmpretrain':
        (inherited,) = code_blocks('Inherit from our configs', 'python')
        (folder / 'inherited.py').write_text(inherited)
        options = 'train_dataloader.dataset.indices=2 train_cfg.max_epochs=1 train_cfg.val_interval=2'
        line = f'python $SITE/mmpretrain/.mim/tools/train.py inherited.py --cfg-options {options}'
        jobs.append(('inherited', 'command', line))
    where = re.search(r'^SITE=.*$', DOCUMENT, re.MULTILINE).group()
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore', 'DRIVER': DRIVER, 'MPLBACKEND': 'agg'}
    env.pop('PYTHONPATH', None)
    command = f'{where}; export SITE; .venv/bin/python -c "$DRIVER" "$@"'
    done = subprocess.run(
        ['bash', '-ec', command, 'bash', library, json.dumps(jobs)],
        cwd=folder, env=env, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return Doors(library, folder)


def picture_sizes(folder: Path, pattern: str) -> list[tuple[int, ...]]:
    """Sizes of the pictures, each of which must show something."""
    pictures = [cv2.imread(str(path)) for path in sorted(folder.glob(pattern))]
    assert all(picture.std() > 5 for picture in pictures)
    return [picture.shape for picture in pictures]


@pytest.mark.parametrize('library', TITLES)
def test_every_documented_command_is_run(library):
    matrix = {'confusion_matrix'} if library != 'mmseg' else set()
    assert set(commands(library)) == {'train', 'test', 'browse_dataset', 'analyze_logs'} | matrix


def test_configs_exist():
    paths = set(re.findall(r'configs/\S+?\.py', DOCUMENT.replace('{name}', '*')))
    assert len(paths) >= 3
    assert all(list(ROOT.glob(path)) for path in paths)


@long
def test_train_logs_losses_and_saves(doors):
    doors.check('train')
    run_dir = doors.folder / 'work_dirs' / NAMES[doors.library]
    losses = [row['loss'] for row in scalars(run_dir) if 'loss' in row]
    assert len(losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert (doors.folder / (run_dir / 'last_checkpoint').read_text()).is_file()


@long
def test_test_repeats_the_validation(doors):
    """The same weights on the same data give the last metrics of the training log."""
    doors.check('test')
    library = doors.library
    (tested,) = map(json.loads, next((doors.folder / DOORS / library).glob('*/[0-9]*.json')).read_text().splitlines())
    validated = scalars(doors.folder / 'work_dirs' / NAMES[library])[-1]
    names = {name for name in validated if not name.endswith('time') and name != 'step'}
    assert {'mmdet': 'coco/segm_mAP', 'mmseg': 'mIoU', 'mmpretrain': 'accuracy/top1'}[library] in names
    assert {name: tested[name] for name in names} == pytest.approx({name: validated[name] for name in names})


@long
def test_pictures(doors):
    """One picture for each of the 16 training images or crops, of curves, inference and the confusion matrix."""
    library, folder = doors.library, doors.folder / DOORS
    matrix = {'mmdet': ['mmdet-matrix/confusion_matrix.png'], 'mmpretrain': ['mmpretrain-matrix.png'], 'mmseg': []}
    for name in [*(['confusion_matrix'] if matrix[library] else []), 'browse_dataset', 'analyze_logs', 'inferencer']:
        doors.check(name)
    sizes = picture_sizes(folder, f'{library}-browse/*.jpg')
    assert len(sizes) == 16
    assert library == 'mmpretrain' or set(sizes) == {(192, 192, 3)}
    inferred = f'{library}-inferencer/{"" if library == "mmpretrain" else "vis/"}*.[jp][pn]g'
    for pattern in [*matrix[library], f'{library}-curves.png', inferred]:
        assert len(picture_sizes(folder, pattern)) == 1


@long
def test_config_that_inherits_from_mmstvit_trains(doors):
    if doors.library != 'mmpretrain':
        pytest.skip('documented for MMPreTrain')
    doors.check('inherited')
    (row,) = [row for row in scalars(doors.folder / 'work_dirs' / 'inherited') if 'loss' in row]
    assert math.isfinite(row['loss'])
