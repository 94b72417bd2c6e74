"""A defect of a config or its data, planted in a small data set, for train.py and verify_dataset.py alike."""

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS

from ..test_datasets.tiny_data import make_config

FOLDER = Path('data/tiny')


@MODELS.register_module('RulesTestModel', force=True)
class Model(BaseModel):
    """A model that costs nothing to build; the rules read its config."""

    def __init__(self, data_preprocessor: dict | None = None, **_parts: object) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs: object, data_samples: object = None, mode: str = 'tensor') -> object:
        raise NotImplementedError


EVALUATORS = {
    'mmdet': dict(type='CocoMetric', metric=['bbox', 'segm']),
    'mmseg': dict(type='IoUMetric'),
    'mmpretrain': dict(type='Accuracy', topk=1),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A defect.

    Args:
        what: What is wrong.
        library: Scope of the config.
        plant: Changes the config and the files below ``FOLDER``.
        kind: Kind of the finding.
        words: What message and remedy must contain.
        severity: ``'fault'`` or ``'warning'``.
        alone: If True, no other fault may be reported.
    """

    what: str
    library: str
    plant: Callable[[Config], object]
    kind: str
    words: tuple[str, ...]
    severity: str
    alone: bool


# Kind -> what, library, plant, words.
Table = dict[str, list[tuple]]


def make_cases(faults: Table, more_faults: Table, warnings: Table) -> list[Case]:
    """Make cases of tables; ``more_faults`` come with other faults."""
    tables = (faults, 'fault', True), (more_faults, 'fault', False), (warnings, 'warning', True)
    return [
        Case(what, library, plant, kind, tuple(words), severity, alone)
        for table, severity, alone in tables
        for kind, rows in table.items()
        for what, library, plant, *words in rows
    ]


def good_config(library: str) -> Config:
    """Write the data set below the working directory; returns a config that train.py accepts."""
    cfg = make_config(library, FOLDER)
    cfg.model.type = 'mmengine.RulesTestModel'
    for split in ('train', 'val'):
        loader = cfg[f'{split}_dataloader']
        loader.batch_size, loader.num_workers = 1, 0
        loader.sampler = dict(type='DefaultSampler', shuffle=split == 'train')
    cfg.val_evaluator = copy.deepcopy(EVALUATORS[library])
    if library == 'mmdet':
        cfg.val_evaluator.ann_file = str(FOLDER / 'val.json')
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    cfg.val_cfg = dict(type='ValLoop')
    cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    return cfg


def change_coco(change: Callable[[dict], object], *splits: str) -> Callable[[Config], None]:
    """Return a function that changes the annotation files, of the training data alone by default."""

    def plant(_cfg: Config) -> None:
        for split in splits or ('train',):
            path = FOLDER / f'{split}.json'
            content = json.loads(path.read_text())
            change(content)
            path.write_text(json.dumps(content))

    return plant
