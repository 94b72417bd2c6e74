"""Models, limits and pictures of the page, and its command, without a server."""

import os
import signal
import struct
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from mmstvit.apis.predict.predictor import load_predictor
from mmstvit.app import __main__ as command
from mmstvit.app import pictures
from mmstvit.app import service as module
from mmstvit.app.pictures import SCORE, SIDE, draw_maps
from mmstvit.app.service import DEMO, Service
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
            service.predict(name, folder / 'image.png')
        assert loads == []

    def test_code_in_a_checkpoint_is_not_executed(self, service, folder):
        path, made = folder / 'work_dirs' / 'harm.pth', folder / 'made'
        torch.save(dict(state_dict=Harm(os.mkdir, str(made))), path)
        with pytest.raises(UserError, match='mkdir') as error:
            service.predict('harm.pth', folder / 'image.png')
        path.unlink()
        assert not made.exists()
        assert '--trust' not in str(error.value)

    def test_a_device_that_is_not_there(self, folder):
        with pytest.raises(UserError, match='--device nonsense') as error:
            Service(folder / 'work_dirs', 'nonsense').predict('mmpretrain/epoch_1.pth', folder / 'image.png')
        assert 'checkpoint' not in str(error.value)

    def test_a_checkpoint_without_config(self, service, folder):
        path = folder / 'work_dirs' / 'weights.pth'
        torch.save(dict(state_dict={}), path)
        with pytest.raises(UserError, match='training run of MMEngine'):
            service.predict('weights.pth', folder / 'image.png')
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
            ('a.png', png(101, 100), 'pixels'),
            ('a.png', png(60_000, 60_000), 'pixels'),
            ('a.jpg', png(100, 100), 'a.jpg: .*truncated'),
        ],
    )
    def test_bad_ones_are_refused(self, service, tmp_path, monkeypatch, name, content, reason):
        (tmp_path / name).write_bytes(content)
        monkeypatch.setattr(service, 'max_pixels', 10_000)
        with pytest.raises(UserError, match=reason):
            service.predict('mmpretrain/epoch_1.pth', tmp_path / name)

    def test_large_ones_for_the_model_are_refused(self, service, folder, monkeypatch):
        monkeypatch.setattr(module, 'MODEL_PIXELS', 64 * 48 - 1)
        with pytest.raises(UserError, match='after the test pipeline'):
            service.predict('mmpretrain/epoch_1.pth', folder / 'image.png')


class TestPredictions:
    def test_classes(self, service, folder):
        picture, _, lines = service.predict('mmpretrain/epoch_1.pth', folder / 'image.png')[0].drawn
        values = [line.value for line in lines]
        assert len(values) == 5 and values == sorted(values, reverse=True) and sum(values) == pytest.approx(1)
        assert {line.color for line in lines} == {None}
        assert max(picture.shape) == SIDE

    def test_objects(self, service, folder):
        picture, _, lines = service.predict('mmdet/epoch_1.pth', folder / 'image.png')[0].drawn
        values = [line.value for line in lines]
        assert {line.name for line in lines} == {'circle'} and values == sorted(values, reverse=True)
        assert values[-1] >= SCORE
        assert max(picture.shape) == SIDE
        painted = (picture == lines[0].color).all(-1)  # boxes and outlines
        assert 0.001 < painted.mean() < 0.5

    def test_segments(self, service, folder):
        _, _, lines = service.predict('mmseg/epoch_1.pth', folder / 'image.png')[0].drawn
        values = [line.value for line in lines]
        assert sum(values) == pytest.approx(1) and values == sorted(values, reverse=True)
        assert all(line.color for line in lines)

    def test_maps_of_every_block(self, folder, monkeypatch):
        monkeypatch.setattr(pictures, 'SIDE', 160)
        service = Service(folder / 'work_dirs', device='cpu')
        found, attention, _ = service.predict('mmpretrain/epoch_1.pth', folder / 'image.png')
        assert list(attention) == [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0)]
        assert set(found.tokens) == {(0, 0), (1, 0)}
        maps = [map_ for at in attention for map_ in draw_maps(found.seen, found.tokens.get(at), attention[at])]
        assert {map_.shape for map_ in maps} == {found.seen.shape}
        # Stage 2 has the same tokens in both blocks.
        assert len({map_.tobytes() for map_ in maps}) == len(maps) - 1

    def test_a_point(self, service, folder):
        arguments = 'mmpretrain/epoch_1.pth', folder / 'image.png'
        found, before, center = service.predict(*arguments)
        (height, width), shown = before[0, 0].size, found.seen.shape
        assert found.size == (width, height) and center == (width // 2, height // 2)
        assert service.predict(*arguments, (0, 0))[2] == (0, 0)
        assert service.predict(*arguments, (shown[1], shown[0]))[2] == (width - 1, height - 1)
        same, attention, point = service.predict(*arguments, (shown[1] * 0.9, shown[0] * 0.2))
        assert same is found and attention[0, 0].token == (point[1] // 4, point[0] // 4)
        assert (attention[0, 0].weights != before[0, 0].weights).any()
        with load_predictor(str(folder / 'work_dirs' / arguments[0]), None, None, False, 'cpu', False) as predictor:
            for expected in attention_of(predictor.model, found.sample, point):
                np.testing.assert_array_equal(attention[expected.stage, expected.block].weights, expected.weights)


class TestModels:
    def test_they_load_once_and_few_stay(self, folder, loads):
        service = Service(folder / 'work_dirs', device='cpu')
        assert loads == []
        for library, image in (('mmpretrain', 0), ('mmseg', 0), ('mmpretrain', 1), ('mmdet', 0), ('mmseg', 1)):
            write(folder / f'{image}.png', draw(image))
            service.predict(f'{library}/epoch_1.pth', folder / f'{image}.png')
        assert [Path(name).parent.name for name in loads] == ['mmpretrain', 'mmseg', 'mmdet', 'mmseg']
        service.predict('mmseg/epoch_1.pth', folder / '1.png', (1, 1))
        service.predict('mmpretrain/epoch_1.pth', folder / '0.png')  # as before: needs no model
        assert len(loads) == 4
        os.utime(folder / 'work_dirs' / 'mmpretrain' / 'epoch_1.pth')  # as after another training run
        service.predict('mmpretrain/epoch_1.pth', folder / '0.png')
        assert len(loads) == 5

    def test_calls_at_the_same_time_stay_apart(self, folder):
        write(folder / 'other.png', draw(1))
        jobs = [
            ('mmdet/epoch_1.pth', folder / 'image.png', (0, 0)),
            ('mmpretrain/epoch_1.pth', folder / 'image.png', (300, 100)),
            ('mmpretrain/epoch_1.pth', folder / 'other.png', (600, 400)),
        ]
        alone = [Service(folder / 'work_dirs', 'cpu').predict(*job) for job in jobs]
        service = Service(folder / 'work_dirs', 'cpu')
        with ThreadPoolExecutor(len(jobs)) as pool:
            together = list(pool.map(lambda job: service.predict(*job), jobs))
        for (expected, attention, point), (found, attention_found, point_found) in zip(alone, together, strict=True):
            assert (found.checkpoint, found.drawn[2], point_found) == (expected.checkpoint, expected.drawn[2], point)
            np.testing.assert_array_equal(found.tokens[0, 0].association, expected.tokens[0, 0].association)
            np.testing.assert_array_equal(attention_found[2, 1].weights, attention[2, 1].weights)


def test_without_gradio(monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    monkeypatch.setattr(sys, 'argv', ['app'])
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match='pip install'):
        command.main()
    signal.signal(signal.SIGTERM, handler)
