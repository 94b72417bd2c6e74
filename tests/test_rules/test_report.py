"""Rules are asked about facts that are gathered once and then freed; faults become one error."""

import copy
import json
import weakref
from collections import Counter
from random import Random

import pytest
from mmcv.transforms import LoadImageFromFile

from mmstvit.errors import UserError
from mmstvit.rules import Finding, check, facts
from mmstvit.rules.findings import refuse
from mmstvit.rules.report import keep_causes

from ..test_datasets.tiny_data import LIBRARIES, coco_content, make_config

SPLITS = ('train', 'val')


@pytest.mark.parametrize('library', LIBRARIES)
def test_what_is_built_for_facts_is_freed_and_the_config_stays(library, tmp_path, monkeypatch):
    built = []
    build = facts.build_dataset
    monkeypatch.setattr(
        facts, 'build_dataset', lambda *a, **k: built.append(weakref.ref(dataset := build(*a, **k))) or dataset
    )
    cfg = make_config(library, tmp_path)
    before = copy.deepcopy(cfg.to_dict())
    assert check(cfg, SPLITS).faults == []
    assert len(built) == 2 and not any(dataset() for dataset in built)
    assert cfg.to_dict() == before


def test_a_test_set_without_annotations_is_predicted_only(tmp_path):
    cfg = make_config('mmdet', tmp_path)
    content = coco_content()
    del content['annotations']
    (tmp_path / 'val.json').write_text(json.dumps(content))
    cfg.test_dataloader = cfg.pop('val_dataloader')
    cfg.test_evaluator = dict(type='CocoMetric', ann_file=str(tmp_path / 'val.json'))
    (fault,) = check(cfg, ('test',)).faults
    assert fault.kind == 'nothing to evaluate' and 'test_evaluator.format_only=True' in fault.remedy
    cfg.test_evaluator.format_only = True
    assert check(cfg, ('test',)).faults == []


class LoadFromArchive(LoadImageFromFile):
    """A loader for which ``img_path`` is a key."""

    def transform(self, results: dict) -> dict:
        raise NotImplementedError


@pytest.mark.parametrize(
    ('loader', 'kinds'),
    [
        (dict(type='LoadImageFromFile'), ['missing files'] * 2),
        (dict(type='LoadImageFromFile', backend_args=dict(backend='lmdb', db_path='images.lmdb')), []),
        (dict(type='LoadImageFromFile', file_client_args=dict(backend='lmdb', db_path='images.lmdb')), []),
        (dict(type=LoadFromArchive), []),
    ],
)
def test_keys_are_no_missing_files(loader, kinds, tmp_path):
    cfg = make_config('mmpretrain', tmp_path)
    for split in SPLITS:
        (tmp_path / f'{split}.txt').write_text(f'{split}/0.jpg 0\n{split}/1.jpg 1\n')
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.update(ann_file=f'{split}.txt', data_prefix='', with_label=True)
        dataset.pipeline[0] = loader
    assert [finding.kind for finding in check(cfg, SPLITS).findings] == kinds


def test_causes_stand_for_their_consequences():
    cause = Finding('no mask', split='val', explains=('invalid mask',))
    effects = [Finding('invalid mask', split=split) for split in ('train', 'val', '')]
    assert keep_causes([*effects, cause]) == [effects[0], cause]
    warning = Finding('no mask', explains=('invalid mask',), severity='warning')
    assert keep_causes([*effects, warning]) == [*effects, warning]  # a warning hides no fault


def test_one_error_lists_all_faults():
    faults = [Finding('no mask', f'file {i}', [f'value {i}'], remedy=f'remedy {i}.') for i in (1, 2)]
    with pytest.raises(RuntimeError) as caught:
        refuse(faults)
    words = Counter(str(caught.value).split())
    assert words['Remedy:'] == 2 and 'file 2: the config wants masks' in str(caught.value)
    with pytest.raises(RuntimeError) as caught:
        refuse(faults[:1])
    assert (caught.value.problem, caught.value.remedy) == (faults[0].line, 'remedy 1.')
    refuse([])


def test_kinds_that_the_user_ignores_are_said_and_stop_nothing(tmp_path):
    cfg = make_config('mmdet', tmp_path)
    content = coco_content()
    for annotation in content['annotations']:
        annotation['bbox'] = ['left', 0, 4, 4]
    (tmp_path / 'train.json').write_text(json.dumps(content))
    assert {finding.kind for finding in check(cfg, SPLITS).faults} == {'invalid box'}
    cfg.rules = dict(ignore=['invalid box', 'unusable dataset'])
    report = check(cfg, SPLITS)
    assert not report.faults
    assert any(line.startswith('ignored (invalid box): ') for line in report.lines(5))


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        (dict(ignore=['invalid boxes']), "Did you mean 'invalid box'"),
        (dict(ignored=[]), 'rules=dict'),
        (['invalid box'], 'rules=dict'),
    ],
)
def test_kinds_that_do_not_exist_are_refused(value, message, tmp_path):
    cfg = make_config('mmdet', tmp_path)
    cfg.rules = value
    with pytest.raises(UserError, match=message):
        check(cfg, SPLITS)


def shuffle(content: dict, seed: int) -> dict:
    """Permute images, annotations and their ids."""
    random = Random(seed)
    images, annotations = ([dict(entry) for entry in content[name]] for name in ('images', 'annotations'))
    for entries, name in ((images, 'images'), (annotations, 'annotations')):
        ids = [entry['id'] for entry in entries]
        random.shuffle(ids)
        new = dict(zip((entry['id'] for entry in entries), ids, strict=True))
        if name == 'images':
            for annotation in annotations:
                annotation['image_id'] = new.get(annotation['image_id'], annotation['image_id'])
        for entry in entries:
            entry['id'] = new[entry['id']]
        random.shuffle(entries)
    return {**content, 'images': images, 'annotations': annotations}


PLANTED = {
    'nothing': lambda c: None,
    'a box outside': lambda c: c['annotations'][1].update(bbox=[4, 5, 40, 6]),
    'boxes by corners': lambda c: [a.update(bbox=[4, 5, 14, 11]) for a in c['annotations']],
    'no mask': lambda c: c['annotations'][1].update(segmentation=[]),
    'an unknown category': lambda c: c['annotations'][0].update(category_id=9),
    'a wrong size': lambda c: c['images'][1].update(height=25),
    'a crowd without mask': lambda c: c['annotations'][1].update(iscrowd=1, segmentation=[]),
}


@pytest.mark.parametrize('what', PLANTED)
def test_the_order_of_images_annotations_and_ids_changes_no_kind(what, tmp_path):
    cfg = make_config('mmdet', tmp_path)
    content, found = coco_content(), set()
    PLANTED[what](content)
    for seed in range(4):
        permuted = shuffle(content, seed) if seed else content
        for split in SPLITS:
            (tmp_path / f'{split}.json').write_text(json.dumps(permuted))
        findings = check(cfg, SPLITS).findings
        found.add(tuple(sorted((f.split, f.kind, f.severity, f.count, f.total or 0) for f in findings)))
    assert len(found) == 1
    assert (found == {()}) is (what == 'nothing')
