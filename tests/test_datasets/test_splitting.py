"""Splits of images: copies stay on one side, every class is on both, and the result does not depend on the order."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from mmstvit.datasets.splitting import group_copies, split_content, split_images
from mmstvit.errors import DataError

COPIES = {
    'mirrored': ImageOps.mirror,
    'turned': lambda image: image.transpose(Image.Transpose.ROTATE_90),
    'darker': lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    'smaller': lambda image: image.resize((image.width * 2 // 3, image.height * 2 // 3)),
}


def picture(seed: int) -> Image.Image:
    """A smooth picture, as a photograph seen from afar."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), np.uint8)
    return Image.fromarray(coarse).resize((96, 80), Image.Resampling.BICUBIC)


def content(number: int, labels: list[int]) -> dict:
    return dict(
        images=[dict(id=i, file_name=f'{i}.png') for i in range(number)],
        annotations=[dict(id=i, image_id=i % number, category_id=label) for i, label in enumerate(labels)],
    )


@settings(max_examples=50, deadline=None)
@given(st.randoms(use_true_random=False), st.floats(0.05, 0.6))
def test_every_class_is_on_both_sides_whatever_the_order(random, fraction):
    number = random.randint(2, 20)
    data = content(number, [random.randint(1, 6) for _ in range(2 * number)])
    train, val, split = split_content(data, '', fraction)
    sides = [{image['id'] for image in side['images']} for side in (train, val)]
    assert sides[0] and sides[1] and not sides[0] & sides[1] and len(sides[0] | sides[1]) == number
    assert (len(split.train), len(split.val)) == (len(sides[0]), len(sides[1]))
    in_train = {a['category_id'] for a in train['annotations']}
    images = Counter(label for label, _ in {(a['category_id'], a['image_id']) for a in data['annotations']})
    if len(sides[1]) > 1:
        assert {label for label, count in images.items() if count > 1} <= in_train
    for side, ids in zip((train, val), sides, strict=True):
        assert {a['image_id'] for a in side['annotations']} <= ids
    for name in ('images', 'annotations'):
        random.shuffle(data[name])
    assert {image['id'] for image in split_content(data, '', fraction)[1]['images']} == sides[1]


def test_equal_files_stay_together_and_another_seed_gives_another_split(tmp_path):
    for i in range(20):
        (tmp_path / f'{i}.png').write_bytes(b'%d' % (i // 2))
    paths = [tmp_path / f'{i}.png' for i in range(20)]
    splits = [split_images(paths, fraction=0.3, seed=seed).val for seed in range(3)]
    for val in splits:
        assert len(val) == 6 and {i ^ 1 for i in val} == {*val}
    assert len({*map(tuple, splits)}) > 1
    with pytest.raises(DataError, match='2 images with 1 different contents cannot be split'):
        split_images(paths[:2])


def test_a_rare_class_is_on_both_sides():
    labels = [1 + (i in (3, 30)) for i in range(50)]
    for seed in range(5):
        split = split_images([Path(f'{i}.png') for i in range(50)], [{label} for label in labels], seed=seed)
        assert len(split.val) == 10
        assert all({labels[i] for i in side} == {1, 2} for side in (split.train, split.val))


@pytest.mark.parametrize(
    'names',
    [
        [f'frame{i}_jpg.rf.{i:016x}{copy:016x}.jpg' for i in range(10) for copy in range(3)],
        [f'out/ant_original_{i}.jpg_{copy:08x}-0000-4000-8000-{i:012x}.jpg' for i in range(10) for copy in range(3)],
        [name.format(i) for i in range(10) for name in ('a{}.png', 'o/a{}_flipped.jpg', 'o/rot90-a{}.png')],
        [f'{place}/{i}{end}.png' for i in range(10) for place, end in (('x', ''), ('x', '_aug1'), ('x', ' (copy)'))],
    ],
    ids=['Roboflow', 'Augmentor', 'words', 'in a folder'],
)
def test_augmented_copies_stay_together_by_their_names(names):
    split = split_images(names)
    sides = [{i // 3 for i in side} for side in (split.train, split.val)]
    assert not sides[0] & sides[1]
    assert '30 images in 10 groups of copies (20 by their names)' in split.describe()


@pytest.mark.parametrize(
    'names',
    [
        [f'ant_{i}.jpg' for i in range(9)] + ['ant.jpg'],
        [f'{name}.jpg' for name in ('ant', 'ant_a', 'ant_b', 'ant_c', 'bee')],
        [f'{place}/{name}.jpg' for place in 'ab' for name in ('1', '2')] + ['c/1_left.jpg'],
        [f'photo_{i:08x}-0000-4000-8000-{i:012x}.jpg' for i in range(5)],
    ],
    ids=['series', 'most have one name', 'which of two', 'random names'],
)
def test_names_that_are_no_copies_are_not_grouped(names):
    assert group_copies(names).count == len(names)


@pytest.mark.parametrize('change', COPIES.values(), ids=COPIES)
def test_changed_copies_of_a_picture_stay_together(change, tmp_path):
    for i in range(12):
        picture(i).save(tmp_path / f'{i}.png')
        change(picture(i)).save(tmp_path / f'copy{i}.jpg', quality=80)
    paths = sorted(tmp_path.iterdir())
    groups = group_copies(paths)
    assert groups.count == 12
    assert groups.reasons == {'that look alike': 12}
    of = dict(zip([path.stem for path in paths], groups.of_image, strict=True))
    assert all(of[str(i)] == of[f'copy{i}'] for i in range(12))


def test_images_of_a_fixed_camera_are_not_one_group(tmp_path):
    for i in range(12):
        image = np.array(picture(0))
        image[i : i + 3, i : i + 3] = 255
        Image.fromarray(image).save(tmp_path / f'{i}.png')
    groups = group_copies(sorted(tmp_path.iterdir()))
    assert groups.count == 12 and groups.alike == 11
    assert '11 images look alike and were not grouped' in groups.describe()


def test_missing_and_broken_files_are_images_of_their_own(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'no image')
    assert group_copies([tmp_path / 'a.png', tmp_path / 'gone.png']).count == 2
