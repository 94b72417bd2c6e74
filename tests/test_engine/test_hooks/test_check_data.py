"""CheckDataHook in MMEngine's own runner, and in MMDetection's own tool: faults end a run before it begins."""

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mmstvit.errors import DataError

from ...fork_server import fork
from ...helpers import NANO, load_config
from ...in_process import restored
from ...test_datasets.tiny_data import HEIGHT, LIBRARIES, WIDTH, write
from ...test_rules.case import FOLDER, change_coco, good_config


@MODELS.register_module('CheckDataTestModel', force=True)
class Model(BaseModel):
    """A model with a loss, and with the heads that the rules read in its config."""

    def __init__(self, **_parts: object) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs: object, data_samples: object = None, mode: str = 'tensor') -> object:
        if mode == 'loss':
            return dict(loss=self.weight.square())
        return [sample.set_pred_label(0).set_pred_score(torch.tensor([1.0, 0.0])) for sample in data_samples]


class Count(Hook):
    """Count the iterations of training and test."""

    iterations = 0
    error: DataError | None = None

    def after_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.iterations += 1

    after_train_iter = after_test_iter = after_iter


def write_an_unknown_label(_cfg: Config) -> None:
    write(FOLDER / 'maps/train/0.png', np.full((HEIGHT, WIDTH), 7, np.uint8))


def exchange_classes(cfg: Config) -> None:
    cfg.train_dataloader.dataset.classes = ['b', 'a']
    cfg.val_dataloader.dataset.classes = ['b', 'a']


# What is wrong with the data, of which the library says nothing, the kind of the finding, and words of it.
FAULTS: dict[str, tuple[Callable[[Config], object], str, str]] = {
    'mmdet': (
        change_coco(lambda content: content['categories'].reverse()),
        'categories and classes differ',
        "label 0 is 'b'",
    ),
    'mmseg': (write_an_unknown_label, 'label out of range', 'label 7'),
    'mmpretrain': (exchange_classes, 'class folders and classes differ', "label 0 is the folder 'a'"),
}


@pytest.fixture(params=LIBRARIES)
def library(request, tmp_path):
    with restored(tmp_path):
        yield request.param


@pytest.fixture
def config(library, tmp_path) -> Config:
    """A config of four training images that validates never, with the hook."""
    cfg = good_config(library)
    cfg.model.type = 'mmengine.CheckDataTestModel'
    cfg.train_cfg.val_begin = 9
    cfg.update(work_dir='run', experiment_name=tmp_path.name)
    cfg.custom_hooks = [dict(type='mmstvit.CheckDataHook')]
    return cfg


def run(cfg: Config, split: str = 'train') -> Count:
    """Train or test with MMEngine's own runner."""
    runner, count = Runner.from_cfg(cfg), Count()
    runner.register_hook(count)
    try:
        getattr(runner, split)()
    except DataError as error:
        count.error = error
    return count


def test_good_data_pass(config):
    count = run(config)
    assert (count.iterations, count.error) == (4, None)


def test_a_fault_ends_the_run_before_the_first_iteration(library, config):
    plant, _, words = FAULTS[library]
    plant(config)
    count = run(config)
    assert count.iterations == 0 and words in str(count.error)
    assert not list(Path('run').rglob('*.pth'))


def test_a_kind_that_the_config_ignores_is_said_and_does_not_end_the_run(library, config):
    plant, kind, _ = FAULTS[library]
    plant(config)
    config.rules = dict(ignore=[kind])
    count = run(config)
    assert count.iterations > 0 and count.error is None
    (log,) = Path('run').glob('*/*.log')
    assert f'ignored ({kind}): ' in log.read_text()


@pytest.mark.parametrize('library', ['mmpretrain'], indirect=True)
def test_only_the_data_of_a_test_are_asked_about(config):
    config.test_dataloader, config.test_cfg = copy.deepcopy(config.val_dataloader), {}
    config.test_evaluator = config.val_evaluator
    exchange_classes(config)
    count = run(config, 'test')
    assert (count.iterations, count.error) == (4, None)
    config.test_dataloader.dataset.classes = ['b', 'a']
    config.experiment_name += '_again'
    count = run(config, 'test')
    assert count.iterations == 0 and 'test_dataloader.dataset.classes' in str(count.error)


@pytest.mark.long
@pytest.mark.parametrize('library', ['mmdet'], indirect=True)
def test_the_tool_of_mmdetection(library, config, tmp_path):
    """With a detector that has the classes of the data."""
    config.model = load_config(NANO['mmdet']).model
    for head in ('bbox_head', 'mask_head'):
        config.model.roi_head[head].num_classes = 2
    config.train_dataloader.dataset.pipeline.insert(2, dict(type='Resize', scale=(128, 96)))
    config.dump('config.py')
    tool = Path(importlib.util.find_spec('mmdet').origin).parent / '.mim/tools/train.py'
    fork(tool, 'config.py', cwd=tmp_path)
    assert Path('run/epoch_1.pth').exists()
    FAULTS[library][0](config)
    done = fork(tool, 'config.py', '--work-dir', 'second', cwd=tmp_path, code=1)
    assert FAULTS[library][2] in done.stderr.splitlines()[-1]
    assert not list(Path('second').rglob('*.pth'))
