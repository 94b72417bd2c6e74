"""``tools/predict.py``: results of the three tasks, inputs of all kinds, and configs of strangers."""

import csv
import gc
import json
import os
import signal
import sys
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from mmstvit.apis import UserError, build_model, predict
from mmstvit.apis.predict.predictor import Predictor, load_predictor
from mmstvit.checkpoint import to_mmstvit
from mmstvit.fileio import safe_loading

from ..in_process import run_main
from ..nano import dump, make_config
from ..test_datasets.tiny_data import HEIGHT, MAKERS, WIDTH, draw, film, images, write

CLASSES = {
    'mmdet': ['circle', 'square', 'triangle', 'star', 'digit'],
    'mmseg': ['background', 'circle', 'square', 'triangle', 'star', 'digit'],
    'mmpretrain': ['circle', 'digit', 'square', 'star', 'triangle'],
}
SCORE = 0.1  # of an untrained detector
pytestmark = pytest.mark.usefixtures('in_folder')


@pytest.fixture
def change(checkpoints, in_folder):
    """Write a copy of the classifier's checkpoint with another ``meta``."""

    def change(**meta: object) -> str:
        content = torch.load(checkpoints['mmpretrain'])
        torch.save(dict(content, meta={**content['meta'], **meta}), 'changed.pth')
        return 'changed.pth'

    return change


def test_predictions(library: str, checkpoint: Path, folder: Path) -> list:
    """Predict the images of a data set as test.py does: with annotations, through the dataset of the library."""
    cfg = make_config(library)
    data = MAKERS[library](folder, 'val', 7)
    data['pipeline'] = cfg.test_dataloader.dataset.pipeline
    model = build_model(cfg)
    model.load_state_dict(torch.load(checkpoint)['state_dict'])
    with DefaultScope.overwrite_default_scope(library), torch.no_grad():
        dataset = DATASETS.build(data)
        return [model.eval().test_step(pseudo_collate([dataset[i]]))[0] for i in range(len(dataset))]


test_predictions.__test__ = False


def rows(file: str = 'out/predictions.csv') -> dict[str, list[str]]:
    with open(file, newline='') as stream:
        return {row[0]: row[1:] for row in csv.reader(stream)}


def content() -> dict:
    return json.loads(Path('out/predictions.json').read_text())


def test_objects_are_those_of_a_test_as_coco(checkpoints, in_folder):
    expected = test_predictions('mmdet', checkpoints['mmdet'], in_folder / 'data')
    summary = predict(checkpoints['mmdet'], ['data/val'], 'out', score=SCORE)
    assert (summary.count, summary.skipped) == (4, {})
    coco = COCO('out/predictions.json')
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == CLASSES['mmdet']
    assert sorted(coco.imgs) == [1, 2, 3, 4]
    for i, sample in enumerate(expected):
        image = coco.imgs[i + 1]
        assert (image['file_name'], image['height'], image['width']) == (f'{i}.jpg', HEIGHT, WIDTH)
        found, objects = sample.pred_instances, coco.loadAnns(coco.getAnnIds(i + 1))
        found = found[found.scores >= SCORE]
        assert len(objects) == len(found) > 0
        assert [o['category_id'] - 1 for o in objects] == found.labels.tolist()
        assert [o['score'] for o in objects] == pytest.approx(found.scores.tolist(), abs=1e-6)
        boxes = np.array([o['bbox'] for o in objects])
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(boxes, found.bboxes.numpy(), atol=0.02)
        masks = np.stack([coco.annToMask(o) for o in objects])
        np.testing.assert_array_equal(masks, found.masks.numpy())
        assert [o['area'] for o in objects] == masks.sum((1, 2)).tolist()
    coco.loadRes(coco.dataset['annotations'])  # what an evaluation reads
    picture, photo = (cv2.imread(f'{folder}/0.jpg') for folder in ('out/pictures', 'data/val'))
    assert picture.shape == photo.shape
    assert abs(picture.astype(int) - photo).max() > 60


def test_detector_without_masks_gives_boxes(checkpoints, in_folder):
    write(in_folder / 'a.png', draw(0))
    parts = {f'model.roi_head.{part}': None for part in ('mask_head', 'mask_roi_extractor')}
    predict(checkpoints['mmdet'], ['a.png'], 'out', score=SCORE, cfg_options={'model.type': 'FasterRCNN', **parts})
    coco = COCO('out/predictions.json')
    assert len(coco.anns) > 0
    for entry in coco.anns.values():
        assert 'segmentation' not in entry
        assert entry['area'] == pytest.approx(entry['bbox'][2] * entry['bbox'][3], abs=1)


def test_maps_are_those_of_a_test_with_a_legend(checkpoints, in_folder):
    expected = test_predictions('mmseg', checkpoints['mmseg'], in_folder / 'data')
    predict(checkpoints['mmseg'], images('mmseg', in_folder / 'data', 'val'), 'out')
    for i, sample in enumerate(expected):
        values = cv2.imread(f'out/maps/{i}.png', cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(values, sample.pred_sem_seg.data[0].numpy())
    legend = rows('out/legend.csv')
    assert list(legend) == ['id', *'012345']
    assert [row[0] for row in legend.values()][1:] == CLASSES['mmseg']
    assert legend['1'] == ['circle', '#0072b2']
    assert sorted(p.name for p in Path('out/pictures').iterdir()) == [f'{i}.jpg' for i in range(4)]


def test_classes_are_those_of_a_test(checkpoints, in_folder):
    expected = test_predictions('mmpretrain', checkpoints['mmpretrain'], in_folder / 'data')
    predict(checkpoints['mmpretrain'], ['data/val'], 'out')
    table = rows()
    assert table.pop('file')[:4] == ['class', 'score', 'class_2', 'score_2']
    for sample in expected:
        row = table.pop(Path(sample.img_path).relative_to(in_folder / 'data/val').as_posix())
        assert row[0] == CLASSES['mmpretrain'][sample.pred_label.item()]
        assert [float(x) for x in row[1::2]] == pytest.approx(sorted(sample.pred_score.tolist())[::-1], abs=1e-6)
    assert table == {}
    assert Path('out/pictures/a/0.jpg').exists()  # sub-folders are kept


def test_score_leaves_out_classes_and_objects(checkpoints, in_folder):
    write(in_folder / 'a.png', draw(0))
    predict(checkpoints['mmpretrain'], ['a.png'], 'classes', score=1.0)
    assert rows('classes/predictions.csv')['a.png'] == []
    summary = predict(checkpoints['mmdet'], ['a.png'], 'out', score=1.0)
    assert content()['annotations'] == []
    assert 'no object has a score of 1.0' in summary.note
    with pytest.raises(UserError, match='--score'):
        predict(checkpoints['mmseg'], ['a.png'], 'maps', score=0.5)


def test_test_time_augmentation_averages_the_flips(checkpoints, in_folder):
    write(in_folder / 'in/a.png', draw(0))
    write(in_folder / 'in/b.png', draw(0)[:, ::-1])
    predict(checkpoints['mmpretrain'], ['in'], 'plain')
    predict(checkpoints['mmpretrain'], ['in/a.png'], 'out', tta=True)
    plain = [dict(zip(row[::2], map(float, row[1::2]), strict=True)) for row in rows('plain/predictions.csv').values()
             if row[1] != 'score']  # fmt: skip
    merged = rows()['a.png']
    for name, score in zip(merged[::2], merged[1::2], strict=True):
        assert float(score) == pytest.approx((plain[0][name] + plain[1][name]) / 2, abs=2e-6)
    predict(checkpoints['mmseg'], ['in/a.png'], 'maps', tta=True)  # its pipeline loads annotations in a nested list
    assert cv2.imread('maps/maps/a.png').shape[:2] == (HEIGHT, WIDTH)


def test_a_batch_gives_the_results_of_single_images(checkpoints, in_folder):
    for i, size in enumerate([(24, 32), (24, 32), (40, 24), (24, 32), (32, 32)]):
        write(in_folder / f'in/{i}.png', draw(i, *size, 3))
    for out, size in (('single', 1), ('out', 4)):
        predict(checkpoints['mmseg'], ['in'], out, batch_size=size)
    for i in range(5):
        single, batched = (cv2.imread(f'{out}/maps/{i}.png', cv2.IMREAD_UNCHANGED) for out in ('single', 'out'))
        assert (single == batched).mean() > 0.99  # sums of a batch may be rounded in another way


def test_images_are_read_as_the_pipeline_reads_them(checkpoints, in_folder):
    photo = Image.fromarray(draw(0, 24, 40, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated
    Path('in').mkdir()
    photo.save('in/exif.jpg', exif=exif)
    photo.convert('L').save('in/gray.png')
    photo.convert('RGBA').save('in/rgba.png')
    photo.convert('P').save('in/palette.png')
    Image.fromarray(draw(0, 24, 40).astype(np.uint16) * 256).save('in/deep.tif')
    summary = predict(checkpoints['mmdet'], ['in'], 'out', score=SCORE)
    assert (summary.count, summary.skipped) == (5, {})
    sizes = {image['file_name']: (image['height'], image['width']) for image in content()['images']}
    assert sizes == {path.name: mmcv.imread(path).shape[:2] for path in Path('in').iterdir()}
    assert sizes['exif.jpg'] == (40, 24)
    first = next(a for a in content()['annotations'] if a['image_id'] == 2)
    assert rle.decode(first['segmentation']).shape == (40, 24)
    assert {path.stem: cv2.imread(str(path)).shape[:2] for path in Path('out/pictures').iterdir()} == {
        name.partition('.')[0]: size for name, size in sizes.items()
    }


def test_other_channels_than_the_model_skip_the_image_only(checkpoints, in_folder):
    Path('in').mkdir()
    Image.fromarray(draw(0)).convert('RGBA').save('in/a.png')
    Image.fromarray(draw(1)).save('in/b.png')
    options = {'test_dataloader.dataset.pipeline.0.color_type': 'unchanged'}
    summary = predict(checkpoints['mmpretrain'], ['in'], 'out', cfg_options=options, batch_size=2)
    assert summary.skipped == {'a.png': 'the image has 4 channels, but the model needs 3'}
    assert list(rows()) == ['file', 'b.png']


def test_an_image_that_the_pipeline_enlarges_beyond_the_limit_is_skipped(change, in_folder, monkeypatch):
    """Its short side is resized from 4 pixels to 64, and the long one with it."""
    monkeypatch.setenv('MMSTVIT_MAX_PIXELS', '100000')
    cfg = make_config('mmpretrain')
    cfg.test_dataloader.dataset.pipeline.insert(1, dict(type='ResizeEdge', scale=64))
    Image.new('RGB', (4000, 4)).save('long.png')
    write(in_folder / 'a.png', draw(0))
    found = predict(change(cfg=dump(cfg)), ['long.png', 'a.png'], 'out')
    assert found.count == 1 and 'enlarges it too much' in found.skipped['long.png']


def test_bad_files_are_named_and_the_others_predicted(checkpoints, in_folder, capsys):
    write(in_folder / 'in/good.jpg', draw(0))
    data = (in_folder / 'in/good.jpg').read_bytes()
    (in_folder / 'in/half.jpg').write_bytes(data[: len(data) // 2])
    (in_folder / 'in/empty.png').touch()
    (in_folder / 'in/notes.txt').write_text('not an image')
    (in_folder / 'in/.hidden.jpg').write_text('a copy of macOS')
    (in_folder / 'text.jpg').write_text('text')
    (in_folder / 'film.mp4').write_text('film')
    args = ['in', 'text.jpg', 'gone.jpg', 'film.mp4', 'no*.png', '--out-dir', 'out', '--batch-size', 3]
    with pytest.raises(SystemExit) as stopped:
        run_main('predict.py', checkpoints['mmpretrain'], *args, cwd=in_folder)
    assert isinstance(stopped.value.code, str)  # exit code 1
    out, err = capsys.readouterr()
    for name, reason in {
        'in/half.jpg': 'truncated',
        'in/empty.png': 'empty',
        'text.jpg': 'decoded',
        'gone.jpg': 'does not exist',
        'film.mp4': 'video',
        'no*.png': 'no image',
    }.items():
        assert any(line.startswith(f'skipped {name}: ') and reason in line for line in err.splitlines()), name
    assert '1 .txt' in out
    assert list(rows()) == ['file', 'in/good.jpg']


def test_a_name_that_is_not_utf8(checkpoints, in_folder):
    for name, suffix in {'a': 'jpg', 'b': 'mp4'}.items():
        write(in_folder / f'in/{name}.jpg', draw(0))
        os.rename(in_folder / f'in/{name}.jpg', in_folder / os.fsdecode(b'in/\xff.' + suffix.encode()))
    summary = predict(checkpoints['mmpretrain'], ['in', os.fsdecode(b'in/\xff.mp4')], 'out')
    assert list(rows()) == ['file', r'\udcff.jpg']
    assert list(summary.skipped.values()) == ['the name of a video must be UTF-8']


@pytest.mark.parametrize('step', [dict(type='mmdet.Albu', transforms=[]), dict(type='mmseg.LoadSingleRSImageFromFile')])
def test_a_transform_whose_library_is_not_installed(step, change, in_folder):
    write(in_folder / 'a.png', draw(0))
    cfg = make_config('mmpretrain')
    cfg.test_dataloader.dataset.pipeline.insert(1, step)
    with pytest.raises(UserError, match=r'pipeline of the config cannot be built: .*not installed'):
        predict(change(cfg=dump(cfg)), ['a.png'], 'out')


@pytest.mark.parametrize(('library', 'file'), [('mmpretrain', 'predictions.csv'), ('mmdet', 'predictions.json')])
def test_an_interrupt_completes_the_files(library, file, checkpoints, in_folder, monkeypatch, capsys):
    for i in range(4):
        write(in_folder / f'in/{i}.jpg', draw(i))
    predictions, original = [], Predictor.predict

    def interrupted(self: Predictor, batch: list) -> list:
        predictions.append(batch)
        if len(predictions) == 2:
            signal.raise_signal(signal.SIGTERM)
        return original(self, batch)

    monkeypatch.setattr(Predictor, 'predict', interrupted)
    with pytest.raises(SystemExit) as ended:
        run_main('predict.py', checkpoints[library], 'in', '--out-dir', 'out', cwd=in_folder)
    assert ended.value.code == 143
    assert capsys.readouterr().err.endswith(
        f'interrupted. 2 predictions are complete in out/{file}. To go on: --continue\n'
    )
    names = (
        rows()
        if library == 'mmpretrain'
        else [i['file_name'] for i in json.loads(Path('out', file).read_text())['images']]
    )
    assert [name for name in names if name != 'file'] == ['0.jpg', '1.jpg']


def test_names_that_collide_stay_apart(checkpoints, in_folder):
    for i, name in enumerate(['x/1.jpg', 'y/1.jpg', 'y/a.jpg', 'y/a.png', 'y/z/1.jpg', 'other.jpg']):
        write(in_folder / name, draw(i))
    names = ['x/1.jpg', 'y/1.jpg', 'y/a.jpg', 'y/a.png', 'y/z/1.jpg']
    predict(checkpoints['mmseg'], ['x/1.jpg', 'y', './y/../y/a.png'], 'out')
    maps = sorted(path.relative_to('out/maps').as_posix() for path in Path('out/maps').rglob('*.png'))
    assert maps == ['x/1.png', 'y/1.png', 'y/a.jpg.png', 'y/a.png.png', 'y/z/1.png']
    predict(checkpoints['mmpretrain'], ['[xy]/**/1.jpg', 'y/[a].*'], 'table')
    assert sorted(rows('table/predictions.csv')) == sorted([*names, 'file'])


def test_folder_with_links_and_with_earlier_results(checkpoints, in_folder):
    write(in_folder / 'photos/a.png', draw(0))
    write(in_folder / 'other/b.png', draw(1))
    (in_folder / 'photos/linked').symlink_to(in_folder / 'other')
    for name in ('loop', 'again'):
        (in_folder / 'other' / name).symlink_to(in_folder / 'photos')
    for given, out in {'photos': 'first', 'photos/**/*.png': 'second'}.items():
        assert predict(checkpoints['mmseg'], [given], f'photos/{out}').count == 2
        maps = in_folder / 'photos' / out / 'maps'
        assert sorted(path.relative_to(maps).as_posix() for path in maps.rglob('*.png')) == ['a.png', 'linked/b.png']


def test_video_gives_a_video_and_results_of_every_frame(checkpoints, in_folder):
    film(in_folder / 'in/a.avi', 3)
    film(in_folder / 'in/b.avi', 2)
    write(in_folder / 'in/a.jpg', draw(0))
    summary = predict(checkpoints['mmseg'], ['in/a.avi', 'in/b.avi', 'in/a.jpg'], 'out', batch_size=2)
    assert summary.count == 6
    maps = sorted(path.relative_to('out/maps').as_posix() for path in Path('out/maps').rglob('*.png'))
    assert maps == ['a.avi/000000.png', 'a.avi/000001.png', 'a.avi/000002.png', 'a.jpg.png',
                    'b.avi/000000.png', 'b.avi/000001.png']  # fmt: skip
    for name, count in (('a.avi.mp4', 3), ('b.mp4', 2)):
        capture = cv2.VideoCapture(f'out/pictures/{name}')
        frames = [frame for done, frame in iter(capture.read, (False, None)) if done]
        assert [frame.shape for frame in frames] == [(48, 64, 3)] * count
        assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)


def test_config_of_another_file_and_classes_of_the_checkpoint(change, in_folder):
    write(in_folder / 'a.png', draw(0))
    cfg = make_config('mmpretrain')
    del cfg.test_dataloader.dataset['classes']
    Path('config.py').write_text(dump(cfg))
    names = ('k', 'l', 'm', 'n', 'ö')
    predict(change(cfg='', dataset_meta=dict(classes=names)), ['a.png'], 'out', config='config.py')
    assert sorted(rows()['a.png'][::2]) == sorted(names)
    predict(change(cfg=''), ['a.png'], 'numbers', config='config.py')
    assert sorted(rows('numbers/predictions.csv')['a.png'][::2]) == list('01234')
    with pytest.raises(UserError, match=r'3 class names are given.* num_classes=5.*--cfg-options'):
        predict(change(cfg='', dataset_meta=dict(classes=('k', 'l', 'm'))), ['a.png'], 'wrong', config='config.py')


def test_what_cannot_be_predicted_is_refused(checkpoints, change, in_folder):
    write(in_folder / 'a.png', draw(0))
    weights = torch.load(checkpoints['mmpretrain'])['state_dict']
    torch.save(dict(state_dict=weights), 'bare.pth')
    with pytest.raises(UserError, match=r'bare\.pth does not hold its config.*--config FILE'):
        predict('bare.pth', ['a.png'], 'out')
    other = dump(make_config('mmseg'))
    with pytest.raises(UserError, match='missing'):
        predict(change(cfg=other), ['a.png'], 'out')
    with pytest.raises(UserError, match='--device nonsense'):
        predict(checkpoints['mmpretrain'], ['a.png'], 'out', device='nonsense')
    with pytest.raises(UserError, match='does not exist'):
        predict('gone.pth', ['a.png'], 'out')
    with pytest.raises(UserError, match=r'gone\.jpg: the file does not exist'):
        predict(checkpoints['mmpretrain'], ['gone.jpg'], 'out')
    assert not Path('out').exists()
    Path('mine').mkdir()
    Path('mine/notes.txt').touch()
    with pytest.raises(UserError, match='mine exists and is not an empty folder'):
        predict(checkpoints['mmpretrain'], ['a.png'], 'mine')
    assert [path.name for path in Path('mine').iterdir()] == ['notes.txt']


HARM = "__import__('pathlib').Path('harmed').touch()"


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('unused', f'# ends here\n{HARM}'),
        ('model.backbone', dict(type='os.mkdir', path='harmed')),
        ('model.backbone.type', 'harmful'),  # MMEngine imports a type that is not registered, even one without a dot
        ('test_dataloader.dataset.pipeline.1', dict(type='os.mkdir', path='harmed')),
        ('test_dataloader.dataset.pipeline.1.type', 'harmful'),
        ('test_dataloader.dataset.type', 'harmful.registry'),
        ('tta_model', dict(type='os.mkdir', path='harmed')),
    ],
)
def test_stored_config_that_would_execute_code_is_refused(key, value, change, in_folder, monkeypatch):
    """The kinds of code are tried in tests/test_fileio/test_configs.py."""
    write(in_folder / 'a.png', draw(0))
    (in_folder / 'harmful.py').write_text(HARM)
    monkeypatch.syspath_prepend(in_folder)
    cfg = make_config('mmpretrain')
    cfg.merge_from_dict({key: dict(value, _delete_=True) if isinstance(value, dict) else value})
    text = dump(cfg).replace(repr(value), value) if key == 'unused' else dump(cfg)
    with pytest.raises(UserError, match=r'--config FILE'):
        predict(change(cfg=text), ['a.png'], 'out', tta=True)
    assert sorted(path.name for path in Path().iterdir()) == ['a.png', 'changed.pth', 'harmful.py']
    assert 'harmful' not in sys.modules


@pytest.mark.parametrize(('channels', 'depths'), [(32, 10_000), (8192, 1)], ids=['deep', 'wide'])
def test_stored_config_of_a_much_larger_model_is_refused_before_it_is_built(channels, depths, change, in_folder):
    write(in_folder / 'a.png', draw(0))
    cfg = make_config('mmpretrain')
    cfg.model.backbone.arch = dict(channels=[channels] * 4, depths=[depths, 1, 1, 1], num_heads=[1] * 4)
    with pytest.raises(UserError, match=r'much larger than the \d+ weights.*--config FILE'):
        predict(change(cfg=dump(cfg)), ['a.png'], 'out')


def test_trusted_config_may_name_any_class(change, in_folder):
    write(in_folder / 'a.png', draw(0))
    cfg = make_config('mmpretrain')
    cfg.model.backbone.type = 'mmstvit.models.stvit.STViT'
    with pytest.raises(UserError, match=r'model\.backbone\.type'):
        predict(change(cfg=dump(cfg)), ['a.png'], 'out')
    assert predict(change(cfg=dump(cfg)), ['a.png'], 'out', trust=True).count == 1


def test_the_state_of_the_optimizer_and_the_weights_of_the_file_are_freed(checkpoints, in_folder):
    mark = 12_347  # number of entries, and an entry
    state = {i: {'exp_avg': torch.zeros(mark)} for i in range(3)}
    content = torch.load(checkpoints['mmpretrain'])
    content['state_dict']['head.fc.bias'].fill_(mark)
    torch.save(dict(content, optimizer=dict(state=state), ema_state_dict={'a': torch.zeros(mark)}), 'run.pth')
    del state, content
    with safe_loading(convert=to_mmstvit), load_predictor('run.pth', None, None, False, 'cpu', False) as predictor:
        gc.collect()
        alive = [part for part in gc.get_objects() if type(part) in (torch.Tensor, torch.nn.Parameter)]
        assert not [part for part in alive if part.shape == (mark,)]
        assert [part for part in alive if part.shape == (5,) and (part == mark).all()] == [predictor.model.head.fc.bias]
