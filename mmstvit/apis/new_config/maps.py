"""Segments: pairs of images and label maps, the values in the maps and what they mean."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from mmstvit.errors import DataError

from .code import write_list
from .folder import ALL, Folder, assign_splits, find_split, join, relative
from .found import BESIDE, Data, Options, first_names
from .labels import IGNORED, Table, Values, convert, make_table, read_values, write
from .names import find_names, parse_names, parse_value
from .splitting import split_files

# Names of folders of images and of label maps, and ends of such names.
_IMAGE_FOLDERS = ('images', 'image', 'imgs', 'img', 'img_dir', 'jpegimages', 'leftimg8bit', 'photos')
_MAP_FOLDERS = (
    'annotations', 'annotation', 'annots', 'annot', 'ann_dir', 'ann', 'labels', 'label', 'label_maps', 'labelmaps',
    'masks', 'mask', 'gts', 'gt', 'gtfine', 'ground_truth', 'groundtruth', 'segmentationclass', 'segmentationclasspng',
    'seg_maps', 'segmentation', 'segmentations', 'segments', 'targets', 'target', 'trimaps',
)  # fmt: skip
_MAP_ENDINGS = ('_annotations', '_labels', '_label', '_masks', '_mask', '_gt', 'annot')
_BESIDE_ENDINGS = ('_mask.png', '_masks.png', '_label.png', '_labels.png', '_seg.png', '_gt.png', '_L.png')
_NAME_ONE = 'Name a folder with one folder of images and one of label maps, or with train and val of both.'


@dataclass(frozen=True)
class Pairs:
    """Images and label maps whose names differ in their ends.

    Args:
        images: Folder of the images, relative to the root.
        maps: Folder of the maps.
        image_suffix: End of the names of the images.
        map_suffix: End of the names of the maps.
        names: Names without these ends.
    """

    images: str
    maps: str
    image_suffix: str
    map_suffix: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f'{self.images or "."} with {self.maps or "."}'


def find_maps(folder: Folder, options: Options) -> dict[str, list[Pairs]] | None:
    """Find folders of images and of label maps that belong together, by split; None if there are none."""
    tops = sorted({path.rpartition('/')[0] for path in folder.images})
    images, maps = {}, {}
    for top in tops:
        is_map, rest = _classify(top)
        (maps if is_map else images).setdefault(rest, []).append(top)
    twins = [(a, b) for rest, bs in maps.items() for b in bs for a in images.get(rest, ())]
    twins = twins or [(top, top) for top in tops if any(path.endswith(_BESIDE_ENDINGS) for path in folder.below(top))]
    by_split: dict[str, list[tuple[str, str]]] = {}
    for twin in twins:
        by_split.setdefault(find_split(f'{twin[0]}/x'), []).append(twin)
    found = {}
    for split, group in by_split.items():
        pairs = [pair for roots in _join_nested(group) for pair in _pair(folder, *roots, options)]
        if pairs:
            found[split] = pairs
    return found or None


def _classify(top: str) -> tuple[bool, tuple[str, ...]]:
    """Return True for a folder of label maps, and the parts of its path that say neither images nor maps."""
    is_map, rest = False, []
    for part in top.lower().split('/') if top else ():
        ending = next((end for end in _MAP_ENDINGS if part.endswith(end) and part != end), '')
        is_map |= part in _MAP_FOLDERS or bool(ending)
        if part not in _MAP_FOLDERS and part not in _IMAGE_FOLDERS:
            rest.append(part.removesuffix(ending).removesuffix('_images'))
    return is_map, tuple(rest)


def _join_nested(twins: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Replace folders inside of the same folders, such as one for each city, by these."""
    outer = tuple(os.path.commonpath([f'./{twin[side]}' for twin in twins]) for side in (0, 1))
    inner = [tuple(os.path.relpath(f'./{path}', top) for path, top in zip(twin, outer, strict=True)) for twin in twins]
    if all(a == b for a, b in inner) and outer[0] != outer[1]:
        return [tuple(path.removeprefix('.').removeprefix('/') for path in outer)]
    return list(twins)


def _pair(folder: Folder, images: str, maps: str, options: Options) -> list[Pairs]:
    """Pair the images of a folder with label maps, for every suffix of the images.

    Raises:
        DataError: Several maps of an image have different ends.
    """
    beside = images == maps
    files = folder.below(images)
    candidates = [path for path in folder.below(maps) if not beside or path.endswith(_BESIDE_ENDINGS)]
    files = [path for path in files if not beside or not path.endswith(_BESIDE_ENDINGS)]
    result = []
    for suffix in sorted({PurePosixPath(path).suffix for path in files}):
        same = [path for path in files if path.endswith(suffix)]
        for image_suffix in (suffix, _common_end(same, suffix)):
            names = {path[: -len(image_suffix)] for path in same}
            ends = _find_ends(names, candidates)
            if options.map_suffix is not None:
                ends = {end: found for end, found in ends.items() if end == options.map_suffix}
            if ends:
                break
        if not ends:
            continue
        if len(ends) > 1:
            # An end that only a few names have is an accident, such as a.jpg beside a_2.png.
            most = max(map(len, ends.values()))
            ends = {end: found for end, found in ends.items() if len(found) > most / 2}
        if len(ends) > 1:
            raise DataError(
                f'Images in {folder.root / images} have several label maps, with the ends {", ".join(sorted(ends))}.',
                'Choose one: --map-suffix END',
            )
        ((end, found),) = ends.items()
        result.append(Pairs(images, maps, image_suffix, end, tuple(sorted(found))))
    return result


def _common_end(paths: Sequence[str], suffix: str) -> str:
    """Return the last word that the names have in common, with the suffix, such as ``_leftImg8bit.png``."""
    word = re.search(r'_[^_/]+$', paths[0].removesuffix(suffix))
    end = (word.group() if word else '') + suffix
    return end if all(path.endswith(end) for path in paths) else suffix


def _find_ends(names: set[str], maps: Iterable[str]) -> dict[str, set[str]]:
    """Find names at the beginning of the names of maps; returns the names by the end that follows."""
    ends: dict[str, set[str]] = {}
    for path in maps:
        start = path.rfind('/') + 1
        for cut in (i for i in range(start + 1, len(path)) if path[i] in '._-'):
            if path[:cut] in names:
                ends.setdefault(path[cut:], set()).add(path[:cut])
    return ends


def read_maps(found: dict[str, list[Pairs]], folder: Folder, options: Options) -> Data:
    """Read a data set of images and label maps.

    Args:
        found: Result of :func:`find_maps`.
        folder: The folder that was scanned.
        options: Options of the command.

    Raises:
        DataError: The splits are ambiguous, or the values need names.
    """
    parts = _choose_parts(found, folder, options)
    notes = [
        f'images and label maps: {pairs} (…{pairs.image_suffix} with …{pairs.map_suffix})'
        for part in parts.values()
        for pairs in part
    ]
    notes += folder.unused([top for part in parts.values() for top in (part[0].images, part[0].maps)])
    alone = sum(_count_alone(part, folder) for part in parts.values())
    if alone:
        notes.append(f'left out: {alone} images without a label map')
    paths = [
        folder.root / join(p.maps, name + p.map_suffix) for part in parts.values() for p in part for name in p.names
    ]
    values = read_values(paths)
    entries, source = (parse_names(options.classes), '--classes') if options.classes else find_names(folder)
    table = make_table(values, entries, [parse_value(text) for text in options.ignore])
    notes += _describe(table, values, source)
    listed = alone > 0 or any(len(part) > 1 or part[0].images == part[0].maps for part in parts.values())
    if 'val' not in parts:
        parts, listed = _split(parts, folder, options), True
        notes.append('split by image, equal files on one side')
    files, datasets = {}, {}
    for split, part in parts.items():
        datasets[split] = []
        for i, pairs in enumerate(part):
            dataset = dict(
                data_prefix=dict(img_path=pairs.images, seg_map_path=pairs.maps),
                img_suffix=pairs.image_suffix,
                seg_map_suffix=pairs.map_suffix,
                reduce_zero_label=table.reduce_zero_label,
            )
            if listed:
                name = f'{split}{i or ""}.txt'
                files[name] = partial(bytes, write_list(pairs.names))
                dataset['ann_file'] = BESIDE + name
            if table.converts:
                top = f'maps/{split}{i or ""}'
                dataset['data_prefix']['seg_map_path'] = BESIDE + top
                dataset['seg_map_suffix'] = '.png'
                for name in pairs.names:
                    source_path = folder.root / join(pairs.maps, name + pairs.map_suffix)
                    files[f'{top}/{name}.png'] = partial(convert, source_path, table.labels)
            datasets[split].append(dataset)
    counts = {split: sum(len(pairs.names) for pairs in part) for split, part in parts.items()}
    notes += [f'{split}: {count} images' for split, count in counts.items()]
    return Data(
        task='segments',
        root=folder.root,
        classes=table.classes,
        datasets=datasets,
        counts=counts,
        images=[
            folder.root / join(p.images, name + p.image_suffix)
            for part in parts.values()
            for p in part
            for name in p.names
        ],
        notes=notes,
        comments=dict(classes=table.comment),
        palette=table.palette,
        reduce_zero_label=table.reduce_zero_label,
        files=files,
    )


def _choose_parts(found: dict[str, list[Pairs]], folder: Folder, options: Options) -> dict[str, list[Pairs]]:
    """Choose the pairs of each split; without folders of splits, all is for training."""
    for split, part in found.items():
        if len({(pairs.images, pairs.maps) for pairs in part}) > 1:
            what = f'for {split}' if split != ALL else 'of images and label maps'
            raise DataError(f'Several folders {what}: {"; ".join(map(str, part))}.', _NAME_ONE)
    parts = dict(found)
    if options.val_fraction is None:
        top = relative(Path(options.val), folder.root)
        moved = {s: part for s, part in parts.items() if part[0].images == top}
        if not moved:
            known = ', '.join(str(folder.root / part[0].images) for part in parts.values())
            raise DataError(f'--val {options.val} is not a folder of images with label maps.', f'Name one of: {known}')
        parts = {s: part for s, part in parts.items() if s not in (*moved, 'val')} | {'val': next(iter(moved.values()))}
    return assign_splits(parts, 'folder', _NAME_ONE)


def _count_alone(part: Sequence[Pairs], folder: Folder) -> int:
    """Count the images that have no label map."""
    first = part[0]
    images = folder.below(first.images)
    if first.images == first.maps:
        images = [path for path in images if not path.endswith(_BESIDE_ENDINGS)]
    return len(images) - sum(len(pairs.names) for pairs in part)


def _split(parts: dict[str, list[Pairs]], folder: Folder, options: Options) -> dict[str, list[Pairs]]:
    """Take images for validation out of those for training."""
    items = [(i, name) for i, pairs in enumerate(parts['train']) for name in pairs.names]
    files = [folder.root / join(p.images, name + p.image_suffix) for p in parts['train'] for name in p.names]
    both: dict[str, list[Pairs]] = {}
    for split, indices in zip(('train', 'val'), split_files(files, options.val_fraction), strict=True):
        names: dict[int, list[str]] = {}
        for i, name in map(items.__getitem__, indices):
            names.setdefault(i, []).append(name)
        both[split] = [replace(parts['train'][i], names=tuple(part)) for i, part in names.items()]
    return {**parts, **both}


def _describe(table: Table, values: Values, source: Path | str | None) -> list[str]:
    """Describe the classes with their values and shares of the pixels."""
    lines = [f'names of classes: {source}']
    if values.maps < values.total:
        lines.append(f'{values.maps} of {values.total} label maps were read; verify_dataset.py reads all')
    total = sum(values.pixels.values())
    shares = Counter()
    for value, count in values.pixels.items():
        shares[table.labels[value]] += count / total
    occurring = [f'{shares[i]:.1%} {name}' for i, name in enumerate(table.classes) if shares[i]]
    lines.append(f'pixels: {first_names(occurring)}')
    never = [name for i, name in enumerate(table.classes) if not shares[i]]
    if never:
        lines.append(f'never in the maps that were read: {first_names(never)}')
    if shares[IGNORED]:
        ignored = [write(value) for value in values.pixels if table.labels[value] == IGNORED]
        lines.append(f'ignored: {shares[IGNORED]:.1%} of the pixels, of value {", ".join(ignored)}')
    if table.converts:
        lines.append('the label maps get copies beside the config, with the labels 0, 1, …')
    return lines
