"""Checkpoints are written whole, named when they are, and removed last."""

from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from mmengine.fileio import BaseStorageBackend, LocalBackend, register_backend

from mmstvit.hooks import CheckpointHook
from mmstvit.hooks.checkpoint import UNFINISHED, _Saver


class Killed(BaseException):
    """What ends a training here; a real kill leaves the same files."""


@register_backend('elsewhere')
class Elsewhere(BaseStorageBackend):
    def get(self, filepath: str) -> bytes:
        raise NotImplementedError

    def get_text(self, filepath: str) -> str:
        raise NotImplementedError


def hooks(**options: object) -> dict:
    return dict(default_hooks=dict(checkpoint=dict(type='mmstvit.CheckpointHook', interval=1, **options)))


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob('*.pth'))


def kill_in_file(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """End the training halfway through the file of that number, counted from 1."""
    put, written = LocalBackend.put, []

    def write(self: LocalBackend, obj: bytes, filepath: str) -> None:
        written.append(filepath)
        if len(written) == number:
            Path(filepath).write_bytes(obj[: len(obj) // 2])
            raise Killed
        put(self, obj, filepath)

    monkeypatch.setattr(LocalBackend, 'put', write)


def test_as_many_are_kept_as_asked_for(make_runner, tmp_path):
    make_runner(**hooks(max_keep_ckpts=2)).train()
    assert checkpoints(tmp_path) == ['epoch_3.pth', 'epoch_4.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_4.pth')
    assert not list(tmp_path.glob('*.unfinished'))


def test_one_is_whole_and_named_while_the_next_is_written(make_runner, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_in_file(patch, 3)
        with pytest.raises(Killed):
            make_runner(**hooks(max_keep_ckpts=1)).train()
    assert checkpoints(tmp_path) == ['epoch_2.pth'] and (tmp_path / UNFINISHED).exists()
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_2.pth')
    make_runner(resume=True, **hooks(max_keep_ckpts=1)).train()
    assert checkpoints(tmp_path) == ['epoch_4.pth'] and not (tmp_path / UNFINISHED).exists()


def test_one_that_outlived_a_kill_is_removed_when_the_run_goes_on(make_runner, tmp_path):
    with mock.patch('mmstvit.hooks.checkpoint._remove', side_effect=Killed), pytest.raises(Killed):
        make_runner(**hooks(max_keep_ckpts=1)).train()
    assert checkpoints(tmp_path) == ['epoch_1.pth', 'epoch_2.pth']
    make_runner(resume=True, epochs=2, **hooks(max_keep_ckpts=1)).train()
    assert checkpoints(tmp_path) == ['epoch_2.pth']


def test_the_best_is_whole_or_absent(make_runner, tmp_path, monkeypatch):
    best = hooks(save_best='accuracy/top1')
    with monkeypatch.context() as patch:
        kill_in_file(patch, 2)  # after that of the first epoch
        with pytest.raises(Killed):
            make_runner(**best).train()
    assert checkpoints(tmp_path) == ['epoch_1.pth']
    make_runner(resume=True, **best).train()
    (path,) = tmp_path.glob('best_*.pth')
    assert 'state_dict' in torch.load(path, weights_only=False)
    assert not list(tmp_path.glob('*.unfinished'))


def test_a_strategy_may_write_folders(tmp_path):
    def save(out_dir: str, filename: str, content: str) -> None:
        Path(out_dir, filename).mkdir()
        Path(out_dir, filename, 'rank0.pth').write_text(content)

    saver = _Saver(SimpleNamespace(save_checkpoint=save))
    for content in ('first', 'second'):
        saver.save_checkpoint(str(tmp_path), 'epoch_1.pth', content=content)
        assert (tmp_path / 'epoch_1.pth' / 'rank0.pth').read_text() == content
    assert not (tmp_path / UNFINISHED).exists()


@pytest.mark.parametrize(('options', 'accumulated', 'words'), [
    ({}, 4, 'loses the gradients'),
    ({}, 2, None),
    ({'by_epoch': False, 'interval': 3}, 1, 'begins the epoch again'),
])  # fmt: skip
def test_where_a_resumed_run_would_differ_it_says_so(make_runner, options, accumulated, words):
    """Two iterations an epoch."""
    runner = make_runner(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01), accumulative_counts=accumulated))
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    hook = CheckpointHook(**{'interval': 1, **options})
    with mock.patch.object(runner.logger, 'warning') as warning:
        hook.before_train(runner)
    said = [call.args[0] for call in warning.call_args_list]
    assert len(said) == (words is not None)
    assert words is None or words in said[0]


def test_another_file_system_is_refused(make_runner):
    with pytest.raises(ValueError, match="Use type='CheckpointHook'"):
        make_runner(**hooks(backend_args=dict(backend='elsewhere'))).train()
