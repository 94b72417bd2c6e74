"""What ``init_cfg``, MMEngine's loaders and our tools read from a path: published files, ours, and those of others."""

import itertools
import os
from collections.abc import Iterator

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn

from mmstvit import STViT
from mmstvit.checkpoint import convert_to_official, loader, read_backbone
from mmstvit.errors import CheckpointError
from mmstvit.fileio import read_weights

from ..helpers import TINY, assert_equal, tiny

CLASSIFIER = {
    'neck.conv.weight': torch.ones(2, 24, 1, 1),
    'head.fc.weight': torch.ones(3, 2),
    'head.fc.bias': torch.ones(3),
}


@pytest.fixture(autouse=True)
def schemes() -> Iterator[None]:
    """Whatever a test registers is taken back."""
    before, trusted = dict(CheckpointLoader._schemes), loader._trusted
    yield
    loader._trusted = trusted
    for scheme, function in before.items():
        CheckpointLoader.register_scheme(scheme, function, force=True)


@pytest.fixture
def default() -> None:
    """As after the import of mmstvit, whatever ran in this process before."""
    loader._trusted = False
    CheckpointLoader.register_scheme('', loader.load_from_local, force=True)


@pytest.fixture
def safe(default) -> None:
    safe_loading()


class Harm:
    """Makes a file when it is unpickled."""

    def __init__(self, path: object) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.path,)


class Classifier(BaseModule):
    """As MMPreTrain's, in names."""

    def __init__(self, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.backbone = tiny(0)
        self.neck = nn.ModuleDict({'conv': nn.Conv2d(24, 2, 1, bias=False)})
        self.head = nn.ModuleDict({'fc': nn.Linear(2, 3)})


def classifier_weights(seed: int = 1) -> dict[str, torch.Tensor]:
    return {**{f'backbone.{name}': tensor for name, tensor in tiny(seed).state_dict().items()}, **CLASSIFIER}


def published() -> dict[str, torch.Tensor]:
    return convert_to_official(classifier_weights())


def average() -> dict:
    """What a run with EMAHook saves: the averaged weights under ``state_dict``."""
    last = {f'module.{name}': tensor for name, tensor in classifier_weights(2).items()}
    return {'state_dict': classifier_weights(), 'ema_state_dict': {'steps': torch.tensor(3), **last}, 'meta': {}}


LAYOUTS = {
    'published': lambda: {'model': published(), 'args': None},
    'published, bare': published,
    'published, beside its average': lambda: {'model': published(), 'model_ema': classifier_weights(2)},
    'published, parallel': lambda: {'model': {f'module.{name}': tensor for name, tensor in published().items()}},
    'published, parallel, by timm': lambda: {'state_dict': {f'module.{k}': v for k, v in published().items()}},
    'converted': lambda: {'state_dict': classifier_weights()},
    'EMA': average,
    'EMA alone': lambda: {'steps': torch.tensor(3), **{f'module.{k}': v for k, v in classifier_weights().items()}},
    'model_ema': lambda: {'model_ema': classifier_weights()},
    'parallel': lambda: {'state_dict': {f'module.{k}': v for k, v in classifier_weights().items()}},
    'parallel twice': lambda: {'state_dict': {f'module.module.{k}': v for k, v in classifier_weights().items()}},
    'compiled': lambda: {'state_dict': {f'_orig_mod.{k}': v for k, v in classifier_weights().items()}},
    'plain': classifier_weights,
}
BACKBONES = {
    'bare': lambda: {'state_dict': tiny(1).state_dict()},
    'segmentor': lambda: {
        'state_dict': {k: v for k, v in classifier_weights().items() if k not in CLASSIFIER}
        | {'decode_head.conv_seg.weight': torch.ones(2, 2, 1, 1)}
    },
}


class TestBackbone:
    @pytest.mark.parametrize(
        ('layout', 'prefix'),
        [
            *itertools.product([*LAYOUTS, 'segmentor'], [None, 'backbone.', 'backbone']),
            ('bare', None),  # its names have no prefix
        ],
    )
    def test_init_cfg_takes_every_layout(self, tmp_path, layout, prefix):
        torch.save({**LAYOUTS, **BACKBONES}[layout](), tmp_path / 'file.pth')
        init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'file.pth'))
        model = STViT(TINY, init_cfg=init_cfg if prefix is None else {**init_cfg, 'prefix': prefix})
        model.init_weights()
        assert_equal(model.state_dict(), tiny(1).state_dict())

    def test_safetensors(self, tmp_path):
        from safetensors.torch import save_file

        save_file({name: tensor.contiguous() for name, tensor in published().items()}, tmp_path / 'file.safetensors')
        model = STViT(TINY, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'file.safetensors')))
        model.init_weights()
        assert_equal(model.state_dict(), tiny(1).state_dict())

    def test_pretrained_weights_come_after_other_initialisers(self, tmp_path):
        torch.save(published(), tmp_path / 'file.pth')
        pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'file.pth'))
        init_cfg = [pretrained, dict(type='Constant', layer='Conv2d', val=7.0)]
        model = STViT(TINY, init_cfg=init_cfg)
        model.init_weights()
        assert_equal(model.state_dict(), tiny(1).state_dict())
        assert model.init_cfg == init_cfg, 'what the config says stays'

    def test_the_log_says_what_was_loaded_and_dropped(self, tmp_path, log):
        torch.save({'model': published()}, tmp_path / 'file.pth')
        STViT(TINY, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'file.pth'))).init_weights()
        printed = next(message for message in log if message.startswith('weights of'))
        assert f"{tmp_path / 'file.pth'}, under 'model'" in printed
        assert 'proj.weight' in printed and 'head.weight' in printed
        assert f'loaded           {len(tiny().state_dict())}\n' in printed

    @pytest.mark.parametrize(('content', 'words'), [
        ({'model': {'layer1.weight': torch.ones(1)}}, 'there is no STViT'),
        ({'epoch': 3}, 'a dict with weights is needed'),
        ([1], 'a dict with weights is needed'),
        ({'state_dict': STViT({**TINY, 'channels': (8, 12, 16, 48)}).state_dict()}, 'this is an STViT with channels'),
    ])  # fmt: skip
    def test_what_is_of_no_use_is_refused_with_its_path(self, tmp_path, content, words):
        path = tmp_path / 'file.pth'
        torch.save(content, path)
        model = STViT(TINY, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
        with pytest.raises(CheckpointError, match=words) as caught:
            model.init_weights()
        assert str(caught.value).startswith(str(path))

    def test_a_prefix_that_is_not_there(self, tmp_path):
        torch.save(classifier_weights(), tmp_path / 'file.pth')
        with pytest.raises(CheckpointError, match=r"file\.pth: no weight has the prefix 'encoder\.'"):
            read_backbone(str(tmp_path / 'file.pth'), 'encoder')
        with pytest.raises(CheckpointError, match=r"file\.pth: no weight has the prefix 'encoder\.'"):
            read_weights(str(tmp_path / 'file.pth'), 'encoder')

    def test_a_prefix_for_names_without_one(self, tmp_path):
        torch.save(tiny().state_dict(), tmp_path / 'file.pth')
        with pytest.raises(CheckpointError, match='that of the backbone in them is none: leave prefix out'):
            read_backbone(str(tmp_path / 'file.pth'), 'backbone')

    def test_a_harmful_file_is_not_executed_though_no_tool_of_ours_is_running(self, tmp_path, default):
        torch.save({'model': {**published(), 'head.weight': Harm(tmp_path / 'made')}}, tmp_path / 'file.pth')
        model = STViT(TINY, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'file.pth')))
        with pytest.raises(CheckpointError, match='nothing of it was executed'):
            model.init_weights()
        assert not (tmp_path / 'made').exists()


class TestImported:
    """MMEngine's own functions, with mmstvit imported and nothing else done."""

    @pytest.mark.parametrize('layout', [layout for layout in LAYOUTS if layout.startswith('published')])
    def test_a_classifier_starts_from_a_published_file(self, tmp_path, default, layout):
        torch.save(LAYOUTS[layout](), tmp_path / 'file.pth')
        model = Classifier(dict(type='Pretrained', checkpoint=str(tmp_path / 'file.pth')))
        model.init_weights()
        assert_equal(model.state_dict(), classifier_weights())

    def test_another_model_is_read_as_before(self, tmp_path, default):
        content = {'state_dict': nn.Linear(2, 2).state_dict(), 'meta': {'epoch': 1}}
        torch.save(content, tmp_path / 'file.pth')
        read = CheckpointLoader.load_checkpoint(str(tmp_path / 'file.pth'), 'cpu')
        assert read['meta'] == content['meta'] and list(read['state_dict']) == ['weight', 'bias']
        with pytest.raises(FileNotFoundError):
            CheckpointLoader.load_checkpoint(str(tmp_path / 'gone.pth'), 'cpu')

    def test_other_peoples_code_is_their_business(self, tmp_path, default):
        """MMEngine falls back to executing; a program that only imports mmstvit goes on as it did."""
        torch.save({'state_dict': {}, 'other': Harm(tmp_path / 'made')}, tmp_path / 'file.pth')
        CheckpointLoader.load_checkpoint(str(tmp_path / 'file.pth'), 'cpu')
        assert (tmp_path / 'made').exists()


class TestSafe:
    """After ``use_safe_loading``, as in our tools."""

    @pytest.mark.parametrize('layout', LAYOUTS)
    def test_mmengine_loads_every_layout_into_a_classifier(self, tmp_path, safe, layout):
        torch.save(LAYOUTS[layout](), tmp_path / 'file.pth')
        model = Classifier()
        load_checkpoint(model, str(tmp_path / 'file.pth'))
        assert_equal(model.state_dict(), classifier_weights())

    def test_what_is_beside_the_weights_stays_for_a_run_to_resume(self, tmp_path, safe):
        content = {**LAYOUTS['compiled'](), 'meta': {'epoch': 3}, 'optimizer': {'state': {}}}
        torch.save(content, tmp_path / 'file.pth')
        read = CheckpointLoader.load_checkpoint(str(tmp_path / 'file.pth'), 'cpu')
        assert_equal(read.pop('state_dict'), classifier_weights())
        assert read == {'meta': {'epoch': 3}, 'optimizer': {'state': {}}}

    def test_harm_is_refused_unless_trusted(self, tmp_path, safe):
        torch.save({'state_dict': {}, 'other': Harm(tmp_path / 'made')}, tmp_path / 'file.pth')
        with pytest.raises(CheckpointError, match='--trust-checkpoint'):
            CheckpointLoader.load_checkpoint(str(tmp_path / 'file.pth'), 'cpu')
        assert not (tmp_path / 'made').exists()
        use_safe_loading(trust=True)
        CheckpointLoader.load_checkpoint(str(tmp_path / 'file.pth'), 'cpu')
        assert (tmp_path / 'made').exists()

    @pytest.mark.parametrize('address', ['s3://bucket/a.pth', 'open-mmlab:s3://a', 'mmcls://vgg11', 'pavi://a'])
    def test_schemes_that_would_execute_are_refused(self, safe, address):
        with pytest.raises(CheckpointError, match='Download it and name the file'):
            CheckpointLoader.load_checkpoint(address, 'cpu')

    def test_a_fetched_file_is_read_like_a_local_one(self, tmp_path, safe, monkeypatch):
        """It is kept where torch keeps such files."""
        monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
        (tmp_path / 'checkpoints').mkdir()
        address = 'https://example.org/models/file.pth?download=1'
        torch.save({'model': published()}, tmp_path / 'checkpoints' / 'file.pth')
        assert_equal(read_weights(address).weights, classifier_weights())
        torch.save({'model': Harm(tmp_path / 'made')}, tmp_path / 'checkpoints' / 'file.pth')
        with pytest.raises(CheckpointError, match='nothing of it was executed'):
            read_weights(address)
        assert not (tmp_path / 'made').exists()

    @pytest.mark.parametrize(
        ('name', 'file'),
        [
            ('torchvision://resnet18', 'resnet18-f37072fd.pth'),
            ('open-mmlab://resnet50_v1c', 'resnet50_v1c-2cccc1ad.pth'),
        ],
    )
    def test_names_of_the_libraries_have_addresses(self, tmp_path, safe, monkeypatch, name, file):
        monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
        (tmp_path / 'checkpoints').mkdir()
        torch.save({'weight': torch.ones(2), 'other': Harm(tmp_path / 'made')}, tmp_path / 'checkpoints' / file)
        with pytest.raises(CheckpointError, match=f'{file} wants to run'):
            CheckpointLoader.load_checkpoint(name, 'cpu')
        torch.save({'weight': torch.ones(2)}, tmp_path / 'checkpoints' / file)
        assert torch.equal(CheckpointLoader.load_checkpoint(name, 'cpu')['state_dict']['weight'], torch.ones(2))
        with pytest.raises(CheckpointError, match='is unknown'):
            CheckpointLoader.load_checkpoint(f'{name}0', 'cpu')

    def test_an_address_without_an_answer(self, tmp_path, safe, monkeypatch):
        monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
        with pytest.raises(CheckpointError, match=r'http://127\.0\.0\.1:9/file\.pth cannot be fetched'):
            read_weights('http://127.0.0.1:9/file.pth')
        assert not [path for path in tmp_path.rglob('*') if path.is_file()]
