"""Configs that checkpoints hold as text: parsed as data, and checked before anything is built from them."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmstvit.errors import CheckpointError
from mmstvit.fileio import check_config, parse_config

HARM = "__import__('pathlib').Path('harmed').touch()"


def test_config_is_parsed_as_mmengine_wrote_it():
    values = dict(
        numbers=[1, -2, 3.5, -1e-5, True, None],
        nested=dict(texts=('a', "b'c", 'd\n'), empty=[(), {}, '']),
        mapping={'a.b': 1, 2: 'x', 'y': dict(type='Z')},
        optimizer=dict(type=torch.optim.AdamW, lr=0.1),
    )
    for formatted in (True, False):
        text = Config(copy.deepcopy(values), format_python_code=formatted).dump()
        assert parse_config(text) == {**values, 'optimizer': dict(type='torch.optim.adamw.AdamW', lr=0.1)}


@pytest.mark.parametrize(
    'text',
    [
        f'a = {HARM}',
        f'a = dict(b=[{HARM}])',
        f'a = dict(type={HARM})',
        'a = ().__class__.__bases__[0].__subclasses__()',
        'a = dict(type=().__class__)',
        'a = os.system',
        'a = [x for x in (1, 2)]',
        "a = f'{1}'",
        "a = dict(**{'a': 1})",
        "a = {**{'a': 1}}",
        'a = {[]: 1}',
        'a = 1 + 1',
        "a = -'1'",
        'a = (lambda: 0)',
        'a = dict([(1, 2)])',
        'a = list()',
        'import os',
        f'if True:\n    {HARM}',
        'a.b = 1',
        'a = b = 1',
        pytest.param('a = ' + '(' * 5000, id='deep'),
        pytest.param('a = ' + '-' * 100_000 + '1', id='long'),
        'a = 1 +',
        'a = "\0"',
        pytest.param(f'a = {"1" * 1_000_000!r}', id='more than a megabyte'),
        b'a = 1',
        None,
    ],
)
def test_text_that_is_not_data_is_refused_and_not_executed(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match='--config FILE'):
        parse_config(text)
    assert not Path('harmed').exists()


@pytest.mark.parametrize(
    ('key', 'part'),
    [
        ('a.type', dict(type='os.system', command='true')),
        ('a.type', dict(type='mmengine.os.system')),
        ('a.type', dict(type=HARM)),  # mmcv evaluates the type of a non-maximum suppression
        ('a.0._scope_', [dict(type='A', _scope_='harmful')]),
        ('a.nms.type', dict(nms=dict(type='torch.load'))),
        ('a.class_weight', dict(class_weight='weights.pkl')),  # MMSegmentation unpickles it
        ('a.class_weight', dict(class_weight='yaml')),  # a file of this name, which PyYAML's loader executes
        ('a.decode_backend', dict(type='mmseg.LoadBiomedicalImageFromFile', decode_backend='pickle')),  # of the image
        ('a.backend_args', dict(type='LoadImageFromFile', backend_args=dict(backend='memcached', sys_path='photos'))),
        ('a.b.0', dict(b=('https://example.com/weights',))),
        ('a.b', dict(b='../weights')),
        ('a.warp_mode', dict(type='A', warp_mode=HARM)),  # MMDetection evaluates it
        ('a.trust_remote_code', dict(type='A', trust_remote_code=True)),
        ('a.0.type', [dict(type='torchvision/Pad', padding=100)]),
    ],
)
def test_part_that_could_execute_code_is_refused(key, part):
    with pytest.raises(CheckpointError, match=rf'(?s){key} is .*Nothing was executed.*--config.*--trust-checkpoint'):
        check_config(part, 'a')


@pytest.mark.parametrize('name', ['exec', 'eval', 'os', 'harmful', 'MMEngine'])
def test_a_type_must_be_registered_even_if_no_registry_looks_it_up(name):
    """mmcv evaluates the type of a non-maximum suppression."""
    part = [dict(type='FPN', test_cfg=dict(rcnn=dict(nms=dict(type=name))))]
    check_config(part, 'a')
    with pytest.raises(
        CheckpointError, match=rf"a\.0\.test_cfg\.rcnn\.nms\.type is '{name}', .*not registered in mmdet"
    ):
        check_config(part, 'a', 'mmdet')


@pytest.mark.parametrize(
    'part',
    [
        dict(type='FPN', _scope_='harmful'),
        dict(type='FPN', _scope_=['harmful']),
        dict(neck=dict(type='NotRegistered'), type='harmful.FPN'),
    ],
)
def test_no_module_is_imported_for_an_unknown_scope(part, tmp_path, monkeypatch):
    (tmp_path / 'harmful').mkdir()
    (tmp_path / 'harmful/registry.py').write_text(f'{HARM}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CheckpointError, match='Nothing was executed'):
        check_config(part, 'a', 'mmseg')
    assert not Path('harmed').exists()


def test_names_that_are_registered_after_the_first_question_are_known():
    part = dict(type='RegisteredLater')
    with pytest.raises(CheckpointError, match='not registered in mmengine'):
        check_config(part, 'a', 'mmengine')
    MODELS.register_module(name='RegisteredLater', module=torch.nn.ReLU)
    try:
        check_config(part, 'a', 'mmengine')
    finally:
        MODELS.module_dict.pop('RegisteredLater')


def test_registered_types_of_all_libraries_and_operators_are_accepted():
    nodes = [dict(type='nms'), dict(type='RoIAlign'), dict(type='mmdet.FPN', norm_cfg=dict(type='GN')), dict(scale=1)]
    nodes += [dict(type='mmstvit.STViT'), dict(type='mmseg.EncoderDecoder', head=dict(type='FCNHead')), None]
    nodes += [dict(_scope_='mmdet', coder=dict(type='DeltaXYWHBBoxCoder')), dict(mode='nearest-exact', layer='1.0')]
    check_config([*nodes, dict(type='ResizeEdge', metas=('img_path', None))], 'a', 'mmpretrain')


@pytest.mark.parametrize(
    ('key', 'part'),
    [
        ('a.pad_size_divisor', dict(pad_size_divisor=10**9)),
        ('a.pool_scales.1', dict(pool_scales=(1, 10**6))),
        ('a.batch_augments.0.size.0', dict(batch_augments=[dict(type='BatchFixedSizePad', size=(20_000, 20))])),
        ('a.scale_factor', dict(type='Resize', scale_factor=1e6)),
        ('a.0.padding', [dict(type='Pad', padding=-20_000)]),
        ('the length of a.scales', dict(scales=[8] * 20_000)),
        ('a.num_points', dict(num_points=10**7)),
        ('a.mean', dict(mean=float('inf'))),
        ('the number of views of a', dict(type='TestTimeAug', transforms=[[dict(type='RandomFlip')] * 5] * 3)),
    ],
)
def test_a_size_that_takes_all_memory_is_refused(key, part):
    with pytest.raises(CheckpointError, match=rf'{key} is .*takes all memory.*--config'):
        check_config(part, 'a')


def test_sizes_of_stock_configs_are_accepted():
    part = dict(scale=(3504, 2336), num_classes=21_843, nms_pre=30_000, out_channels=8192, vocab_size=59_457)
    check_config([part, dict(class_weight=[1.0] * 21_843, temperature=10_000, to_rgb=True, pad_val=-1)], 'a')
