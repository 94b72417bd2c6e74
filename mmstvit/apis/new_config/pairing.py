"""Find images and label maps that belong together: by their names, and by what the files look like.

Names decide which file may belong to which image, in any two folders or in one. The content decides which side has the
label maps: few values in large flat regions. Names of folders such as ``masks`` decide where the content does not.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import permutations
from pathlib import PurePosixPath

from mmstvit.datasets.map_files import MANY_VALUES, cuts, look_at
from mmstvit.rules.headers import thin_out

from .folder import ALL, SPLIT_NAMES, Folder, folder_distance, has_map_word, join, split_of_folder

_MOST_FOLDERS = 40  # above, only folders whose paths differ in one place by a word of label maps are compared
_SAMPLE = 4  # files of a folder that are looked at


@dataclass(frozen=True)
class Pairs:
    """Images of a folder, and their label maps.

    Args:
        images: Folder of the images, relative to the root.
        maps: Folder of the label maps.
        end: End of the names of the maps, behind what they have in common with those of the images.
        files: Image -> map, relative to the root.
        split: Split of a list that names the pairs.
    """

    images: str
    maps: str
    end: str
    files: Mapping[str, str]
    split: str = ALL

    def __str__(self) -> str:
        return f'{self.images or "."} with {self.maps or "."}'

    @property
    def example(self) -> str:
        """The first pair, for a message."""
        return '{} with {}'.format(*next(iter(self.files.items())))


def paired_files(found: Sequence[Pairs]) -> set[str]:
    """Return all images and label maps of some results."""
    return {path for pairs in found for both in pairs.files.items() for path in both}


def find_pairs(
    folder: Folder, map_suffix: str | None = None, maps: str | None = None, images: str | None = None
) -> list[Pairs]:
    """Find all pairs below a folder; an image may have several maps, in several results.

    Args:
        folder: The folder.
        map_suffix: Take only maps whose names end with it.
        maps: Take only maps in this folder or below it, and in the folders in its place for other splits.
        images: The same for images.
    """
    of_photos = find_folders_of_photos(folder)
    candidates = [
        both
        for both in _candidates(folder)
        if both not in of_photos and len({split_of_folder(top) for top in both} - {ALL}) < 2
    ]
    found = [pairs for both in candidates for pairs in _pair(folder, *both, map_suffix)]
    accepted = [pairs for pairs in found if is_accepted(folder, pairs)]
    known = paired_files(accepted)
    samples = (pairs for pairs in _pair_samples(folder) if known.isdisjoint(paired_files([pairs])))
    accepted += [pairs for pairs in samples if is_accepted(folder, pairs)]
    photos = [pairs for pairs in accepted if _has_photos(folder, pairs)]
    of_photos = {path for pairs in photos for path in pairs.files.values()}  # other maps of an image are no images
    accepted = [pairs for pairs in accepted if pairs in photos or of_photos.isdisjoint(pairs.files.values())]
    tops = {pairs.maps for pairs in accepted if pairs.images != pairs.maps}  # predictions beside maps are no images
    accepted = [pairs for pairs in accepted if pairs.images not in tops or pairs.images == pairs.maps]
    result = _keep_nearest(_keep_nearest(accepted, 'maps'), 'images')
    for side, chosen in (('images', images), ('maps', maps)):
        if chosen is not None:  # also one that is not the nearest
            result = _choose(result, side, chosen) or _choose(accepted, side, chosen)
    return result


def find_folders_of_photos(folder: Folder) -> dict[tuple[str, str], str]:
    """Find folders with the whole names of most images of another folder: those of what was found in each image.

    The names of the files in them are numbers of objects, or words, and say nothing about other images.

    Returns:
        Folder of the images, and a folder with the name of one -> this image.
    """
    found = {}
    parts = {part for top in folder.by_folder for part in top.split('/')}
    for images, names in folder.by_folder.items():
        called = {stem: join(images, name) for name in names if (stem := PurePosixPath(name).stem) in parts}
        for stem in called.keys() & {*images.split('/')}:
            del called[stem]  # images/1/1.jpg with masks/1/1.png
        if len(called) < 2 or 2 * len(called) <= len(names):
            continue
        for top, own in folder.by_folder.items():
            for stem in called.keys() & {*top.split('/')}:
                if not all(name.startswith(stem) for name in own):
                    found[images, top] = called[stem]
    return found


def find_maps_inside(folder: Folder, places: Sequence[str]) -> set[str]:
    """Find the label maps whose images are in the same one of several folders, beside them or in a folder of images.

    A folder of maps beside one of images is left out as a whole.
    """
    maps: set[str] = set()
    for place in places:
        inner = {top: names for top, names in folder.files.items() if f'{top}/'.startswith(f'{place}/')}
        for pairs in find_pairs(Folder(folder.root, inner)):
            maps.update(pairs.files.values())
            if pairs.images != pairs.maps:
                maps.update(join(pairs.maps, name) for name in folder.by_folder[pairs.maps])
    return maps


def _choose(found: Sequence[Pairs], side: str, chosen: str) -> list[Pairs]:
    """Keep pairs with a folder on one side, or with the folder in its place for another split or part of the data.

    That is one whose path differs in the name of the split alone, or one of the same name for other files.
    """
    same = [pairs for pairs in found if _role(getattr(pairs, side)) == _role(chosen)]
    taken = paired_files(same)
    last = chosen.rpartition('/')[2]
    others = (pairs for pairs in found if getattr(pairs, side).rpartition('/')[2] == last)
    same += [pairs for pairs in others if taken.isdisjoint(paired_files([pairs]))] if same else []
    return same or [pairs for pairs in found if getattr(pairs, side).startswith(f'{chosen}/')]


def _role(top: str) -> str:
    """Return the path of a folder without the names of splits."""
    return '/'.join('_'.join(w for w in re.split(r'[\W_]+', p) if w.lower() not in SPLIT_NAMES) for p in top.split('/'))


def _keep_nearest(found: Sequence[Pairs], side: str) -> list[Pairs]:
    """Keep, for each folder on one side, the partners whose paths differ least: a/images and a/masks.

    Of equally near folders of images, maps get the one with most words of theirs: b_GT belongs to b, not to a.
    """
    distances = [
        (max(1, folder_distance(pairs.images, pairs.maps)), -_count_words(pairs) * (side == 'maps')) for pairs in found
    ]
    best: dict[str, tuple[int, int]] = {}
    for pairs, distance in zip(found, distances, strict=True):
        best[getattr(pairs, side)] = min(best.get(getattr(pairs, side), distance), distance)
    return [pairs for pairs, distance in zip(found, distances, strict=True) if distance == best[getattr(pairs, side)]]


def _count_words(pairs: Pairs) -> int:
    """Count the words that the paths of both folders have."""
    ours, theirs = ({*re.split(r'[\W_]+', top)} for top in (pairs.images, pairs.maps))
    return len(ours & theirs)


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
    candidates = [name for name in folder.by_folder[maps] if map_suffix is None or name.endswith(map_suffix)]
    by_suffix: dict[str, list[str]] = {}
    for name in folder.by_folder[images]:
        if not (same and map_suffix is not None and name.endswith(map_suffix)):
            by_suffix.setdefault(PurePosixPath(name).suffix, []).append(name)
    for suffix, names in by_suffix.items():
        for group in _by_template(names) if same else [names]:
            others = [name for name in candidates if not same or name not in group]
            found = _match({name.removesuffix(suffix) for name in group}, others)
            exact = [(end, files) for end, files in found if end == map_suffix]  # .png also ends a_color.png
            for end, files in exact or found:
                paths = {join(images, start + suffix): join(maps, path) for start, path in sorted(files.items())}
                yield Pairs(images, maps, end, paths)


def _pair_samples(folder: Folder) -> Iterator[Pairs]:
    """Pair the files of folders that have the same two names, such as image.png and mask.png: a folder per sample."""
    alike = Counter(map(tuple, folder.by_folder.values()))
    (names, count), *_ = alike.most_common(1) or [((), 0)]
    maps = [name for name in names if has_map_word(PurePosixPath(name).stem)]
    numbered = any(file.endswith('label_names.txt') for file in folder.others)  # by labelme_json_to_dataset
    if count < 2 or len(names) != 2 or len(maps) != 1 or numbered:
        return
    (image,) = {*names} - {*maps}
    for top in (top for top, own in folder.by_folder.items() if tuple(own) == names):
        yield Pairs(top, top, maps[0], {join(top, image): join(top, maps[0])})


def _match(stems: Set[str], candidates: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Return ends of the names of maps, and the maps by the name of the image.

    A map begins with the name of its image; or with the part in which the names of the images differ, in any case; or
    with that number, with other zeros before it. The first of these that is found is taken.
    """
    for normalize, least in ((None, 0.25), (str.lower, 0.5), (_to_number, 0.5)):
        start, end = _common_words([*stems]) if normalize else ('', '')
        theirs, _ = _common_words([PurePosixPath(name).stem for name in candidates]) if normalize else ('', '')
        normalize = normalize or str
        ours = {normalize(stem[len(start) : len(stem) - len(end)]): stem for stem in stems}
        ends: dict[str, dict[str, str]] = {}
        for name in candidates if len(ours) == len(stems) else ():
            for first, last in cuts(name):
                if first.startswith(theirs) and (key := normalize(first[len(theirs) :])) in ours:
                    ends.setdefault(last, {})[ours[key]] = name
        # An end that only a few names have is an accident, such as a.jpg beside a_2.png.
        most = max(map(len, ends.values()), default=0)
        needed = max(most / 2, min(len(stems), len(candidates)) * least)
        found = [(end, files) for end, files in ends.items() if len(files) >= needed and len(files) > most / 2]
        # Numbers that are left on both sides count something else.
        left = [len(files) < min(len(stems), len(candidates)) for _, files in found] if normalize is not str else []
        if found and not (len(found) == 1 and any(left)):
            return found
    return []


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


def _to_number(key: str) -> str:
    """Return a key without leading zeros; keys that are not numbers stay apart."""
    return key.lstrip('0') or '0' if key.isdigit() else f'?{key}'


def _common_words(names: Sequence[str]) -> tuple[str, str]:
    """Return the words that all of several names begin and end with, such as ``ulm_`` and ``_leftImg8bit``."""
    start = re.sub(r'\d+$', '', os.path.commonprefix(names))
    if not all(name[len(start) : len(start) + 1].isdigit() for name in names):
        start = start[: max(map(len, re.findall(r'.*[^0-9A-Za-z]', start)), default=0)]
    end = os.path.commonprefix([name[len(start) :][::-1] for name in names])[::-1]
    word = re.search(r'[^0-9A-Za-z].*', end) if len(names) > 1 else None
    return start, word[0] if word else ''


def is_accepted(folder: Folder, pairs: Pairs) -> bool:
    """Return True if one side has images and the other label maps of the same sizes."""
    files = list(pairs.files.items())
    looks = [[look_at(folder.root / path) for path in pair] for pair in thin_out(files, _SAMPLE)]
    looks = [(image, label) for image, label in looks if image is not None and label is not None]
    hinted = _is_named_map(pairs.images, pairs.maps, files[0])
    if not looks:
        return hinted
    if not hinted and _is_named_map(pairs.maps, pairs.images, files[0][::-1]):
        return False  # the other way round
    maps = sum(label.is_map or label.cut_out > image.cut_out for image, label in looks)
    images = all(not image.is_map or image.values > 4 * label.values for image, label in looks)
    same = all(image.size == label.size for image, label in looks)
    if hinted and any(label.values <= MANY_VALUES or not label.colored for _, label in looks):
        return same or maps > len(looks) / 2
    return maps == len(looks) and images and same


def _has_photos(folder: Folder, pairs: Pairs) -> bool:
    """Return True if an image, of which some are looked at, does not look like a label map."""
    looks = (look_at(folder.root / path) for path in thin_out([*pairs.files], _SAMPLE))
    return any(look is None or not look.is_map for look in looks)


def _is_named_map(images: str, maps: str, example: tuple[str, str]) -> bool:
    """Return True if the names of the maps have a word of label maps where those of the images have none."""
    ours, theirs = images.split('/'), maps.split('/')
    if images == maps:
        ours, theirs = ([PurePosixPath(path).stem] for path in example)
    own = [part for part in theirs if part not in ours]
    others = [part for part in ours if part not in theirs]
    return any(map(has_map_word, own)) and not any(map(has_map_word, others))


def has_masks(folder: Folder, paths: Sequence[str]) -> bool:
    """Return True if the files, of which some are looked at, are masks or label maps, not all of them of one value."""
    looks = [look_at(folder.root / path) for path in thin_out(paths, _SAMPLE)]
    maps = [look for look in looks if look is not None and look.is_map]
    return len(maps) == len(looks) and any(look.values > 1 for look in maps)


def several_maps(found: Sequence[Pairs]) -> list[Pairs]:
    """Return the results that give an image that another result has another map, or a map another image."""
    of_file: dict[tuple[int, str], set[int]] = {}
    for i, pairs in enumerate(found):
        for both in pairs.files.items():
            for side, path in enumerate(both):
                of_file.setdefault((side, path), set()).add(i)
    return [found[i] for i in sorted(set().union(*(group for group in of_file.values() if len(group) > 1)))]


def other_maps(folder: Folder, found: Sequence[Pairs]) -> dict[str, str]:
    """Return the files that begin like an image that has another map, and are no map of an image, with their ends."""
    used, others = paired_files(found), {}
    for pairs in found:
        stems = {PurePosixPath(image).stem for image in pairs.files}
        for name in folder.by_folder[pairs.maps]:
            ends = [end for start, end in cuts(name) if start in stems]
            ends = [end for end in ends if pairs.maps != pairs.images or has_map_word(end)]
            if ends and join(pairs.maps, name) not in used:
                others[join(pairs.maps, name)] = ends[0]
    return others
