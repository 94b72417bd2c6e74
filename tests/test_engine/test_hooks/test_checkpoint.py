"""A kill at any moment leaves a complete checkpoint that ``last_checkpoint`` names."""

import os
import shutil
from pathlib import Path
from types import MappingProxyType
from unittest import mock

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.fileio import BaseStorageBackend, LocalBackend, register_backend
from mmengine.registry import METRICS

from mmstvit.engine.hooks import CheckpointHook
from mmstvit.engine.hooks.checkpoint import UNFINISHED
from mmstvit.engine.runner.resume import ResumedValuesHook
from mmstvit.errors import UserError

from .conftest import Noise

NO_VALIDATION = dict(val_dataloader=None, val_cfg=None, val_evaluator=None)


class Killed(BaseException):
    """Ends a run in place of a real kill, which leaves the same files."""


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
    """End the run halfway through the file of that number, counted from 1."""
    put, written = LocalBackend.put, []

    def write(self: LocalBackend, obj: bytes, filepath: str) -> None:
        written.append(filepath)
        if len(written) == number:
            Path(filepath).write_bytes(obj[: len(obj) // 2])
            raise Killed
        put(self, obj, filepath)

    monkeypatch.setattr(LocalBackend, 'put', write)


def test_max_keep_ckpts(make_runner, tmp_path):
    make_runner(**NO_VALIDATION, **hooks(max_keep_ckpts=2)).train()
    assert checkpoints(tmp_path) == ['epoch_3.pth', 'epoch_4.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_4.pth')
    assert not list(tmp_path.glob('*.unfinished'))


def test_a_file_of_another_run_is_kept_under_another_name(make_runner, tmp_path):
    (tmp_path / 'epoch_1.pth').write_text('of another run')
    said = []
    for _ in range(2):  # the second run replaces the file of the first, and says so
        runner = make_runner(epochs=1, **NO_VALIDATION, **hooks())
        with mock.patch.object(runner.logger, 'warning') as warning:
            runner.train()
        said.append(' '.join(call.args[0] for call in warning.call_args_list))
    assert ['of an earlier run (epoch_1.pth): those of the same names' in text for text in said] == [False, True]
    assert [path.read_text() for path in tmp_path.glob('epoch_1.pth.*')] == ['of another run']
    assert torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['meta']['epoch'] == 1


def test_later_files_are_kept_if_the_resumed_run_is_resumed_again_before_them(make_runner, tmp_path):
    make_runner(epochs=3, **NO_VALIDATION, **hooks()).train()
    before = (tmp_path / 'epoch_3.pth').read_bytes()
    for start, epochs in (('epoch_1.pth', 2), ('epoch_2.pth', 3)):
        path = str(tmp_path / start)
        make_runner(epochs=epochs, load_from=path, resume=True, **NO_VALIDATION, **hooks()).train()
    assert [path.read_bytes() for path in tmp_path.glob('epoch_3.pth.*')] == [before]


def test_the_name_under_which_a_file_is_kept_is_free(make_runner, tmp_path):
    path = tmp_path / 'epoch_1.pth'
    path.write_text('of another run')
    taken = path.with_name(f'epoch_1.pth.{path.stat().st_mtime_ns}')
    taken.write_text('mine')
    make_runner(epochs=1, **NO_VALIDATION, **hooks()).train()
    assert taken.read_text() == 'mine'
    assert {path.read_text() for path in tmp_path.glob('epoch_1.pth.*')} == {'mine', 'of another run'}


@pytest.mark.parametrize('start', ['epoch_1.pth', '../copy.pth'])
def test_later_files_are_kept_when_a_run_is_resumed_from_an_earlier_one(make_runner, tmp_path, start):
    run, options = tmp_path / 'run', dict(val_evaluator=dict(type='Ordered'), **hooks(save_best='b', rule='greater'))
    make_runner(epochs=3, work_dir=str(run), **options).train()
    shutil.copy(run / 'epoch_1.pth', tmp_path / 'copy.pth')
    before = {path.name: path.read_bytes() for path in run.glob('*.pth')}
    for resume in (dict(load_from=str(run / start)), {}):  # then from the last one of the second try
        make_runner(epochs=4, work_dir=str(run), resume=True, **resume, **options).train()
    kept = {path.name.rpartition('.')[0]: path.read_bytes() for path in run.glob('*.pth.*')}
    assert kept == {name: before[name] for name in ('epoch_2.pth', 'epoch_3.pth')}
    assert (run / 'best_b_epoch_2.pth').read_bytes() == before['best_b_epoch_2.pth']
    assert (run / 'epoch_4.pth').exists()


def test_the_folder_is_on_the_disk_before_the_old_file_is_removed(make_runner, tmp_path, monkeypatch):
    """After a power cut, the new name exists or the old file does."""
    calls = []
    fsync, unlink = os.fsync, Path.unlink

    def flush(descriptor: int) -> None:
        calls.append(Path(os.readlink(f'/proc/self/fd/{descriptor}')).name)
        fsync(descriptor)

    def remove(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == '.pth':
            calls.append(f'remove {path.name}')
        unlink(path, missing_ok)

    monkeypatch.setattr(os, 'fsync', flush)
    monkeypatch.setattr(Path, 'unlink', remove)
    make_runner(epochs=2, **NO_VALIDATION, **hooks(max_keep_ckpts=1)).train()
    record, last = '.mmstvit-.mmstvit-checkpoints.json.partial', '.mmstvit-last_checkpoint.partial'
    names = [UNFINISHED, record, tmp_path.name, tmp_path.name, last, tmp_path.name]
    assert calls == [*names, *names, 'remove epoch_1.pth']


def test_kill_while_a_checkpoint_is_written(make_runner, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_in_file(patch, 3)
        with pytest.raises(Killed):
            make_runner(**NO_VALIDATION, **hooks(max_keep_ckpts=1)).train()
    assert checkpoints(tmp_path) == ['epoch_2.pth'] and (tmp_path / UNFINISHED).exists()
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_2.pth')
    make_runner(resume=True, epochs=3, **NO_VALIDATION, **hooks(max_keep_ckpts=1)).train()
    assert checkpoints(tmp_path) == ['epoch_3.pth'] and not (tmp_path / UNFINISHED).exists()


def test_kill_before_the_oldest_is_removed(make_runner, tmp_path):
    unlink = Path.unlink

    def kill(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == '.pth':
            raise Killed
        unlink(path, missing_ok)

    with mock.patch.object(Path, 'unlink', kill), pytest.raises(Killed):
        make_runner(**NO_VALIDATION, **hooks(max_keep_ckpts=1)).train()
    assert checkpoints(tmp_path) == ['epoch_1.pth', 'epoch_2.pth']
    make_runner(resume=True, epochs=2, **NO_VALIDATION, **hooks(max_keep_ckpts=1)).train()
    assert checkpoints(tmp_path) == ['epoch_2.pth']


@METRICS.register_module()
class Ordered(BaseMetric):
    """Metric ``a`` with new bests in epochs 1 and 3, and metric ``b`` in epochs 1 and 2."""

    scores = MappingProxyType({'a': (3, 1, 4, 2), 'b': (1, 4, 2, 3)})

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0

    def process(self, data_batch: object, data_samples: object) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict[str, int]:
        self.epoch += 1
        return {name: scores[self.epoch - 1] for name, scores in self.scores.items()}


BEST = dict(val_evaluator=dict(type='Ordered'), **hooks(max_keep_ckpts=1, save_best='a', rule='greater'))


@pytest.mark.parametrize(('file', 'epoch'), [
    (5, 2),  # after four files: epoch 1, its best, epoch 1 again with the name of the best, epoch 2
    (6, 3),
])  # fmt: skip
def test_kill_while_a_new_best_is_written(make_runner, tmp_path, monkeypatch, file, epoch):
    """While epoch 3 or its best is written, the old best exists."""
    kill_in_file(monkeypatch, file)
    with pytest.raises(Killed):
        make_runner(**BEST).train()
    assert checkpoints(tmp_path) == ['best_a_epoch_1.pth', f'epoch_{epoch}.pth']
    assert 'state_dict' in torch.load(tmp_path / 'best_a_epoch_1.pth', weights_only=False)


def test_each_metric_has_its_best(make_runner, tmp_path, monkeypatch):
    several = dict(BEST, **hooks(max_keep_ckpts=1, save_best=['a', 'b'], rule='greater'))
    with monkeypatch.context() as patch:
        # Epoch 1, its two bests, epoch 1 again, epoch 2, and the best of b, which is not finished.
        kill_in_file(patch, 6)
        with pytest.raises(Killed):
            make_runner(**several).train()
    assert checkpoints(tmp_path) == ['best_a_epoch_1.pth', 'best_b_epoch_1.pth', 'epoch_2.pth']
    make_runner(resume=True, **several).train()
    # The metric of the resumed run starts again: a is 3, 1 and b is 1, 4 in epochs 3 and 4.
    assert checkpoints(tmp_path) == ['best_a_epoch_1.pth', 'best_b_epoch_4.pth', 'epoch_4.pth']
    assert not list(tmp_path.glob('*.unfinished'))


# Names in a checkpoint of files that the hook did not write, and its options.
FOREIGN = [
    ('best_b_epoch_1.pth', {}),
    ('out/run/../best_b_epoch_1.pth', {}),
    ('out/run/best_c_epoch_1.pth', {}),
    ('out/run/notes.pth', {'save_best': 'auto'}),
    ('best_b_epoch_1.pth', {'save_best': ['a', 'b']}),
    ('5.pth', {'filename_tmpl': '{}.pth'}),
]


class TestFilesNamedByACheckpoint:
    """A resumed run removes only checkpoints that its record shows to be its own, whatever its checkpoint names."""

    @pytest.fixture(params=['mmstvit.CheckpointHook', 'CheckpointHook'])  # the second is MMEngine's
    def kind(self, request):
        return request.param

    @pytest.fixture
    def resume(self, make_runner, tmp_path, kind):
        def resume(info: dict, file: str, own: bool = True, **options: object) -> None:
            """Train one epoch, change the names of files in its checkpoint, and resume with a better epoch.

            ``own``: the changed file has the time of the one that the run wrote.
            """
            hook = dict(
                type=kind, **{'interval': 1, 'max_keep_ckpts': 1, 'save_best': 'b', 'rule': 'greater', **options}
            )
            fields = dict(
                work_dir=str(tmp_path / 'run'), val_evaluator=dict(type='Ordered'), default_hooks=dict(checkpoint=hook)
            )
            make_runner(epochs=1, **fields).train()
            last = Path((tmp_path / 'run' / 'last_checkpoint').read_text())
            time, content = last.stat().st_mtime_ns, torch.load(last, weights_only=False)
            scores = dict.fromkeys(['best_score', 'best_score_a', 'best_score_b'], -1)
            content['message_hub']['runtime_info'].update({**scores, **info})
            path = tmp_path / file
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(content, path)
            if own:
                os.utime(path, ns=(time, time))
            runner = make_runner(epochs=2, resume=True, load_from=str(path), **fields)
            runner.register_hook(ResumedValuesHook())  # as train.py does
            runner.train()

        return resume

    @pytest.mark.parametrize(
        ('named', 'options', 'kind'),
        [(*case, 'CheckpointHook') for case in FOREIGN] + [(*case, 'mmstvit.CheckpointHook') for case in FOREIGN[::3]],
    )
    def test_a_file_that_the_hook_did_not_write(self, resume, tmp_path, named, options):
        victim = tmp_path / named
        (tmp_path / 'out' / 'run').mkdir(parents=True)
        victim.touch()
        bests = dict.fromkeys(['best_ckpt', 'best_ckpt_a', 'best_ckpt_b'], str(victim))
        ids = [str(victim.with_suffix('')), '../../5', 8, 9]
        resume({**bests, 'keep_ckpt_ids': ids}, 'out/run/epoch_1.pth', out_dir=str(tmp_path / 'out'), **options)
        assert victim.exists()

    def test_own_files_of_a_moved_run(self, resume, tmp_path, kind):
        info = {'best_ckpt': '/before/best_b_epoch_1.pth', 'keep_ckpt_ids': [1]}
        resume(info, 'run/epoch_1.pth')
        own = ['best_b_epoch_2.pth', 'epoch_2.pth']
        without_record = ['best_b_epoch_1.pth', 'best_b_epoch_2.pth', 'epoch_1.pth', 'epoch_2.pth']
        assert checkpoints(tmp_path / 'run') == (own if kind == 'mmstvit.CheckpointHook' else without_record)

    @pytest.mark.parametrize('file', ['run/epoch_1.pth', 'run/new.pth'])
    def test_a_checkpoint_that_was_copied_into_the_work_dir(self, resume, tmp_path, file):
        info = {'best_ckpt': str(tmp_path / 'run' / 'best_b_epoch_1.pth'), 'keep_ckpt_ids': [1]}
        resume(info, file, own=False)
        assert {'best_b_epoch_1.pth', 'epoch_1.pth'} <= {*checkpoints(tmp_path / 'run')}
        (log,) = (path.read_text() for path in sorted((tmp_path / 'run').glob('*/*.log'))[-1:])
        assert 'will not remove earlier checkpoints' in log and '(1, best_b_epoch_1.pth)' in log

    @pytest.mark.parametrize('kind', ['CheckpointHook'])
    def test_own_files_named_by_another_run(self, resume, tmp_path):
        """The file to resume is in a folder that is not of this run."""
        info = {'best_ckpt': str(tmp_path / 'run' / 'best_b_epoch_1.pth'), 'keep_ckpt_ids': [1]}
        resume(info, 'stranger/epoch_1.pth')
        assert {'best_b_epoch_1.pth', 'epoch_1.pth'} <= {*checkpoints(tmp_path / 'run')}

    @pytest.mark.parametrize('kind', ['CheckpointHook'])
    def test_a_link_stays_and_so_does_its_target(self, resume, tmp_path):
        target, link = tmp_path / 'target.pth', tmp_path / 'run' / 'best_b_epoch_7.pth'
        link.parent.mkdir()
        target.touch()
        link.symlink_to(target)
        resume({'best_ckpt': str(link)}, 'run/epoch_1.pth')
        assert target.exists() and link.is_symlink()


@pytest.mark.parametrize(('options', 'accumulated', 'words'), [
    ({}, 4, 'accumulative_counts'),
    ({}, 2, None),
    ({'interval': -1}, 4, None),
    ({'by_epoch': False, 'interval': -1}, 2, None),
])  # fmt: skip
def test_warning_if_a_resumed_run_would_differ(make_runner, options, accumulated, words):
    """With two iterations per epoch."""
    runner = make_runner(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01), accumulative_counts=accumulated))
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    hook = CheckpointHook(**{'interval': 1, **options})
    with mock.patch.object(runner.logger, 'warning') as warning:
        hook.before_train(runner)
    said = [call.args[0] for call in warning.call_args_list]
    assert len(said) == (words is not None)
    assert words is None or words in said[0]


def test_another_file_system_is_refused(make_runner):
    with pytest.raises(UserError, match='local file system') as error:
        make_runner(**hooks(backend_args=dict(backend='elsewhere'))).train()
    assert "default_hooks.checkpoint.type='CheckpointHook'" in error.value.remedy


def test_a_resumed_run_with_other_data_warns(make_runner, tmp_path):
    make_runner(epochs=1, **NO_VALIDATION, **hooks()).train()
    sampler = dict(type='DefaultSampler', shuffle=False)
    data = torch.utils.data.Subset(Noise(), range(4))
    loader = dict(batch_size=4, num_workers=0, dataset=data, sampler=sampler)
    make_runner(epochs=2, resume=True, train_dataloader=loader, **NO_VALIDATION, **hooks()).train()
    assert 'had 8 training samples, now there are 4' in max(tmp_path.glob('*/*.log')).read_text()
