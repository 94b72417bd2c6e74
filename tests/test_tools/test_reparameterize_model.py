"""``reparameterize_model.py`` converts checkpoints of every family to deploy form, and refuses others."""

import functools
import os
import re
import shlex
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import DictAction
from mmengine.logging import MessageHub
from torch import Tensor, nn

from mmstvit.apis import build_model
from mmstvit.checkpoint import convert_to_official
from mmstvit.models import STViTAblation

from ..fork_server import fork
from ..helpers import (
    NANO,
    TINY,
    assert_equal,
    batch_norms,
    config_path,
    image,
    learned,
    load_config,
    load_tool,
    metrics,
    relative_error,
)

TOOL = 'model_converters/reparameterize_model.py'
reparameterize = load_tool(TOOL)
DETECTOR, SEGMENTOR, CLASSIFIER = NANO.values()
SHORT = f"""
_base_ = {str(config_path(CLASSIFIER))!r}
train_cfg = dict(max_epochs=1, val_interval=9)
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(indices=4))
default_hooks = dict(checkpoint=dict(interval=1))
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
"""


@functools.cache
def trained_model(name: str) -> nn.Module:
    """Build the model of a config with norms that are not the identity."""
    torch.manual_seed(0)
    return learned(build_model(load_config(name)))


@pytest.fixture
def weights(tmp_path) -> dict[str, Tensor]:
    """The weights of a classifier, in trained.pth."""
    weights = trained_model(CLASSIFIER).state_dict()
    torch.save({'state_dict': weights}, tmp_path / 'trained.pth')
    return weights


def printed_options(output: str) -> dict[str, object]:
    """Return the ``--cfg-options`` that the tool prints."""
    (line,) = re.findall(r'^ +use it with +--cfg-options (.*)$', output, re.MULTILINE)
    pairs = (option.split('=') for option in shlex.split(line))
    return {key: DictAction._parse_iterable(value) for key, value in pairs}


@torch.no_grad()
def features(model: nn.Module) -> tuple[Tensor, ...]:
    return model.extract_feat(image(1, 3, 96, 70))


@pytest.fixture
def run(convert) -> Callable[..., str]:
    """Run the tool in an empty folder; returns its standard output."""
    return functools.partial(convert, reparameterize)


@pytest.fixture
def refused(refused) -> Callable[..., None]:
    """Run the tool, and check that it fails with one line and changes no file."""
    return lambda message, *args: refused(message, reparameterize, *args)


@pytest.mark.parametrize(
    ('name', 'changed'),
    [(CLASSIFIER, ['backbone', 'neck']), (DETECTOR, ['backbone']), (SEGMENTOR, ['backbone'])],
    ids=['classifier', 'detector', 'segmentor'],
)
def test_with_the_printed_options_the_features_are_the_same(name, changed, run, tmp_path):
    model = trained_model(name)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'trained.pth')
    output = run(config_path(name), 'trained.pth', 'new/deployed.pth')
    assert os.listdir('new') == ['deployed.pth']
    cfg = load_config(name)
    options = printed_options(output)
    assert options == {f'model.{module}.deploy': True for module in changed}
    cfg.merge_from_dict(options)
    deployed = build_model(cfg).eval()
    deployed.load_state_dict(torch.load('new/deployed.pth', weights_only=True)['state_dict'])
    assert len(batch_norms(deployed)) < len(batch_norms(model))
    errors = [relative_error(a, b) for a, b in zip(features(deployed), features(model), strict=True)]
    assert max(errors) <= 1e-5


def test_metadata_and_the_average_are_kept_without_what_resumes_a_run(weights, run):
    hub = MessageHub('test_reparameterize_model')
    hub.update_scalar('train/loss', torch.tensor(2.0))
    meta = dict(epoch=np.int64(1), dataset_meta=dict(classes=('a', 'b'), palette=[(0, 0, 0), (1, 1, 1)]))
    content = dict(
        state_dict=weights,
        meta={**meta, 'args': Namespace(lr=1)},
        ema_state_dict={'steps': torch.tensor(3)},
        message_hub=hub.state_dict(),
        optimizer=torch.optim.AdamW([nn.Parameter(torch.ones(1))]).state_dict(),
    )
    run(config_path(CLASSIFIER), 'trained.pth', 'plain.pth')
    torch.save(content, 'trained.pth')
    output = run(config_path(CLASSIFIER), 'trained.pth', 'deployed.pth')
    assert 'averaged by EMAHook' in output
    assert re.search(r'left out +ema_state_dict, message_hub, optimizer, meta\.args \(argparse\.Namespace\)', output)
    plain, deployed = (torch.load(f'{name}.pth', weights_only=True) for name in ('plain', 'deployed'))
    assert set(plain) == {'state_dict'} and set(deployed) == {'meta', 'state_dict'}
    assert deployed['meta'] == meta
    assert_equal(deployed['state_dict'], plain['state_dict'])


def test_an_image_of_the_size_of_the_model():
    backbone = STViTAblation(TINY, pos_embed='ape', img_size=64).eval()
    features = reparameterize.extract_features(Namespace(backbone=backbone, extract_feat=backbone))
    assert features[-1].shape[2:] == (2, 2)


def test_a_published_file(weights, run):
    run(config_path(CLASSIFIER), 'trained.pth', 'ours.pth')
    torch.save({'model': convert_to_official(weights)}, 'published.pth')
    assert "published.pth, weights: under 'model'" in run(config_path(CLASSIFIER), 'published.pth', 'theirs.pth')
    ours, theirs = (torch.load(f'{name}.pth', weights_only=True)['state_dict'] for name in ('ours', 'theirs'))
    assert_equal(ours, theirs)


class TestRefused:
    """What tests/bad_inputs has no case for."""

    def test_weights_of_the_deploy_form(self, weights, run, refused):
        run(config_path(CLASSIFIER), 'trained.pth', 'deployed.pth')
        refused('weights are of the deploy form', config_path(CLASSIFIER), 'deployed.pth', 'again.pth')

    @pytest.mark.parametrize('module', ['backbone', 'neck'])
    def test_a_config_of_the_deploy_form(self, module, weights, refused):
        option = f'model.{module}.deploy=True'
        args = config_path(CLASSIFIER), 'trained.pth', 'deployed.pth', '--cfg-options', option
        refused(rf'Remove model\.{module}\.deploy', *args)

    def test_a_config_of_another_backbone(self, weights, refused, tmp_path):
        head = "dict(type='ClsHead')"
        model = f"model = dict(type='ImageClassifier', backbone=dict(type='LeNet5', num_classes=5), head={head})"
        (tmp_path / 'lenet.py').write_text(f"default_scope = 'mmpretrain'\n{model}\n")
        refused('neither STViT nor STViTNeck', 'lenet.py', 'trained.pth', 'deployed.pth')

    def test_a_wrong_fold_is_noticed(self, weights, refused, monkeypatch):
        monkeypatch.setattr('mmstvit.models.neck.fold_after', lambda layer, scale, shift: None)
        refused('the deploy form differs', config_path(CLASSIFIER), 'trained.pth', 'deployed.pth')


@pytest.mark.long
def test_a_run_is_converted_and_tested(workspace):
    """Train with EMAHook, convert, and test both checkpoints; a forgotten option is an error with a remedy."""
    short = workspace / 'short.py'
    short.write_text(SHORT)

    def done(script: str, *args: object, code: int = 0) -> str:
        done = fork(script, *args, cwd=workspace, code=code)
        return done.stdout if code == 0 else done.stderr

    done('train.py', short, '--work-dir', 'run')
    trained = Path((workspace / 'run' / 'last_checkpoint').read_text())
    output = done(TOOL, short, trained, 'deployed.pth')
    assert 'averaged by EMAHook' in output
    # test.py ignores the checkpoint that a training config starts from.
    needed = ['--cfg-options', 'load_from=gone.pth', 'resume=True', *(f'{key}=True' for key in printed_options(output))]
    before = metrics(done('test.py', short, trained, '--work-dir', 'test'))
    after = metrics(done('test.py', short, 'deployed.pth', '--work-dir', 'test', *needed))
    assert before and after == pytest.approx(before, abs=1e-3)

    shutil.rmtree(workspace / 'test')
    message = done('test.py', short, 'deployed.pth', '--work-dir', 'test', code=1)
    assert re.search(r'^error: deployed\.pth: STViT is in training form', message, re.MULTILINE)
    message = done('test.py', short, trained, '--work-dir', 'test', *needed, code=1)
    assert re.search(r'^error: .*: STViT is in deploy form .*reparameterize_model\.py', message, re.MULTILINE)
