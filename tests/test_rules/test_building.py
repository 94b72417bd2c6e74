"""Datasets are built once: for the rules, then for the runner, which takes them over."""

import json
from collections import Counter

import pytest
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmstvit.datasets import coco
from mmstvit.engine.runner.build import _with_datasets
from mmstvit.rules import CHEAP, Finding, ask, check, find_keys, gather, hand_over
from mmstvit.rules.findings import keep_causes, refuse

from ..test_datasets.tiny_data import COUNT, LIBRARIES, coco_content, make_config

SPLITS = ('train', 'val')


def complete(cfg, *splits: str):
    facts = gather(cfg, find_keys(cfg, splits or SPLITS))
    assert ask(facts, CHEAP).faults == []
    return hand_over(facts)


@pytest.mark.parametrize('serialize', [True, False])
@pytest.mark.parametrize('library', LIBRARIES)
def test_datasets_are_as_the_library_builds_them(library, serialize, tmp_path):
    cfg = make_config(library, tmp_path)
    for split in SPLITS:
        cfg[f'{split}_dataloader'].dataset.serialize_data = serialize
    datasets = complete(cfg)
    with DefaultScope.overwrite_default_scope(library):
        for split in SPLITS:
            expected = Runner.build_dataloader(
                dict(cfg[f'{split}_dataloader'], batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False))
            ).dataset
            dataset = datasets[split]
            assert type(dataset) is type(expected) and len(dataset) == len(expected) == COUNT
            assert dataset.serialize_data == expected.serialize_data == serialize
            assert [dataset.get_data_info(i) for i in range(COUNT)] == [expected.get_data_info(i) for i in range(COUNT)]
            assert dataset.metainfo == expected.metainfo and 'COCOAPI' not in vars(dataset)


def test_annotations_are_parsed_once(tmp_path, monkeypatch):
    parsed = []
    load = json.load
    monkeypatch.setattr(json, 'load', lambda file: parsed.append(file.name) or load(file))
    cfg = make_config('mmdet', tmp_path)
    datasets = complete(cfg)
    for split in SPLITS:
        cfg[f'{split}_dataloader'].update(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler'))
    runner = _with_datasets(Runner, cfg, dict(datasets))
    for split in SPLITS:
        assert runner.build_dataloader(cfg[f'{split}_dataloader']).dataset is datasets[split]
    assert sorted(parsed) == [str(tmp_path / 'train.json'), str(tmp_path / 'val.json')]


@pytest.mark.parametrize('library', LIBRARIES)
def test_wrappers_are_built_around_the_datasets(library, tmp_path):
    cfg = make_config(library, tmp_path)
    train, val = (cfg[f'{split}_dataloader'].dataset for split in SPLITS)
    train.pop('filter_cfg', None)
    repeated = ConfigDict(type='RepeatDataset', times=3, dataset=train)
    both = ConfigDict(type='ConcatDataset', datasets=[repeated, val])
    guarded = ConfigDict(type='mmstvit.GuardedDataset', dataset=both)
    cfg.train_dataloader.dataset = ConfigDict(type='mmstvit.SeededDataset', dataset=guarded)
    dataset = complete(cfg, 'train')['train']
    assert type(dataset).__name__ == 'SeededDataset' and len(dataset) == 4 * COUNT


def test_each_annotation_is_looked_at_a_fixed_number_of_times(tmp_path, monkeypatch):
    """COCO has 860,000 of them."""
    looks = []
    judge = coco.drop_reason
    monkeypatch.setattr(coco, 'drop_reason', lambda *args: looks.append(1) or judge(*args))
    cfg = make_config('mmdet', tmp_path)
    counts = []
    for times in (1, 10):
        content = coco_content()
        first = content['annotations'][1]
        content['annotations'] = [{**first, 'id': i + 1} for i in range(40 * times)]
        (tmp_path / 'train.json').write_text(json.dumps(content))
        looks.clear()
        assert check(cfg, ('train',), CHEAP).faults == []
        counts.append(len(looks))
    assert counts[1] == 10 * counts[0] <= 10 * 40


def test_a_test_set_without_annotations_is_predicted_only(tmp_path):
    cfg = make_config('mmdet', tmp_path)
    content = coco_content()
    del content['annotations']
    (tmp_path / 'val.json').write_text(json.dumps(content))
    cfg.test_dataloader = cfg.pop('val_dataloader')
    cfg.test_evaluator = dict(type='CocoMetric', ann_file=str(tmp_path / 'val.json'))
    (fault,) = check(cfg, ('test',), CHEAP).faults
    assert fault.kind == 'nothing to evaluate' and 'test_evaluator.format_only=True' in fault.remedy
    cfg.test_evaluator.format_only = True
    assert check(cfg, ('test',), CHEAP).faults == []


def test_causes_stand_for_their_consequences():
    cause = Finding('cause', 'fault', 'm', 'r', split='val', explains=('effect',))
    effects = [Finding('effect', 'fault', 'm', 'r', split=split) for split in ('train', 'val', '')]
    assert keep_causes([*effects, cause]) == [effects[0], cause]


def test_one_error_lists_all_faults():
    faults = [Finding(f'kind {i}', 'fault', f'problem {i}.', f'remedy {i}.', f'file {i}') for i in (1, 2)]
    with pytest.raises(RuntimeError) as caught:
        refuse(faults)
    words = Counter(str(caught.value).split())
    assert words['Remedy:'] == 2 and 'file 2: problem 2.' in str(caught.value)
    with pytest.raises(RuntimeError) as caught:
        refuse(faults[:1])
    assert (caught.value.problem, caught.value.remedy) == ('file 1: problem 1.', 'remedy 1.')
    refuse([])
