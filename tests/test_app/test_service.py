"""Models, limits and pictures of the page, and its command, without a server."""

import io
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
from PIL import Image

from mmstvit.apis.predict.predictor import load_predictor
from mmstvit.app import __main__ as command
from mmstvit.app import service as module
from mmstvit.app.pictures import SIDES
from mmstvit.app.service import DEMO, Service
from mmstvit.app.uploads import Upload, Uploads
from mmstvit.datasets.images import IMAGE_READER
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


def image(folder: Path, name: str = 'image.png') -> Upload:
    return Upload(folder / name, name, 'note')


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
        [
            *('../outside.pth', '{root}/outside.pth', 'linked.pth', 'links/outside.pth', '..', '', 'a\0b', 'x' * 5000),
            *('http://127.0.0.1/outside.pth', 'file:///etc/passwd'),
        ],
    )
    def test_paths_outside_and_addresses_are_refused(self, service, folder, loads, name):
        work_dirs = folder / 'work_dirs'
        for link, target in (('linked.pth', folder / 'outside.pth'), ('links', folder)):
            if not (work_dirs / link).exists():
                (work_dirs / link).symlink_to(target)
        with pytest.raises(UserError, match='--dir'):
            service.look(name.format(root=folder), image(folder))
        assert loads == []

    def test_code_in_a_checkpoint_is_not_executed(self, service, folder):
        path, made = folder / 'work_dirs' / 'harm.pth', folder / 'made'
        torch.save(dict(state_dict=Harm(os.mkdir, str(made))), path)
        with pytest.raises(UserError, match='mkdir') as error:
            service.look('harm.pth', image(folder))
        path.unlink()
        assert not made.exists()
        assert '--trust' not in str(error.value)

    def test_a_device_that_is_not_there(self, folder):
        with pytest.raises(UserError, match='--device nonsense') as error:
            Service(folder / 'work_dirs', 'nonsense').look('mmpretrain/epoch_1.pth', image(folder))
        assert 'checkpoint' not in str(error.value)

    def test_a_checkpoint_without_config(self, service, folder):
        path = folder / 'work_dirs' / 'weights.pth'
        torch.save(dict(state_dict={}), path)
        with pytest.raises(UserError, match='training run of MMEngine'):
            service.look('weights.pth', image(folder))
        path.unlink()


def encode(format: str, size: tuple[int, int], **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new('RGB', size, (200, 30, 30)).save(stream, format, **options)
    return stream.getvalue()


def header(width: int, height: int) -> bytes:
    """The header of a PNG file, without the pixels."""
    chunk = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack('>I', 13) + chunk + struct.pack('>I', zlib.crc32(chunk))
    return b'\x89PNG\r\n\x1a\n' + chunk + struct.pack('>I', 100) + b'IDAT'


class TestUploads:
    def test_one_that_fits_stays_as_it_is(self, tmp_path):
        content, uploads = encode('JPEG', (300, 200)), Uploads(tmp_path)
        kept = uploads.get(uploads.add(content, 'photo.jpg'))
        assert kept.path.read_bytes() == content and kept.note == '300 × 200 pixels'

    @pytest.mark.parametrize('format', ['JPEG', 'PNG', 'TIFF'])
    def test_a_large_one_is_reduced_and_turned(self, tmp_path, format):
        exif = Image.Exif()
        exif[274] = 6  # lies on its side
        uploads = Uploads(tmp_path)
        kept = uploads.get(uploads.add(encode(format, (4000, 3000), exif=exif), 'photo'))
        with Image.open(kept.path) as reduced:
            width, height = reduced.size
            assert width * height <= module.MODEL_PIXELS and abs(height / width - 4 / 3) < 0.01
            assert abs(np.asarray(reduced).astype(int) - [200, 30, 30]).max() < 4
        assert kept.note == f'3000 × 4000 pixels, reduced to {width} × {height}'

    def test_the_first_frame_of_an_animation(self, tmp_path):
        frames = [Image.new('RGB', (64, 48), color) for color in ('red', 'blue', 'lime')]
        stream = io.BytesIO()
        frames[0].save(stream, 'GIF', save_all=True, append_images=frames[1:])
        uploads = Uploads(tmp_path)
        kept = uploads.get(uploads.add(stream.getvalue(), 'a.gif'))
        assert abs(IMAGE_READER.read(str(kept.path))[5, 5].astype(int) - [0, 0, 255]).max() < 4
        assert kept.note == '64 × 48 pixels'

    @pytest.mark.parametrize(
        ('content', 'reason'),
        [
            (b'text', 'cannot be decoded'),
            (b'', 'empty'),
            (encode('PNG', (101, 100)), 'more than 10,000.* MMSTVIT_MAX_PIXELS'),
            (b'\0\0\0\x18ftypheic\0\0\0\0', 'pillow-heif'),
            (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n', 'not an image'),
        ],
    )
    def test_others_are_refused(self, tmp_path, monkeypatch, content, reason):
        monkeypatch.setitem(sys.modules, 'pillow_heif', None)
        monkeypatch.setenv('MMSTVIT_MAX_PIXELS', '10000')
        with pytest.raises(UserError, match=f'^a.png .*({reason})'):
            Uploads(tmp_path).add(content, 'a.png')
        assert [*tmp_path.iterdir()] == []

    def test_the_oldest_go(self, tmp_path, monkeypatch):
        monkeypatch.setattr('mmstvit.app.uploads.FILES', 2)
        uploads = Uploads(tmp_path)
        keys = [uploads.add(encode('PNG', (9, side)), 'a.png') for side in (5, 6, 7)]
        assert len([*tmp_path.iterdir()]) == 2 and uploads.get(keys[2]).path.exists()
        with pytest.raises(UserError, match='no longer kept'):
            uploads.get(keys[0])


class TestPredictions:
    def test_classes(self, service, folder):
        shown = service.look('mmpretrain/epoch_1.pth', image(folder)).draw(0, 0, 0.3)
        values = [row['value'] for row in shown['rows']]
        assert len(values) == 5 and values == sorted(values, reverse=True) and sum(values) == pytest.approx(1)
        assert {row['color'] for row in shown['rows']} == {None}
        assert max(shown['prediction'].shape) == SIDES[0]

    def test_objects(self, service, folder):
        view = service.look('mmdet/epoch_1.pth', image(folder))
        rows = view.draw(0, 0, 0.3)['rows']
        values = [row['value'] for row in rows]
        assert {row['name'] for row in rows} == {'circle'} and values == sorted(values, reverse=True)
        assert values[-1] >= 0.3
        middle = (values[0] + values[-1]) / 2
        assert [row['value'] for row in view.draw(0, 0, middle)['rows']] == [v for v in values if v >= middle]

    def test_segments(self, service, folder):
        rows = service.look('mmseg/epoch_1.pth', image(folder)).draw(0, 0, 0.3)['rows']
        values = [row['value'] for row in rows]
        assert sum(values) == pytest.approx(1) and values == sorted(values, reverse=True)
        assert all(row['color'] for row in rows)

    def test_maps_of_every_block(self, folder, service):
        view = service.look('mmpretrain/epoch_1.pth', image(folder))
        assert list(view.attentions) == [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0)]
        shown = [view.draw(stage, block, 0.3) for stage, block in view.attentions]
        maps = [picture for one in shown for picture in (one['tokens'], one['heat'])]
        assert {picture.shape for picture in maps} == {view.prediction.seen.shape}
        # Stage 2 has the same tokens in both blocks.
        assert len({picture.tobytes() for picture in maps}) == len(maps) - 1
        assert [one['blocks'] for one in shown] == [1, 1, 2, 2, 1] and view.draw(3, 5, 0.3)['block'] == 0
        assert 'global attention' in shown[2]['note'] and 'super tokens in their mean colors' in shown[0]['note']
        with pytest.raises(UserError, match='no stage 4'):
            view.draw(4, 0, 0.3)

    def test_a_point(self, service, folder):
        arguments = 'mmpretrain/epoch_1.pth', image(folder)
        before = service.look(*arguments)
        width, height = before.prediction.size
        assert before.pixel == (width // 2, height // 2)
        assert service.look(*arguments, (0, 0)).pixel == (0, 0)
        assert service.look(*arguments, (1, 1)).pixel == (width - 1, height - 1)
        after = service.look(*arguments, (0.9, 0.2))
        x, y = after.pixel
        assert after.prediction is before.prediction and after.attentions[0, 0].token == (y // 4, x // 4)
        assert (after.attentions[0, 0].weights != before.attentions[0, 0].weights).any()
        with load_predictor(str(folder / 'work_dirs' / arguments[0]), None, None, False, 'cpu', False) as predictor:
            for expected in attention_of(predictor.model, after.prediction.sample, after.pixel):
                found = after.attentions[expected.stage, expected.block]
                np.testing.assert_array_equal(found.weights, expected.weights)

    def test_images_that_the_model_does_not_take(self, service, folder, monkeypatch):
        write(folder / 'thin.png', np.zeros((8, 640, 3), np.uint8))
        with pytest.raises(UserError, match='32 × 32 to'):
            service.look('mmpretrain/epoch_1.pth', image(folder, 'thin.png'))
        (folder / 'cut.png').write_bytes(header(100, 100))
        with pytest.raises(UserError, match=r'cut\.png: '):
            service.look('mmpretrain/epoch_1.pth', image(folder, 'cut.png'))


class TestModels:
    def test_they_load_once_and_few_stay(self, folder, loads):
        service = Service(folder / 'work_dirs', device='cpu')
        assert loads == []
        for library, index in (('mmpretrain', 0), ('mmseg', 0), ('mmpretrain', 1), ('mmdet', 0), ('mmseg', 1)):
            write(folder / f'{index}.png', draw(index))
            service.look(f'{library}/epoch_1.pth', image(folder, f'{index}.png'))
        assert [Path(name).parent.name for name in loads] == ['mmpretrain', 'mmseg', 'mmdet', 'mmseg']
        service.look('mmseg/epoch_1.pth', image(folder, '1.png'), (1, 1))
        service.look('mmpretrain/epoch_1.pth', image(folder, '0.png'))  # as before: needs no model
        assert len(loads) == 4
        os.utime(folder / 'work_dirs' / 'mmpretrain' / 'epoch_1.pth')  # as after another training run
        service.look('mmpretrain/epoch_1.pth', image(folder, '0.png'))
        assert len(loads) == 5

    def test_calls_at_the_same_time_stay_apart(self, service, folder):
        write(folder / 'other.png', draw(1))
        jobs = [
            ('mmdet/epoch_1.pth', image(folder), (0, 0)),
            ('mmpretrain/epoch_1.pth', image(folder), (0.4, 0.2)),
            ('mmpretrain/epoch_1.pth', image(folder, 'other.png'), (0.9, 0.8)),
        ]
        alone = [service.look(*job) for job in jobs]
        fresh = Service(folder / 'work_dirs', 'cpu')
        with ThreadPoolExecutor(len(jobs)) as pool:
            together = list(pool.map(lambda job: fresh.look(*job), jobs))
        for expected, found in zip(alone, together, strict=True):
            assert (found.title, found.pixel) == (expected.title, expected.pixel)
            assert found.draw(0, 0, 0.3)['rows'] == expected.draw(0, 0, 0.3)['rows']
            tokens = [view.prediction.tokens[0, 0].association for view in (found, expected)]
            np.testing.assert_array_equal(*tokens)
            np.testing.assert_array_equal(found.attentions[2, 1].weights, expected.attentions[2, 1].weights)


def test_a_folder_that_does_not_exist(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, 'argv', ['app', '--dir', str(tmp_path / 'gone')])
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match='gone does not exist'):
        command.main()
    signal.signal(signal.SIGTERM, handler)
