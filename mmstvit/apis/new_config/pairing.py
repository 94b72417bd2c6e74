"""Find images and label maps that belong together: by their names, and by what the files look like.

Names decide which file may belong to which image, in any two folders or in one. The content decides which side has the
label maps: few values in large flat regions. Names of folders such as ``masks`` decide where the content does not.
"""

import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from mmstvit.fileio import open_image

from .folder import ALL, Folder, find_split, join

# Words in the names of folders and files of label maps.
MAP_WORDS = frozenset(
    {
        *('ann', 'anno', 'annos', 'annot', 'annots', 'annotation', 'annotations', 'gt', 'gts', 'groundtruth', 'truth'),
        *('label', 'labels', 'labelmap', 'labelmaps', 'labelids', 'labeltrainids', 'gtfine', 'gtcoarse', 'manual'),
        *('map', 'maps', 'mask', 'masks', 'matte', 'mattes', 'target', 'targets', 'trimap', 'trimaps'),
        *('seg', 'segs', 'segmap', 'segmaps', 'segmentation', 'segmentations', 'segments'),
        *('segmentationclass', 'segmentationclasspng'),
    }
)
_MOST_FOLDERS = 40  # above, only folders whose paths differ in one place by a word of label maps are compared
_SAMPLE = 4  # files of a folder that are looked at
_PIXELS = 512  # side of the part of a file that is looked at
_FEW, _MANY = 40, 300  # values of a label map, with and without soft borders


@dataclass(frozen=True)
class Pairs:
    """Images of a folder, and their label maps.

    Args:
        images: Folder of the images, relative to the root.
        maps: Folder of the label maps.
        image_suffix: End of the names of the images.
        map_suffix: End of the names of the maps; None if image and map do not begin with the same name.
        files: Image and map below their folders, by the name of the image without its suffix.
    """

    images: str
    maps: str
    image_suffix: str
    map_suffix: str | None
    files: Mapping[str, str]

    def __str__(self) -> str:
        return f'{self.images or "."} with {self.maps or "."}'

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images without their suffix."""
        return tuple(self.files)

    @property
    def example(self) -> str:
        """The first pair, for a message."""
        return '{} with {}'.format(*next(iter(self.paths().values())))

    def paths(self) -> dict[str, tuple[str, str]]:
        """Return image and map, relative to the root, by the name of the image."""
        return {
            name: (join(self.images, name) + self.image_suffix, join(self.maps, path))
            for name, path in self.files.items()
        }

    def select(self, names: Iterable[str]) -> 'Pairs':
        """Return the pairs of some images."""
        return replace(self, files={name: self.files[name] for name in names})


def find_pairs(folder: Folder, map_suffix: str | None = None, maps: str | None = None) -> list[Pairs]:
    """Find all pairs below a folder; an image may have several maps, in several results.

    Args:
        folder: The folder.
        map_suffix: Take only maps whose names end with it.
        maps: Take only maps in this folder or below it.
    """
    candidates = [both for both in _candidates(folder) if len({find_split(f'{top}/x') for top in both} - {ALL}) < 2]
    if maps is not None:
        candidates = [both for both in candidates if both[1] == maps or both[1].startswith(f'{maps}/')]
    found = [pairs for both in candidates for pairs in _pair(folder, *both, map_suffix)]
    accepted = [pairs for pairs in found if _is_accepted(folder, pairs)]
    tops = {pairs.maps for pairs in accepted if pairs.images != pairs.maps}  # predictions beside maps are no images
    accepted = [pairs for pairs in accepted if pairs.images not in tops or pairs.images == pairs.maps]
    for side in ('maps', 'images'):
        accepted = _keep_mirrored(accepted, side)
    return _join_nested(accepted)


def _keep_mirrored(found: Sequence[Pairs], side: str) -> list[Pairs]:
    """Keep, for each folder on one side, the partners whose paths end in the same folders: images/a and masks/a."""
    best: dict[str, int] = {}
    for pairs in found:
        best[getattr(pairs, side)] = max(best.get(getattr(pairs, side), 0), _common_ends(pairs))
    return [pairs for pairs in found if _common_ends(pairs) == best[getattr(pairs, side)]]


def _common_ends(pairs: Pairs) -> int:
    if pairs.images == pairs.maps:
        return 0
    ours, theirs = pairs.images.split('/'), pairs.maps.split('/')
    equal = [one == other for one, other in zip(reversed(ours), reversed(theirs), strict=False)]
    return equal.index(False) if False in equal else len(equal)


def has_map_word(path: str) -> bool:
    """Return True if a word in a path is one for label maps."""
    return not MAP_WORDS.isdisjoint(re.split(r'[^a-z]+', path.lower())) or path.lower().endswith(
        ('annot', 'mask', 'masks', 'labels')
    )


def _candidates(folder: Folder) -> Iterator[tuple[str, str]]:
    """Yield folders of images, and folders in which their maps may be."""
    tops = sorted(folder.by_folder)
    yield from ((top, top) for top in tops)
    if len(tops) <= _MOST_FOLDERS:
        yield from permutations(tops, 2)
        return
    alike: dict[tuple[str, ...], list[str]] = {}  # the path without one of its parts -> folders
    for top in tops:
        parts = top.split('/')
        for i in range(len(parts)):
            alike.setdefault((*parts[:i], '*', *parts[i + 1 :]), []).append(top)
    for place, group in alike.items():
        changed = place.index('*')
        maps = [top for top in group if has_map_word(top.split('/')[changed])]
        yield from ((image, label) for label in maps for image in group if image not in maps)


def _pair(folder: Folder, images: str, maps: str, map_suffix: str | None) -> Iterator[Pairs]:
    """Pair the images of one folder with maps of another, or of the same, for every suffix of the images."""
    same = images == maps
    candidates = folder.by_folder[maps]
    if map_suffix is not None:
        candidates = [name for name in candidates if name.endswith(map_suffix)]
    by_suffix: dict[str, list[str]] = {}
    for name in folder.by_folder[images]:
        if not (same and map_suffix is not None and name.endswith(map_suffix)):
            by_suffix.setdefault(PurePosixPath(name).suffix, []).append(name)
    for suffix, names in by_suffix.items():
        groups = _by_template(names) if same else [names]
        for group in groups:
            others = [name for name in candidates if not same or name not in group]
            for match in (_match_ends, _match_parts):
                for image_suffix in dict.fromkeys((suffix, _common_end(group, suffix))):
                    results = list(match({name[: -len(image_suffix)] for name in group}, others))
                    for end, files in results:
                        yield Pairs(images, maps, image_suffix, end, dict(sorted(files.items())))
                    if results:
                        break
                else:
                    continue
                break


def _by_template(names: Sequence[str]) -> list[list[str]]:
    """Group the files of one folder by their names without digits: images and maps in one folder differ in it."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(re.sub(r'\d+', '#', name), []).append(name)
    if len(groups) <= 4:
        return list(groups.values())
    maps = [name for name in names if has_map_word(PurePosixPath(name).stem)]
    images = [name for name in names if name not in maps]
    return [images, maps] if images and maps else [list(names)]


def _match_ends(stems: Set[str], candidates: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield ends of the names of maps that begin with the name of an image, and the maps by the name of the image."""
    ends: dict[str, dict[str, str]] = {}
    for name in candidates:
        for start, end in _cuts(name):
            if start in stems:
                ends.setdefault(end, {})[start] = name
    # An end that only a few names have is an accident, such as a.jpg beside a_2.png.
    most = max(map(len, ends.values()), default=0)
    needed = max(most / 2, min(len(stems), len(candidates)) / 4)
    yield from ((end, files) for end, files in ends.items() if len(files) >= needed and len(files) > most / 2)


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """Cut a name before each mark between its words."""
    yield from ((name[:i], name[i:]) for i in range(1, len(name)) if name[i] in '._- ')


def _match_parts(stems: Set[str], candidates: Sequence[str]) -> Iterator[tuple[None, dict[str, str]]]:
    """Yield the maps by the name of the image if the names are equal in the part in which they differ."""
    by_stem = {_stem(name): name for name in candidates}
    for normalize in (str.lower, _number):
        ours, theirs = (_keys(list(names), normalize) for names in (stems, by_stem)) if by_stem else ({}, {})
        files = {ours[key]: by_stem[theirs[key]] for key in ours if key in theirs}
        if 2 * len(files) >= min(len(stems), len(candidates)) > 0 and len(ours) == len(stems):
            yield None, files
            return


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _number(key: str) -> str:
    """Return a key without leading zeros; keys that are not numbers stay apart."""
    return key.lstrip('0') or '0' if key.isdigit() else f'?{key}'


def _keys(names: Sequence[str], normalize: Callable[[str], str]) -> dict[str, str]:
    """Return names by the part in which they differ: without the words that all of them begin and end with."""
    start = re.sub(r'\d+$', '', os.path.commonprefix(names))
    if not all(name[len(start) : len(start) + 1].isdigit() for name in names):
        start = start[: max(map(len, re.findall(r'.*[^0-9A-Za-z]', start)), default=0)]
    end = os.path.commonprefix([name[len(start) :][::-1] for name in names])[::-1]
    word = re.search(r'[^0-9A-Za-z].*', end) if len(names) > 1 else None
    end = word[0] if word else ''
    return {normalize(name[len(start) : len(name) - len(end)]): name for name in names}


def _common_end(names: Sequence[str], suffix: str) -> str:
    """Return the last word that the names have in common, with the suffix, such as ``_leftImg8bit.png``."""
    word = re.search(r'_[^_/\d]+[^_/]*$', names[0].removesuffix(suffix))
    end = (word.group() if word else '') + suffix
    return end if all(name.endswith(end) for name in names) else suffix


def _is_accepted(folder: Folder, pairs: Pairs) -> bool:
    """Return True if one side has images and the other label maps of the same sizes."""
    files = list(pairs.paths().values())
    sample = files[:: -(-len(files) // _SAMPLE)]
    looks = [[look_at(folder.root / path) for path in pair] for pair in sample]
    looks = [(image, label) for image, label in looks if image is not None and label is not None]
    hinted = _is_named_map(pairs)
    if not looks:
        return hinted
    if not hinted and _is_named_map(replace(pairs, images=pairs.maps, maps=pairs.images)):
        return False  # the other way round
    maps = [label.is_map for _, label in looks]
    images = [not image.is_map or image.values > 4 * label.values for image, label in looks]
    if hinted:
        return all(image.size == label.size for image, label in looks) or sum(maps) > len(maps) / 2
    return all(maps) and all(images) and all(image.size == label.size for image, label in looks)


def _is_named_map(pairs: Pairs) -> bool:
    """Return True if the names of the maps have a word of label maps where those of the images have none."""
    ours, theirs = pairs.images.split('/'), pairs.maps.split('/')
    if pairs.images != pairs.maps:
        own = [part for part in theirs if part not in ours]
        others = [part for part in ours if part not in theirs]
        return any(map(has_map_word, own)) and not any(map(has_map_word, others))
    name, path = next(iter(pairs.files.items()))
    return has_map_word(_stem(path)) and not has_map_word(name)


@dataclass(frozen=True)
class Look:
    """Look of a file.

    Args:
        size: Width and height.
        values: Number of its values or colors.
        is_map: It has few values in flat regions.
    """

    size: tuple[int, int]
    values: int
    is_map: bool


@functools.lru_cache(maxsize=10_000)
def look_at(path: Path) -> Look | None:
    """Look at the middle of a file; None if it cannot be decoded."""
    try:
        with open_image(path) as image:
            size, lossy = image.size, image.format in ('JPEG', 'MPO', 'WEBP')
            left, top = (max(0, (side - _PIXELS) // 2) for side in size)
            part = image.crop((left, top, min(size[0], left + _PIXELS), min(size[1], top + _PIXELS)))
            if part.mode in ('LA', 'PA', 'RGBA', 'CMYK', 'YCbCr', 'HSV', 'LAB'):
                part = part.convert('RGB')
            array = np.asarray(part)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    if array.ndim == 3:
        array = array[..., :3].astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    array = array.astype(np.int64)
    values = len(np.unique(array))
    rough = array
    if lossy:  # values near each other are one
        shifts = (array >> 16 & 255, array >> 8 & 255, array & 255)
        rough = sum((part >> 6) << 8 * i for i, part in enumerate(shifts))
    count = len(np.unique(rough))
    flat = float((rough[:, 1:] == rough[:, :-1]).mean()) if rough.shape[1] > 1 else 0.0
    return Look(size, values, (count <= _FEW and flat >= 0.6) or (count <= _MANY and flat >= 0.85))


def _join_nested(found: Sequence[Pairs]) -> list[Pairs]:
    """Join folders inside of the same two folders, such as one for each city."""
    groups: dict[tuple, list[Pairs]] = {}
    for pairs in found:
        outer = _outer(pairs.images, pairs.maps)
        groups.setdefault((*(outer[:2]), pairs.image_suffix, pairs.map_suffix), []).append(pairs)
    joined = []
    for (images, maps, image_suffix, map_suffix), group in groups.items():
        inner = [_outer(pairs.images, pairs.maps)[2] for pairs in group]
        if len(group) == 1 or map_suffix is None or len(set(inner)) < len(inner):
            joined += group
            continue
        files = {
            join(top, name): join(top, path)
            for top, pairs in zip(inner, group, strict=True)
            for name, path in pairs.files.items()
        }
        joined.append(Pairs(images, maps, image_suffix, map_suffix, files))
    return joined


def _outer(images: str, maps: str) -> tuple[str, str, str]:
    """Split the last parts off that two paths have in common: images/ulm, maps/ulm -> images, maps, ulm."""
    ours, theirs, inner = images.split('/'), maps.split('/'), []
    while len(ours) > 1 < len(theirs) and ours[-1] == theirs[-1] and find_split(f'{ours[-1]}/x') == ALL:
        inner.insert(0, ours.pop())
        theirs.pop()
    return '/'.join(ours), '/'.join(theirs), '/'.join(inner)


def several_maps(found: Sequence[Pairs]) -> list[Pairs]:
    """Return the results that give an image that another result has another map, or a map another image."""
    of_image: dict[str, set[int]] = {}
    of_map: dict[str, set[int]] = {}
    for i, pairs in enumerate(found):
        for image, path in pairs.paths().values():
            of_image.setdefault(image, set()).add(i)
            of_map.setdefault(path, set()).add(i)
    several = [group for group in (*of_image.values(), *of_map.values()) if len(group) > 1]
    return [found[i] for i in sorted(set().union(*several))]


def more_maps(folder: Folder, found: Sequence[Pairs]) -> str:
    """Return a file that begins like an image that has another map, and is no map of an image; empty if none does."""
    used = {path for pairs in found for both in pairs.paths().values() for path in both}
    for pairs in found:
        for top, names in folder.by_folder.items():
            if top != pairs.maps and not top.startswith(f'{pairs.maps}/'):
                continue
            for name in names:
                inner = join(top[len(pairs.maps) :].lstrip('/'), name)
                if join(top, name) not in used and any(
                    start in pairs.files and (pairs.maps != pairs.images or has_map_word(end))
                    for start, end in _cuts(inner)
                ):
                    return join(top, name)
    return ''
