"""Split images into training and validation without copies of one photograph on both sides.

Images belong together if their names show it (augmented copies), if their files are equal, or if they look alike: a
difference hash of 8×8 gray values is nearly equal for one of them and the other as it is, mirrored or turned.
"""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from mmstvit.datasets.map_files import cuts
from mmstvit.errors import DataError
from mmstvit.fileio import open_image

# Augmented copies: Roboflow writes photo_jpg.rf.HASH.jpg, Augmentor FOLDER_original_photo.jpg_UUID.jpg.
_ROBOFLOW = re.compile(r'\.rf\.[0-9a-zA-Z]{8,}(?=\.)')
_AUGMENTOR = re.compile(r'.+_original_(.+)_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.\w+')
# Tiles of an image: photo_0_256_320_576.png, from its left, top, right and bottom side.
_TILE = re.compile(r'(.+?)_(\d+)_(\d+)_(\d+)_(\d+)')
_SIDE = 8  # of the difference hash
_DISTANCE = 7  # bits of 64 in which the hashes of images that look alike may differ
_MOST_HASHED = 10_000
_BITS = np.array([i.bit_count() for i in range(1 << 16)], np.uint8)
# If more than this part of all images look alike, they are of one fixed camera, not copies of each other.
_LARGEST_GROUP = 1 / 3


@dataclass
class Groups:
    """Images that belong together.

    Args:
        of_image: Number of the group of each image.
        reasons: Number of images that share a group with another one, by the first reason.
        alike: Number of images that look alike without being grouped, because they are too many.
    """

    of_image: list[int]
    reasons: Counter[str] = field(default_factory=Counter)
    alike: int = 0

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(set(self.of_image))

    def describe(self) -> str:
        """Describe the groups in one line."""
        reasons = ', '.join(f'{count} {reason}' for reason, count in self.reasons.items())
        text = f'{len(self.of_image)} images in {self.count} groups of copies ({reasons})' if reasons else ''
        if self.alike:
            text += f'{"; " if text else ""}{self.alike} images look alike and were not grouped'
        return text


def group_copies(paths: Sequence[str | PathLike]) -> Groups:
    """Find images that are copies of each other."""
    paths = [*map(Path, paths)]
    above = [*range(len(paths))]  # of each image another one of its group; the first one has itself
    reasons = Counter({'by their names': _join_names(above, paths)})
    reasons['with equal files'] = _join(above, _equal(_digests(paths)))
    alike = 0
    if len(paths) <= _MOST_HASHED:
        merged, joined, largest = _try(above, _near([_hashes(path) for path in paths]))
        if largest > max(2, _LARGEST_GROUP * len(paths)):
            alike = joined
        else:
            above, reasons['that look alike'] = merged, joined
    return Groups([_root(above, i) for i in range(len(above))], +reasons, alike)


def group_names(paths: Sequence[str | PathLike]) -> list[int]:
    """Return the number of the group of each image, by the names of augmented copies and by equal paths alone."""
    paths = [*map(os.path.normpath, paths)]
    above = [*range(len(paths))]
    _join(above, _equal(paths))
    _join_names(above, paths)
    return [_root(above, i) for i in range(len(above))]


def _join_names(above: list[int], paths: Sequence[str | PathLike]) -> int:
    """Join the groups of images whose names show that they are copies; returns how many joined another group.

    Names that only continue another one are taken for series, not for copies, if that joined too many.
    """
    places = [*map(os.path.split, paths)]
    joined = _join(above, _equal([_photograph(name) for _, name in places]))
    pairs = [*_derived(places)]
    if pairs:
        merged, derived, largest = _try(above, pairs)
        if largest <= max(2, _LARGEST_GROUP * len(paths)):
            above[:] = merged
            joined += derived
    return joined


def _photograph(name: str) -> str | None:
    """Return what the names of augmented copies of a photograph by one tool have in common; None for other names."""
    if '.rf.' in name:
        return _ROBOFLOW.sub('', name)
    return found[1] if '_original_' in name and (found := _AUGMENTOR.fullmatch(name)) else None


def _derived(places: Sequence[tuple[str, str]]) -> Iterator[tuple[int, int]]:
    """Yield images whose names have that of another one and a word, such as aug_photo.jpg of photo.jpg, and its tiles.

    The other one is in the same folder, or the only one of its name.

    Args:
        places: Folder and name of each image.
    """
    stems = [name.rpartition('.')[0] or name for _, name in places]
    of_stem: dict[str, list[int]] = defaultdict(list)
    for i, stem in enumerate(stems):
        of_stem[stem].append(i)
    tiles: dict[str, int] = {}
    for i, stem in enumerate(stems):
        originals = [
            part
            for start, end in cuts(stem)
            for part, rest in ((start, end), (end[1:], start))
            if part in of_stem and re.search('[A-Za-z]', rest)
        ]
        if '_original_' in stem and (original := _photograph(places[i][1])):
            originals.append(original.rpartition('.')[0])
        if (tile := _TILE.fullmatch(stem)) and all(int(tile[k]) < int(tile[k + 2]) for k in (2, 3)):
            originals.append(tile[1])
            yield tiles.setdefault(tile[1], i), i
        for original in originals:
            others = of_stem.get(original, [])
            others = [other for other in others if places[other][0] == places[i][0]] or others
            if len(others) == 1 and others != [i]:
                yield others[0], i


def _equal(keys: Sequence[object]) -> Iterator[tuple[int, int]]:
    """Yield the positions of equal keys in pairs; None is equal to nothing."""
    first: dict[object, int] = {}
    yield from ((first.setdefault(key, i), i) for i, key in enumerate(keys) if key is not None)


def _join(above: list[int], pairs: Iterable[tuple[int, int]]) -> int:
    """Join the groups of pairs; returns the number of images that were in another group than before."""
    joined = 0
    for one, other in pairs:
        first, second = sorted((_root(above, one), _root(above, other)))
        above[second] = first
        joined += first != second
    return joined


def _try(above: list[int], pairs: Iterable[tuple[int, int]]) -> tuple[list[int], int, int]:
    """Join the groups of pairs in a copy; returns it, how many images joined another group, and the largest group."""
    merged = list(above)
    joined = _join(merged, pairs)
    return merged, joined, max(Counter(_root(merged, i) for i in range(len(merged))).values(), default=0)


def _root(above: list[int], item: int) -> int:
    while above[item] != item:
        above[item] = item = above[above[item]]
    return item


def _digests(paths: Sequence[Path]) -> list[bytes | None]:
    """Return a digest of each file; None if no other file has its size."""
    sizes = [os.path.getsize(path) if path.is_file() else None for path in paths]
    counts = Counter(sizes)
    return [
        hashlib.blake2b(path.read_bytes(), digest_size=16).digest() if size is not None and counts[size] > 1 else None
        for path, size in zip(paths, sizes, strict=True)
    ]


def _hashes(path: Path) -> list[int]:
    """Return the difference hashes of an image in its eight orientations; none if it cannot be decoded or is flat."""
    try:
        with open_image(path) as image:
            image.draft('L', (64, 64))
            image.info.pop('transparency', None)  # of a palette: Pillow warns that it is dropped
            gray = np.asarray(image.convert('L').resize((_SIDE + 1, _SIDE + 1), Image.Resampling.BOX), np.int16)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return []
    if np.ptp(gray) < 8:
        return []
    views = [np.rot90(view, turns) for view in (gray, gray[:, ::-1]) for turns in range(4)]
    return [int.from_bytes(np.packbits(view[:-1, 1:] > view[:-1, :-1]).tobytes(), 'big') for view in views]


def _near(hashes: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    """Yield pairs of images of which one hash is nearly the first hash of the other."""
    known = [i for i, views in enumerate(hashes) if views]
    firsts = np.array([hashes[i][0] for i in known], np.uint64)
    for position, i in enumerate(known):
        for view in hashes[i]:
            differing = (firsts[:position] ^ np.uint64(view)).view(np.uint16).reshape(-1, 4)
            for j in np.flatnonzero(_BITS[differing].sum(1) <= _DISTANCE).tolist():
                yield known[j], i


@dataclass(frozen=True)
class Split:
    """A split of images.

    Args:
        train: Indices of the images for training.
        val: Indices of the images for validation.
        groups: The groups that were kept together.
    """

    train: list[int]
    val: list[int]
    groups: Groups

    def describe(self) -> str:
        """Describe the split in one line."""
        text = f'split by image: {len(self.train)} for train and {len(self.val)} for val'
        return f'{text}; {groups}' if (groups := self.groups.describe()) else text


def split_images(
    paths: Sequence[str | PathLike], classes: Sequence[Iterable[object]] = (), fraction: float = 0.2, seed: int = 0
) -> Split:
    """Split images, the same way every time; copies are on one side.

    Every class is on both sides if two groups of images have it; validation may become larger than ``fraction`` for
    that. The order of the images does not matter.

    Args:
        paths: The images.
        classes: Classes of each image; may be empty.
        fraction: Part of the images for validation, between 0 and 1.
        seed: Another number gives another split.

    Raises:
        DataError: There are fewer than two groups of images.
    """
    found = group_copies(paths)
    members: dict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(found.of_image):
        members[group].append(i)
    if len(members) < 2:
        raise DataError(
            f'{len(paths)} images with {len(members)} different contents cannot be split into training and validation.',
            'Add images, or name annotations for validation.',
        )
    root = os.path.commonpath([*map(os.path.abspath, paths)])
    names = [os.path.relpath(path, root) for path in paths]
    order = sorted(members, key=lambda group: _shuffle(min(names[i] for i in members[group]), seed))
    of_group = {g: set().union(*(classes[i] for i in members[g])) if classes else set() for g in order}
    sizes = {group: len(images) for group, images in members.items()}
    chosen = {i for group in _choose(of_group, sizes, fraction * len(paths)) for i in members[group]}
    return Split([i for i in range(len(paths)) if i not in chosen], sorted(chosen), found)


def _shuffle(name: str, seed: int) -> bytes:
    return hashlib.blake2b(f'{seed} {name}'.encode(errors='surrogatepass'), digest_size=16).digest()


def _choose(classes: Mapping[int, set], sizes: Mapping[int, int], wanted: float) -> list[int]:
    """Choose groups for validation, in a time proportional to the classes of all groups.

    Args:
        classes: Classes of each group, in the order in which groups are tried.
        sizes: Number of images of each group.
        wanted: Number of images for validation.
    """
    of_class: dict[object, list[int]] = defaultdict(list)
    for group, names in classes.items():
        for name in names:
            of_class[name].append(group)
    left = {name: len(groups) for name, groups in of_class.items()}  # groups for training
    chosen: dict[int, None] = {}
    taken = 0

    def take(group: int) -> bool:
        """Take a group, unless training would lose a class."""
        nonlocal taken
        if group in chosen or len(chosen) >= len(classes) - 1 or any(left[name] < 2 for name in classes[group]):
            return False
        chosen[group] = None
        taken += sizes[group]
        for name in classes[group]:
            left[name] -= 1
        return True

    missing = {name for name, count in left.items() if count > 1}
    for name in sorted(missing, key=lambda name: (left[name], str(name))):  # rare classes first
        if name in missing:
            group = next((group for group in of_class[name] if take(group)), None)
            missing -= classes[group] if group is not None else {name}
    for group in classes:
        if taken + sizes[group] / 2 <= wanted:
            take(group)
    if not chosen:  # every image has a class of its own
        chosen[min(classes, key=lambda group: len(classes[group]))] = None
    return list(chosen)


def split_content(content: Mapping, folder: str | PathLike, fraction: float = 0.2) -> tuple[dict, dict, Split]:
    """Split the content of a sound COCO annotation file by image; see :func:`split_images`.

    Returns:
        The contents for training and validation, which share their entries with ``content``, and the split.
    """
    classes: dict[object, set] = defaultdict(set)
    for annotation in content['annotations']:
        if not annotation.get('iscrowd'):
            classes[annotation['image_id']].add(annotation['category_id'])
    images = content['images']
    paths = [os.path.join(folder, image['file_name']) for image in images]
    split = split_images(paths, [classes[image['id']] for image in images], fraction)
    chosen = {images[i]['id'] for i in split.val}
    return _select(content, chosen, inside=False), _select(content, chosen, inside=True), split


def _select(content: Mapping, chosen: set, inside: bool) -> dict:
    """Return the part of a file whose images are among the chosen ones, or not."""
    images = [image for image in content['images'] if (image['id'] in chosen) is inside]
    annotations = [entry for entry in content['annotations'] if (entry['image_id'] in chosen) is inside]
    return {**content, 'images': images, 'annotations': annotations}
