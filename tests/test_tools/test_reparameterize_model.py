"""``tools/model_converters/reparameterize_model.py``: checkpoints of every family, real ones, strange ones."""

import functools
import os
import re
import resource
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

from ..helpers import (
    ROOT,
    assert_equal,
    batch_norms,
    image,
    learned,
    load_config,
    load_tool,
    metrics,
    relative_error,
)

TOOL = 'model_converters/reparameterize_model.py'
reparameterize = load_tool(TOOL)
CLASSIFIER = 'imagenet/stvit-nano_scenes'
DETECTOR = 'mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes'
SEGMENTOR = 'upernet/stvit-nano_upernet_scenes'
SHORT = """
_base_ = {base!r}
train_cfg = dict({unit}=1, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1))
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
"""


def config(name: str) -> Path:
    return ROOT / 'configs' / f'{name}.py'


def save_learned(name: str, path: Path, **content: object) -> nn.Module:
    """Write a checkpoint with norms that are not the identity, and what else it is to hold; returns the model."""
    torch.manual_seed(0)
    model = learned(build_model(load_config(name)))
    torch.save(dict(state_dict=model.state_dict(), **content), path)
    return model


def printed_options(output: str) -> dict[str, object]:
    """The ``--cfg-options`` that the tool tells to use."""
    (line,) = re.findall(r'^Use it with: --cfg-options (.*)$', output, re.MULTILINE)
    pairs = (option.split('=') for option in shlex.split(line))
    return {key: DictAction._parse_iterable(value) for key, value in pairs}


@torch.no_grad()
def features(model: nn.Module) -> tuple[Tensor, ...]:
    return model.extract_feat(image(1, 3, 96, 70))


@pytest.fixture
def run(convert) -> Callable[..., str]:
    """Run the tool in this process, in an empty folder; returns its standard output."""
    return functools.partial(convert, reparameterize)


@pytest.fixture
def refused(refused) -> Callable[..., None]:
    """Run the tool and see it fail with a message, and all files as they were."""
    return lambda message, *args: refused(message, reparameterize, *args)


@pytest.mark.parametrize(
    ('name', 'changed'),
    [(CLASSIFIER, ['backbone', 'neck']), (DETECTOR, ['backbone']), (SEGMENTOR, ['backbone'])],
    ids=['classifier', 'detector', 'segmentor'],
)
def test_the_written_weights_give_the_same_features_with_the_printed_options(name, changed, run, tmp_path):
    model = save_learned(name, tmp_path / 'trained.pth')
    output = run(config(name), 'trained.pth', 'new/deployed.pth')
    assert os.listdir('new') == ['deployed.pth']
    cfg = load_config(name)
    options = printed_options(output)
    assert options == {f'model.{module}.deploy': True for module in changed}
    cfg.merge_from_dict(options)
    inference = build_model(cfg).eval()
    inference.load_state_dict(torch.load('new/deployed.pth', weights_only=True)['state_dict'])
    assert len(batch_norms(inference)) < len(batch_norms(model))
    errors = [relative_error(a, b) for a, b in zip(features(inference), features(model), strict=True)]
    assert max(errors) <= 1e-5


@pytest.fixture
def real(tmp_path) -> dict:
    """What MMEngine puts beside the weights: log, optimizer, description."""
    hub = MessageHub('test_reparameterize_model')
    hub.update_scalar('train/loss', torch.tensor(2.0))
    hub.update_scalar('train/time', 0.5)
    hub.update_info('best_score', np.float64(0.5))
    meta = dict(epoch=1, iter=4, dataset_meta=dict(classes=('a', 'b'), palette=[(0, 0, 0), (1, 1, 1)]))
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(1))])
    return dict(meta=meta, message_hub=hub.state_dict(), optimizer=optimizer.state_dict())


def test_the_description_is_kept_and_what_resumes_a_training_is_not(real, run, tmp_path):
    save_learned(CLASSIFIER, tmp_path / 'trained.pth', **real)
    run(config(CLASSIFIER), 'trained.pth', 'deployed.pth')
    content = torch.load('deployed.pth', weights_only=True)
    assert set(content) == {'meta', 'state_dict'}
    assert content['meta'] == real['meta']


def test_averaged_weights_are_those_that_mmengine_evaluates(real, run, tmp_path):
    save_learned(CLASSIFIER, tmp_path / 'trained.pth')
    run(config(CLASSIFIER), 'trained.pth', 'plain.pth')
    save_learned(CLASSIFIER, tmp_path / 'trained.pth', ema_state_dict={'steps': torch.tensor(3)}, **real)
    assert 'averaged, as MMEngine' in run(config(CLASSIFIER), 'trained.pth', 'deployed.pth')
    plain, averaged = (torch.load(f'{name}.pth', weights_only=True) for name in ('plain', 'deployed'))
    assert set(averaged) == {'meta', 'state_dict'}
    assert_equal(averaged['state_dict'], plain['state_dict'])


def test_weights_alone_are_a_checkpoint_too(run, tmp_path):
    model = save_learned(CLASSIFIER, tmp_path / 'trained.pth')
    torch.save(model.state_dict(), 'trained.pth')
    run(config(CLASSIFIER), 'trained.pth', 'deployed.pth')
    assert set(torch.load('deployed.pth', weights_only=True)) == {'state_dict'}


def test_a_description_that_is_no_plain_data_is_left_out(run, tmp_path):
    save_learned(CLASSIFIER, tmp_path / 'trained.pth', meta=dict(epoch=np.int64(3), args=Namespace(lr=1)))
    output = run(config(CLASSIFIER), 'trained.pth', 'deployed.pth')
    assert torch.load('deployed.pth', weights_only=True)['meta'] == {'epoch': 3}
    assert 'Left out, being no plain data: meta.args (argparse.Namespace)' in output


def test_a_published_file_as_it_is(run, tmp_path):
    model = save_learned(CLASSIFIER, tmp_path / 'trained.pth')
    run(config(CLASSIFIER), 'trained.pth', 'ours.pth')
    torch.save({'model': convert_to_official(model.state_dict())}, 'published.pth')
    assert "published.pth, weights: under 'model'" in run(config(CLASSIFIER), 'published.pth', 'theirs.pth')
    ours, theirs = (torch.load(f'{name}.pth', weights_only=True)['state_dict'] for name in ('ours', 'theirs'))
    assert_equal(ours, theirs)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ('exploded',)


@pytest.mark.parametrize('place', ['state_dict', 'message_hub', 'meta'])
def test_a_harmful_file_is_refused_and_not_executed(place, refused, tmp_path):
    torch.save({'state_dict': {}, place: Bomb()}, tmp_path / 'harmful.pth')
    refused(
        r'harmful\.pth wants to run \S*mkdir.* nothing of it was executed', config(CLASSIFIER), 'harmful.pth', 'new.pth'
    )


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([1], r'strange\.pth: a dict with weights is needed, but the file holds a list'),
        ({'state_dict': {}}, r"strange\.pth: a dict with weights is needed, .* under 'state_dict' there is an empty"),
        ({'state_dict': torch.ones(1)}, r'strange\.pth does not fit .*Missing key'),
        (
            {'state_dict': {'fc.weight': torch.ones(1)}},
            r'strange.pth does not fit .*Missing key.*backbone\.patch_embed',
        ),
        ({}, r'strange\.pth: a dict with weights is needed, .* an empty dict'),
    ],
)
def test_what_is_no_checkpoint_of_the_model_is_refused(content, message, refused, tmp_path):
    torch.save(content, tmp_path / 'strange.pth')
    refused(message, config(CLASSIFIER), 'strange.pth', 'deployed.pth')


def test_what_is_no_file_of_torch_is_refused(refused, tmp_path):
    (tmp_path / 'broken.pth').write_bytes(b'<html>too many requests</html>')
    refused(r'broken\.pth is a web page', config(CLASSIFIER), 'broken.pth', 'deployed.pth')


class TestRefused:
    @pytest.fixture(autouse=True)
    def trained(self, tmp_path) -> None:
        save_learned(CLASSIFIER, tmp_path / 'trained.pth')

    def test_an_existing_file_unless_forced(self, run, refused, tmp_path):
        (tmp_path / 'deployed.pth').write_text('precious')
        refused('deployed.pth exists.*--force', config(CLASSIFIER), 'trained.pth', 'deployed.pth')
        run(config(CLASSIFIER), 'trained.pth', 'deployed.pth', '--force')
        assert torch.load('deployed.pth', weights_only=True)['state_dict']

    def test_to_overwrite_the_training_even_if_forced(self, refused, tmp_path):
        (tmp_path / 'link.pth').symlink_to('trained.pth')
        for target in ('trained.pth', 'link.pth'):
            refused('the file to read', config(CLASSIFIER), 'trained.pth', target, '--force')

    def test_an_absent_checkpoint(self, refused):
        refused('the checkpoint gone.pth does not exist', config(CLASSIFIER), 'gone.pth', 'deployed.pth')

    def test_what_was_converted_before(self, run, refused):
        run(config(CLASSIFIER), 'trained.pth', 'deployed.pth')
        refused('weights are those of the inference form', config(CLASSIFIER), 'deployed.pth', 'again.pth')

    @pytest.mark.parametrize('module', ['backbone', 'neck'])
    def test_a_config_of_the_inference_form(self, module, refused):
        option = f'model.{module}.deploy=True'
        args = config(CLASSIFIER), 'trained.pth', 'deployed.pth', '--cfg-options', option
        refused(f'remove model.{module}.deploy', *args)

    def test_a_config_of_another_backbone(self, refused, tmp_path):
        head = "dict(type='ClsHead')"
        model = f"model = dict(type='ImageClassifier', backbone=dict(type='LeNet5', num_classes=5), head={head})"
        (tmp_path / 'lenet.py').write_text(f"default_scope = 'mmpretrain'\n{model}\n")
        refused('neither STViT nor STViTNeck', 'lenet.py', 'trained.pth', 'deployed.pth')

    def test_weights_that_are_not_finite(self, refused):
        content = torch.load('trained.pth', weights_only=True)
        content['state_dict']['backbone.stages.2.1.ffn.fc1.weight'][3, 5] = torch.nan
        torch.save(content, 'diverged.pth')
        args = config(CLASSIFIER), 'diverged.pth', 'deployed.pth'
        refused(r'diverged\.pth has NaN or Inf in 1 of .*stages\.2\.1\.ffn\.fc1\.weight \(1 NaN', *args)

    def test_a_wrong_fold(self, refused, monkeypatch):
        """The tool compares; it does not trust."""
        monkeypatch.setattr('mmstvit.models.neck.fold_after', lambda layer, scale, shift: None)
        refused('the inference form disagrees', config(CLASSIFIER), 'trained.pth', 'deployed.pth')

    def test_a_folder_that_cannot_be_made(self, refused):
        refused('cannot be written', config(CLASSIFIER), 'trained.pth', 'trained.pth/deployed.pth')

    def test_a_full_disk(self, refused, tmp_path):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            refused(
                r'deployed\.pth .* cannot be written: File too large', config(CLASSIFIER), 'trained.pth', 'deployed.pth'
            )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.long
@pytest.mark.parametrize('name', [CLASSIFIER, DETECTOR, SEGMENTOR], ids=['classifier', 'detector', 'segmentor'])
def test_a_training_is_converted_and_tested(name, workspace, tool):
    """As a user does it, with averaged weights; and each of the forgotten options gets a message."""
    short = workspace / 'short.py'
    short.write_text(SHORT.format(base=str(config(name)), unit='max_iters' if name == SEGMENTOR else 'max_epochs'))

    def done(script: str, *args: object, code: int = 0) -> str:
        done = tool(script, *args, cwd=workspace)
        assert done.returncode == code, done.stderr[-3000:]
        return done.stdout if code == 0 else done.stderr

    done('train.py', short, '--work-dir', 'run')
    trained = Path((workspace / 'run' / 'last_checkpoint').read_text())
    output = done(TOOL, short, trained, 'deployed.pth')
    assert 'averaged, as MMEngine' in output
    # Whatever a training began from or was resumed from, test.py tests the checkpoint of the command.
    needed = ['--cfg-options', 'load_from=gone.pth', 'resume=True', *(f'{key}=True' for key in printed_options(output))]
    before = metrics(done('test.py', short, trained, '--work-dir', 'test'))
    after = metrics(done('test.py', short, 'deployed.pth', '--work-dir', 'test', *needed))
    assert before and after == pytest.approx(before, abs=1e-3)

    shutil.rmtree(workspace / 'test')
    message = done('test.py', short, 'deployed.pth', '--work-dir', 'test', code=1)
    assert re.search(r'^error: deployed\.pth: STViT is in its training form', message, re.MULTILINE)
    message = done('test.py', short, trained, '--work-dir', 'test', *needed, code=1)
    assert re.search(r'^error: .*: STViT is in its inference form .*reparameterize_model\.py', message, re.MULTILINE)
