"""SuperTokenVisHook: what it logs, and that the run stays the same."""

from pathlib import Path

import pytest
from mmengine.hooks import Hook
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import mmstvit
from mmstvit.errors import UserError
from mmstvit.visualization import SuperTokenVisHook, panels

from ..helpers import TINY, assert_equal
from ..test_engine.test_hooks.conftest import make_runner  # noqa: F401

HOOK = 'mmstvit.SuperTokenVisHook'
ITERATIONS = dict(by_epoch=False, max_iters=4, val_interval=2)


def backends() -> dict:
    """Return a new config: MMEngine writes the folder of the run into it."""
    return dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])


@pytest.fixture(autouse=True)
def small_panels(monkeypatch):
    monkeypatch.setattr(panels, 'SIDE', 96)


class Watch(Hook):
    """Record losses, and the modes of all modules in each iteration."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.losses, self.modes = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append(outputs['loss'].item())
        self.modes.append([module.training for module in runner.model.modules()])


@pytest.fixture
def train(make_runner, tmp_path):  # noqa: F811
    """Train for two epochs of two iterations with the hook; return the images in the event file, by tag."""

    def run(**fields):
        hooks = fields.pop('hooks', [dict(type=HOOK)])
        runner = make_runner(epochs=2, custom_hooks=hooks, visualizer=backends(), **fields)
        runner.train()
        events = EventAccumulator(str(next(tmp_path.rglob('events.*')).parent), size_guidance={'images': 0})
        events.Reload()
        runner.visualizer.close()
        return {tag: events.Images(tag) for tag in events.Tags()['images']}

    return run


def names(folder: Path) -> list[str]:
    root = next(folder.rglob('vis_image'))
    return sorted(path.relative_to(root).as_posix() for path in root.rglob('*.png'))


@pytest.mark.parametrize(
    ('fields', 'steps', 'count'),
    [({}, [1, 2], 2), (dict(train_cfg=ITERATIONS, hooks=[dict(type=HOOK, num_images=1)]), [2, 4], 1)],
    ids=['epochs', 'iterations'],
)
def test_pictures_in_tensorboard_and_in_files(train, tmp_path, fields, steps, count):
    images = train(**fields)
    tags = [f'super_tokens/image{i}/stage{stage}_block0' for i in range(count) for stage in (0, 1)]
    assert sorted(images) == tags
    for found in images.values():
        assert [image.step for image in found] == steps
        assert (found[0].width, found[0].height) == (192, 96)
        assert found[0].encoded_image_string != found[1].encoded_image_string  # the weights have changed
    assert len({found[0].encoded_image_string for found in images.values()}) == len(tags)
    assert names(tmp_path) == [f'{tag}_{step}.png' for tag in tags for step in steps]
    with Image.open(next(tmp_path.rglob('stage0_block0_*.png'))) as picture:
        assert picture.size == (192, 96)


def test_options(train):
    """More images than a batch has, of one stage, at the first of two validations."""
    images = train(hooks=[dict(type=HOOK, num_images=5, interval=2, stages=[1])])
    assert sorted(images) == [f'super_tokens/image{i}/stage1_block0' for i in range(5)]
    assert [[image.step for image in found] for found in images.values()] == [[1]] * 5


def test_the_run_stays_the_same(make_runner):  # noqa: F811
    """Losses, weights, BatchNorm statistics and modes, with drop path, equal those without the hook."""
    runs = []
    for hooks in ([], [dict(type=HOOK)]):
        watch = Watch()
        state = make_runner(epochs=2, custom_hooks=[*hooks, watch]).train().state_dict()
        runs.append((watch, {name: value.clone() for name, value in state.items()}))
    (without, state), (with_hook, other) = runs
    assert len(without.losses) == 4 and with_hook.losses == without.losses
    assert with_hook.modes == without.modes and all(map(all, with_hook.modes))
    assert_equal(other, state)


def test_the_first_process_draws(make_runner, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setattr('mmstvit.visualization.hook.is_main_process', lambda: False)
    make_runner(epochs=1, custom_hooks=[dict(type=HOOK)], visualizer=backends()).train()
    assert not list(tmp_path.rglob('*.png'))


def test_a_validation_outside_of_a_run_is_not_drawn(make_runner, tmp_path):  # noqa: F811
    make_runner(custom_hooks=[dict(type=HOOK)], visualizer=backends()).val()
    assert not list(tmp_path.rglob('*.png'))


def other_backbone(runner) -> None:
    runner.model.backbone = nn.Identity()


def without_super_tokens(runner) -> None:
    runner.model.backbone = mmstvit.STViT({**TINY, 'stoken_size': (1, 1, 1, 1)})


@pytest.mark.parametrize(
    ('hook', 'change', 'fields', 'words', 'remedy'),
    [
        ({}, other_backbone, {}, '0 STViT', 'Remove'),
        ({}, without_super_tokens, {}, 'super tokens are in the stages', 'Remove'),
        (dict(stages=[0, 2]), None, {}, r'stages=\[0, 2\]', 'stages=[0, 1]'),
        (dict(stages=[]), None, {}, r'stages=\[\]', 'stages=[0, 1]'),
        ({}, None, dict.fromkeys(['val_dataloader', 'val_cfg', 'val_evaluator']), 'no validation', 'val_dataloader'),
    ],
    ids=['no STViT', 'no super tokens', 'stage', 'no stage', 'no validation'],
)
def test_refused_before_the_first_iteration(make_runner, hook, change, fields, words, remedy):  # noqa: F811
    watch = Watch()
    runner = make_runner(custom_hooks=[dict(type=HOOK, **hook), watch], **fields)
    if change:
        change(runner)
    with pytest.raises(UserError, match=words) as caught:
        runner.train()
    assert remedy in caught.value.remedy
    assert not watch.losses


@pytest.mark.parametrize('bad', [dict(num_images=0), dict(interval=0), dict(interval=1.5), dict(num_images=True)])
def test_bad_arguments(bad):
    with pytest.raises(ValueError, match='positive integer'):
        SuperTokenVisHook(**bad)
