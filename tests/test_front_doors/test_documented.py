"""``docs/libraries_tools.md`` command by command: the libraries' own tools with our configs, on a few scenes.

The commands and Python blocks are read from the document and run as they stand, in processes that nothing but the
config tells of mmstvit. Trainings alone are shortened, by ``--cfg-options``.
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

from ..helpers import ROOT, link_scenes

DOCUMENT = (ROOT / 'docs' / 'libraries_tools.md').read_text()
TITLES = {'mmdet': 'MMDetection', 'mmseg': 'MMSegmentation', 'mmpretrain': 'MMPreTrain'}
SHORT = {
    'mmdet': ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1'],
    'mmseg': ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2'],
    'mmpretrain': ['train_cfg.max_epochs=1'],
}
NAMES = {
    'mmdet': 'mask-rcnn_stvit-nano_fpn_scenes',
    'mmseg': 'stvit-nano_upernet_scenes',
    'mmpretrain': 'stvit-nano_scenes',
}
DOORS = Path('work_dirs') / 'doors'

# Appended to the Python blocks: nothing imported mmstvit before the config did; the results are those of our own
# forward, with the image and the weights read by hand.
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
    section = re.search(rf'^## {title}\n(.*?)(?=^## |\Z)', DOCUMENT, re.MULTILINE | re.DOTALL).group(1)
    return re.findall(rf'```{language}\n(.*?)```', section, re.DOTALL)


def commands(library: str) -> dict[str, str]:
    """The commands of a library's section by the name of the script."""
    (block,) = code_blocks(TITLES[library], 'bash')
    lines = block.replace('\\\n', ' ').splitlines()
    return {Path(re.search(r'\S+\.py', line.split('/bin/python ')[1]).group()).stem: line for line in lines}


def run(folder: Path, command: list[str]) -> str:
    env = {**os.environ, 'GOMP_SPINCOUNT': '1000', 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'}
    env.pop('PYTHONPATH', None)
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def run_documented(folder: Path, library: str, script: str, *options: str) -> str:
    where = re.search(r'^SITE=.*$', DOCUMENT, re.MULTILINE).group()
    return run(folder, ['bash', '-ec', f'{where}\n{" ".join([commands(library)[script], *options])}'])


def rows(folder: Path, pattern: str) -> list[dict]:
    """What was logged into the one file that matches, one dict a line."""
    (file,) = folder.glob(pattern)
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope='module', params=TITLES)
def trained(request, scenes, tmp_path_factory) -> tuple[str, Path]:
    """A library, and a checkout in which its ``train.py`` ran for two iterations."""
    library = request.param
    folder = link_scenes(tmp_path_factory.mktemp(library), scenes)
    for name, target in (('configs', ROOT / 'configs'), ('tools', ROOT / 'tools'), ('.venv', Path(sys.prefix))):
        (folder / name).symlink_to(target)
    run_documented(folder, library, 'train', '--cfg-options', 'default_hooks.logger.interval=1', *SHORT[library])
    return library, folder


@pytest.fixture(scope='module')
def tested(trained) -> tuple[str, Path]:
    library, folder = trained
    run_documented(folder, library, 'test')
    return library, folder


def picture_sizes(folder: Path, pattern: str) -> list[tuple[int, ...]]:
    """Sizes of the pictures, each of which must show something."""
    pictures = [cv2.imread(str(path)) for path in sorted(folder.glob(pattern))]
    assert all(picture.std() > 5 for picture in pictures)
    return [picture.shape for picture in pictures]


@pytest.mark.parametrize('library', TITLES)
def test_every_command_is_one_that_is_run_here(library):
    assert set(commands(library)) == {'train', 'test', 'confusion_matrix', 'browse_dataset', 'analyze_logs'}


def test_configs_and_links_exist():
    paths = set(re.findall(r'configs/\S+?\.py', DOCUMENT.replace('{name}', '*')))
    assert len(paths) >= 3
    assert all(list(ROOT.glob(path)) for path in paths)
    assert all((ROOT / 'docs' / link).exists() for link in re.findall(r'\]\((\S+?)\)', DOCUMENT))


@long
def test_train_logs_losses_and_saves(trained):
    library, folder = trained
    run_dir = folder / 'work_dirs' / NAMES[library]
    losses = [row['loss'] for row in rows(run_dir, '*/vis_data/scalars.json') if 'loss' in row]
    assert len(losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert (folder / (run_dir / 'last_checkpoint').read_text()).is_file()


@long
def test_test_repeats_the_validation(tested):
    """The same weights on the same data: what training logged last."""
    library, folder = tested
    (tested_metrics,) = rows(folder / DOORS / library, '*/[0-9]*.json')
    validated = rows(folder / 'work_dirs' / NAMES[library], '*/vis_data/scalars.json')[-1]
    names = {name for name in validated if not name.endswith('time') and name != 'step'}
    assert {'mmdet': 'coco/segm_mAP', 'mmseg': 'mIoU', 'mmpretrain': 'accuracy/top1'}[library] in names
    assert {name: tested_metrics[name] for name in names} == pytest.approx({name: validated[name] for name in names})


@long
def test_confusion_matrix(tested):
    library, folder = tested
    run_documented(folder, library, 'confusion_matrix')
    picture = 'mmpretrain-matrix.png' if library == 'mmpretrain' else f'{library}-matrix/confusion_matrix.png'
    assert len(picture_sizes(folder / DOORS, picture)) == 1


@long
def test_browse_dataset(trained):
    """One picture for each of the 16 training images, or 16 of the crops."""
    library, folder = trained
    run_documented(folder, library, 'browse_dataset')
    sizes = picture_sizes(folder / DOORS, f'{library}-browse/*.jpg')
    assert len(sizes) == 16
    assert library == 'mmpretrain' or set(sizes) == {(192, 192, 3)}


@long
def test_analyze_logs(trained):
    library, folder = trained
    run_documented(folder, library, 'analyze_logs')
    assert len(picture_sizes(folder / DOORS, f'{library}-curves.png')) == 1


@long
def test_inferencer(trained):
    library, folder = trained
    (snippet,) = code_blocks(TITLES[library], 'python')
    code = f'import sys\n{snippet}'.replace('inferencer =', "assert 'mmstvit' not in sys.modules\ninferencer =", 1)
    run(folder, [sys.executable, '-c', '\n'.join([code, OUR_FORWARD, CHECKS[library]])])
    pattern = f'{library}-inferencer/{"" if library == "mmpretrain" else "vis/"}*.[jp][pn]g'
    assert len(picture_sizes(folder / DOORS, pattern)) == 1
