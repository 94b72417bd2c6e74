"""Models, limits and pictures of the page, and its command, without a server."""

import os
import struct
import sys
import threading
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmstvit.app import __main__ as command
from mmstvit.app import service as module
from mmstvit.app.service import DEMO, SCORE, SIDE, Service
from mmstvit.errors import UserError
from mmstvit.visualization import attention_of

from ..helpers import Harm
from ..test_datasets.tiny_data import draw, write
from .checkpoints import save_checkpoints


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A folder with checkpoints in ``work_dirs``, one beside it, and an image."""
    root = tmp_path_factory.mktemp('app')
    save_checkpoints(root / 'work_dirs')
    (root / 'outside.pth').write_bytes((root / 'work_dirs/mmpretrain/epoch_1.pth').read_bytes())
    write(root / 'image.png', np.kron(draw(0), np.ones((2, 2, 1), np.uint8)))
    return root


@pytest.fixture(scope='module')
def service(folder) -> Service:
    return Service(folder / 'work_dirs', device='cpu')


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """Names of the checkpoints that are loaded."""
    names, load = [], module.load_predictor
    monkeypatch.setattr(
        module, 'load_predictor', lambda name, *args, **kw: names.append(name) or load(name, *args, **kw)
    )
    return names


def touch(path: Path, seconds: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (seconds, seconds))


class TestCheckpoints:
    def test_last_and_best_of_each_run_newest_first(self, tmp_path):
        work_dirs = tmp_path / 'work_dirs'
        for seconds, name in enumerate(
            (f'{DEMO}/epoch_1.pth', 'a/best_x_epoch_1.pth', 'a/epoch_1.pth', 'b/iter_8.pth', 'a/epoch_2.pth'), start=1
        ):
            touch(work_dirs / name, seconds)
        touch(work_dirs / 'a' / 'best_x_epoch_2.pth', 10)
        touch(tmp_path / 'outside.pth', 20)
        (work_dirs / 'c').mkdir()
        (work_dirs / 'c' / 'linked.pth').symlink_to(tmp_path / 'outside.pth')
        (work_dirs / 'c' / 'broken.pth').symlink_to(tmp_path / 'nowhere.pth')
        found = Service(work_dirs).checkpoints()
        assert found == [f'{DEMO}/epoch_1.pth', 'a/best_x_epoch_2.pth', 'a/epoch_2.pth', 'b/iter_8.pth']

    def test_a_missing_folder_has_none(self, tmp_path):
        assert Service(tmp_path / 'work_dirs').checkpoints() == []

    def test_paths_into_the_folder_are_found(self, service, folder, monkeypatch):
        expected = folder / 'work_dirs' / 'mmdet' / 'epoch_1.pth'
        monkeypatch.chdir(folder)
        for name in ('mmdet/epoch_1.pth', 'work_dirs/mmdet/epoch_1.pth', str(expected), ' mmseg/../mmdet/epoch_1.pth'):
            assert service.find_checkpoint(name) == expected

    @pytest.mark.parametrize(
        'name',
        ['../outside.pth', '{root}/outside.pth', 'linked.pth', 'links/outside.pth', '..', '', 'a\0b', 'x' * 5000],
    )
    def test_paths_outside_are_refused(self, service, folder, name):
        work_dirs = folder / 'work_dirs'
        for link, target in (('linked.pth', folder / 'outside.pth'), ('links', folder)):
            if not (work_dirs / link).exists():
                (work_dirs / link).symlink_to(target)
        with pytest.raises(UserError, match='--dir'):
            service.find_checkpoint(name.format(root=folder))

    @pytest.mark.parametrize(
        'name', ['http://127.0.0.1/outside.pth', 'https://127.0.0.1/outside.pth', 'file:///etc/passwd']
    )
    def test_addresses_are_refused(self, service, folder, loads, name):
        with pytest.raises(UserError, match='--dir'):
            service.view(name, folder / 'image.png')
        assert loads == []

    def test_code_in_a_checkpoint_is_not_executed(self, service, folder):
        path, made = folder / 'work_dirs' / 'harm.pth', folder / 'made'
        torch.save(dict(state_dict=Harm(os.mkdir, str(made))), path)
        with pytest.raises(UserError, match='mkdir') as error:
            service.view('harm.pth', folder / 'image.png')
        path.unlink()
        assert not made.exists()
        assert '--trust' not in str(error.value)

    def test_a_device_that_is_not_there(self, folder):
        with pytest.raises(UserError, match='--device nonsense') as error:
            Service(folder / 'work_dirs', 'nonsense').view('mmpretrain/epoch_1.pth', folder / 'image.png')
        assert 'checkpoint' not in str(error.value)

    def test_a_checkpoint_without_config(self, service, folder):
        path = folder / 'work_dirs' / 'weights.pth'
        torch.save(dict(state_dict={}), path)
        with pytest.raises(UserError, match='training run of MMEngine'):
            service.view('weights.pth', folder / 'image.png')
        path.unlink()


def png(width: int, height: int) -> bytes:
    """The header of a PNG file, without the pixels."""
    header = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    header = struct.pack('>I', 13) + header + struct.pack('>I', zlib.crc32(header))
    return b'\x89PNG\r\n\x1a\n' + header + struct.pack('>I', 100) + b'IDAT'


class TestImages:
    @pytest.mark.parametrize(
        ('name', 'content', 'reason'),
        [
            ('a.png', b'text', 'not an image'),
            ('a.png', b'', 'not an image'),
            ('a.mp4', png(9, 9), 'not an image'),
            ('a.png', bytes(2_000), 'bytes'),
            ('a.png', png(101, 100), 'pixels'),
            ('a.png', png(60_000, 60_000), 'pixels'),
            ('a.jpg', png(100, 100), 'a.jpg: .*truncated'),
        ],
    )
    def test_bad_ones_are_refused(self, service, tmp_path, monkeypatch, name, content, reason):
        (tmp_path / name).write_bytes(content)
        monkeypatch.setattr(service, 'max_bytes', 1_000)
        monkeypatch.setattr(service, 'max_pixels', 10_000)
        with pytest.raises(UserError, match=reason):
            service.view('mmpretrain/epoch_1.pth', tmp_path / name)

    def test_large_ones_for_the_model_are_refused(self, service, folder, monkeypatch):
        monkeypatch.setattr(module, 'MODEL_PIXELS', 64 * 48 - 1)
        with pytest.raises(UserError, match='after the test pipeline'):
            service.view('mmpretrain/epoch_1.pth', folder / 'image.png')


class TestViews:
    def test_classes(self, service, folder):
        view = service.view('mmpretrain/epoch_1.pth', folder / 'image.png')
        values = [row.value for row in view.rows]
        assert len(values) == 5 and values == sorted(values, reverse=True) and sum(values) == pytest.approx(1)
        assert {row.color for row in view.rows} == {None}

    def test_objects(self, service, folder):
        view = service.view('mmdet/epoch_1.pth', folder / 'image.png')
        assert view.rows and {row.name for row in view.rows} == {'circle'}
        assert min(row.value for row in view.rows) >= SCORE
        assert max(view.prediction.shape) == SIDE
        painted = (view.prediction == view.rows[0].color).all(-1)  # boxes and outlines
        assert 0.001 < painted.mean() < 0.5

    def test_segments(self, service, folder):
        view = service.view('mmseg/epoch_1.pth', folder / 'image.png')
        assert sum(row.value for row in view.rows) == pytest.approx(1)
        assert all(row.color for row in view.rows)

    def test_maps_of_every_block(self, service, folder, monkeypatch):
        monkeypatch.setattr(module, 'SIDE', 160)
        view = service.view('mmpretrain/epoch_1.pth', folder / 'image.png')
        assert view.depths() == [1, 1, 2, 1]
        assert set(view.tokens) == {(0, 0), (1, 0)}
        assert (
            {'loading', 'prediction', 'super tokens', 'attention'} >= set(view.times) >= {'prediction', 'super tokens'}
        )
        pictures = [draw(*at) for at in view.attention for draw in (view.draw_tokens, view.draw_attention)]
        assert {picture.shape for picture in pictures} == {view.picture.shape}
        # Stage 2 has the same tokens in both blocks.
        assert len({picture.tobytes() for picture in pictures}) == len(pictures) - 1

    def test_a_point(self, service, folder):
        view = service.view('mmpretrain/epoch_1.pth', folder / 'image.png')
        height, width = view.attention[0, 0].size
        shown = view.picture.shape
        assert view.to_point(0, 0) == (0, 0)
        assert view.to_point(shown[1], shown[0]) == (width - 1, height - 1)
        before = view.draw_attention(0, 0)
        point = view.to_point(shown[1] * 0.9, shown[0] * 0.2)
        service.attend(view, point)
        assert view.point == point and view.attention[0, 0].token == (point[1] // 4, point[0] // 4)
        assert (view.draw_attention(0, 0) != before).any()
        ((predictor, _),) = [(p, k) for k, p in service._models.items() if 'mmpretrain' in str(k[0])]
        for expected in attention_of(predictor.model, view.sample, point):
            np.testing.assert_array_equal(view.attention[expected.stage, expected.block].weights, expected.weights)


class TestModels:
    def test_they_load_once_and_few_stay(self, folder, loads, monkeypatch):
        monkeypatch.setattr(module, 'MODELS', 1)
        service = Service(folder / 'work_dirs', device='cpu')
        assert loads == []
        for library in ('mmpretrain', 'mmpretrain', 'mmseg', 'mmpretrain'):
            view = service.view(f'{library}/epoch_1.pth', folder / 'image.png')
        assert [Path(name).parent.name for name in loads] == ['mmpretrain', 'mmseg', 'mmpretrain']
        service.attend(view, (1, 1))
        assert len(loads) == 3 and len(service._models) == 1
        os.utime(folder / 'work_dirs' / 'mmpretrain' / 'epoch_1.pth')  # as after another training run
        service.view('mmpretrain/epoch_1.pth', folder / 'image.png')
        assert len(loads) == 4

    def test_calls_at_the_same_time_stay_apart(self, service, folder):
        write(folder / 'other.png', draw(1))
        jobs = [
            ('mmdet/epoch_1.pth', folder / 'image.png'),
            ('mmpretrain/epoch_1.pth', folder / 'image.png'),
            ('mmpretrain/epoch_1.pth', folder / 'other.png'),
        ]
        alone = [service.view(*job) for job in jobs]
        together: dict[int, object] = {}

        def work(index: int) -> None:
            together[index] = service.view(*jobs[index])
            service.attend(together[index], (index, index))

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(jobs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for index, (name, _) in enumerate(jobs):
            view = together[index]
            assert (view.checkpoint, view.rows, view.point) == (name, alone[index].rows, (index, index))
            np.testing.assert_array_equal(view.tokens[0, 0].association, alone[index].tokens[0, 0].association)


class TestCommand:
    @pytest.fixture
    def started(self, monkeypatch) -> list[tuple]:
        """Arguments with which the page is served."""
        calls = []

        def serve(service, host, port, cache):
            assert Path(cache).is_dir()
            calls.append((service, host, port))
            return SimpleNamespace(block_thread=lambda: None)

        monkeypatch.setitem(sys.modules, 'mmstvit.app.page', SimpleNamespace(serve=serve))
        return calls

    def run(self, monkeypatch, *args: str) -> None:
        monkeypatch.setattr(sys, 'argv', ['app', *args])
        monkeypatch.setattr(command.signal, 'signal', lambda *args: None)
        command.main()

    def test_this_machine_alone_by_default(self, started, monkeypatch, capsys):
        self.run(monkeypatch)
        ((service, host, port),) = started
        assert (service.folder, host, port) == (Path('work_dirs'), '127.0.0.1', 7860)
        assert 'password' not in capsys.readouterr().out

    @pytest.mark.parametrize('host', ['0.0.0.0', '192.168.0.2', '::'])
    def test_other_addresses_come_with_a_warning(self, started, monkeypatch, capsys, host):
        self.run(monkeypatch, '--host', host, '--port', '80', '--dir', 'runs', '--max-pixels', '5', '--max-bytes', '6')
        ((service, *at),) = started
        assert (at, service.max_pixels, service.max_bytes) == ([host, 80], 5, 6)
        assert 'no password' in capsys.readouterr().out

    def test_without_gradio(self, monkeypatch):
        monkeypatch.delitem(sys.modules, 'mmstvit.app.page', raising=False)
        monkeypatch.setitem(sys.modules, 'gradio', None)
        with pytest.raises(SystemExit, match='pip install'):
            self.run(monkeypatch)
