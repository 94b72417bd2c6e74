"""Segments: pairs of images and label maps as a data set."""

import os
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from mmstvit.datasets.images import IMAGE_READER, MAP_READER, UnreadableError
from mmstvit.datasets.map_files import cuts, look_at
from mmstvit.errors import DataError
from mmstvit.rules.headers import thin_out

from .class_names import choose_names, parse_names, parse_value
from .code import write_list
from .evidence import Evidence
from .folder import ALL, Folder, join, relative, split_of_folder
from .label_values import IGNORED, Table, Values, convert, make_table, read_values, write
from .options import NEXT_TO_CONFIG, Data, Options, first_names
from .pairing import Pairs, find_pairs, more_maps, paired_files, several_maps
from .splits import divide

_SHOWN = 4
_LOOKED_AT = 24  # label maps

# Names of two folders with photographs of one place at two times; their label maps show what has changed.
_TWO_TIMES = re.compile(
    r'(?P<start>.*?)(a/(?P=start)b|1/(?P=start)2|(19|20)\d\d/(?P=start)(19|20)\d\d)|before/after|after/before|post/pre|pre/post'
)


def look_for_label_maps(folder: Folder, options: Options) -> Evidence:
    """Collect evidence for images with label maps."""
    evidence = Evidence()
    maps, images = (
        None if option is None else relative(option, folder.root) for option in (options.maps, options.images)
    )
    found = find_pairs(folder, options.map_suffix, maps, images)
    if (options.maps or options.images) and not found:
        evidence.add_against(f'no image has a label map in {options.maps or options.images}')
    if two := _two_times(find_pairs(folder, options.map_suffix) if maps or images else found):
        evidence.refuse(
            f'pairs of photographs for change detection: {two}',
            'Change detection compares two images, which no model of this package does.',
        )
        return evidence
    if per_object := _maps_per_object(folder):
        evidence.refuse(
            f'a mask file per object, such as {per_object}',
            'Draw the masks of an image into one label map, or export the objects in COCO format.',
        )
        return evidence
    if options.task != 'segments' and (numbered := _numbers_objects(folder, found)):
        evidence.refuse(
            f'the label maps seem to number objects, not classes: {numbered}',
            'For objects, export them in COCO format; if the values are classes, add --task segments --classes NAME …',
        )
    if options.map_suffix is None and (more := more_maps(folder, found)):
        evidence.add_against(
            f'an image has more than one label map, such as {more}',
            'Join the masks of an image into one label map, or take those of one ending: --map-suffix END',
        )
    if choices := several_maps(found):
        evidence.add_against(*_explain_choice(folder, choices))
    evidence.found = found
    for pairs in found[:_SHOWN]:
        evidence.add_for(f'{len(pairs.files)} pairs in {pairs}, such as {pairs.example}')
    return evidence


def _two_times(found: Sequence[Pairs]) -> str:
    """Describe photographs of two times with one folder of label maps for both; empty if there are none."""
    by_maps: dict[str, dict[str, Pairs]] = {}
    for pairs in found:
        by_maps.setdefault(pairs.maps, {})[pairs.images] = pairs
    for maps, both in by_maps.items():
        tops = sorted(both)
        shared = [pairs for pairs in found if pairs.images in both and pairs.maps != maps]
        names = [{PurePosixPath(path).name for path in both[top].files} for top in tops]
        last = '/'.join(top.rpartition('/')[2].lower() for top in tops)
        if len(tops) == 2 and not shared and names[0] == names[1] and _TWO_TIMES.fullmatch(last):
            return f'{tops[0]}/ and {tops[1]}/ have the same names, and {maps}/ a label map for both'
    return ''


def _explain_choice(folder: Folder, choices: Sequence[Pairs]) -> tuple[str, str]:
    """Say why images have several maps, or maps several images, and how to choose."""
    first = {part.maps: part for part in reversed(choices)}
    ends = sorted({str(part.end) for part in choices})
    if len({(part.images, part.maps) for part in choices}) < len(choices):  # in one folder
        return (
            f'an image has several masks or label maps, with the ends {", ".join(ends)}',
            'Choose one: --map-suffix END; masks of several classes or parts have to be joined into one label map.',
        )
    images = sorted({part.images for part in choices})
    if len(images) > len(first):
        return (
            f'label maps have images in several folders: {", ".join(f"{top}/" for top in images)}',
            f'Choose one: --images {shlex.quote(str(folder.root / images[0]))}',
        )
    looks = [look_at(folder.root / next(iter(part.files.values()))) for part in first.values()]
    binary = all(look is not None and look.values <= 2 for look in looks)
    folders = ', '.join(f'{top}/' for top in sorted(first))
    return (
        f'a mask for each class in a folder of its own ({folders})'
        if binary and len(first) > 2 and len(images) == 1
        else f'images have label maps in several folders: {folders}',
        f'Choose one: --maps {shlex.quote(str(folder.root / min(first)))}; masks of several classes have to be joined '
        'into one label map.',
    )


def _numbers_objects(folder: Folder, found: Sequence[Pairs]) -> str:
    """Describe maps in which each value from 1 is one region, up to another value in each map; empty for others."""
    paths = [path for pairs in found for path in pairs.files.values()]
    highest = {}
    for path in thin_out(paths, _LOOKED_AT):
        try:
            labels = MAP_READER.read(str(folder.root / path)).squeeze()
        except UnreadableError:
            return ''
        values = np.unique(labels).tolist()
        if labels.ndim != 2 or values != list(range(len(values))):
            return ''
        regions = (cv2.connectedComponents((labels == value).astype(np.uint8))[0] - 1 for value in values[1:])
        if any(count > 1 for count in regions):
            return ''
        highest[path] = values[-1]
    numbers = sorted(set(highest.values()))
    if len(highest) < 3 or len(numbers) < 2 or numbers[-1] < 3:
        return ''
    return f'in each map every value from 1 is one region, and the highest is {numbers[0]} to {numbers[-1]}'


def _maps_per_object(folder: Folder) -> str:
    """Return a folder with one image beside a folder with several masks of it; empty if there are fewer than two."""
    found = []
    for top, names in folder.by_folder.items():
        parent, _, last = top.rpartition('/')
        if last in ('masks', 'mask', 'labels') and len(names) > 1:
            images = folder.by_folder.get(join(parent, 'images')) or folder.by_folder.get(join(parent, 'image'), [])
            if len(images) == 1 and PurePosixPath(images[0]).stem not in {PurePosixPath(n).stem for n in names}:
                found.append(join(top, names[0]))
    return found[0] if len(found) > 1 else ''


def read_label_maps(found: Sequence[Pairs], folder: Folder, options: Options) -> Data:
    """Read a data set of images and label maps.

    Args:
        found: The pairs.
        folder: The folder.
        options: Options of the command.

    Raises:
        DataError: The splits are ambiguous, the values need names, or all maps have other sizes than their images.
    """
    map_of = {image: path for pairs in found for image, path in pairs.files.items()}
    _check_sizes(map_of, folder)
    notes = [
        f'images with label maps: {pairs}, {len(pairs.files)} pairs such as {pairs.example}' for pairs in found[:_SHOWN]
    ]
    if len(found) > _SHOWN:
        notes.append(f'and in {len(found) - _SHOWN} more folders, {len(map_of)} pairs in all')
    notes += folder.unused([top for pairs in found for top in (pairs.images, pairs.maps)])
    if alone := _count_alone(found, folder):
        notes.append(f'left out: {alone} images without a label map')
    parts, lines = divide(map_of, folder, options)
    values = read_values([folder.root / map_of[image] for part in parts.values() for image in part])
    entries, source = (
        (parse_names(options.classes), '--classes') if options.classes else choose_names(folder, values.pixels)
    )
    table = make_table(values, entries, [parse_value(text) for text in options.ignore])
    notes += [*_describe(table, values, source), *lines]
    files, datasets = {}, {}
    for split, part in parts.items():
        notes.append(f'{split}: {len(part)} images')
        datasets[split] = _describe_datasets({image: map_of[image] for image in part}, table, folder, split, files)
    return Data(
        task='segments',
        root=folder.root,
        classes=table.classes,
        datasets=datasets,
        counts={split: len(part) for split, part in parts.items()},
        images=[folder.root / image for part in parts.values() for image in part],
        notes=notes,
        comments=dict(classes=table.comment),
        palette=table.palette,
        reduce_zero_label=table.reduce_zero_label,
        files=files,
    )


def _check_sizes(map_of: Mapping[str, str], folder: Folder) -> None:
    """Refuse label maps of which none has the size of its image; if some do, verify_dataset.py names the others."""
    pairs = thin_out(list(map_of.items()), _LOOKED_AT)
    files = [(image, path, IMAGE_READER.size(str(folder.root / image)), MAP_READER.size(str(folder.root / path)))
             for image, path in pairs]  # fmt: skip
    files = [(image, path, size, own) for image, path, size, own in files if size and own]
    if files and all(size != own for _, _, size, own in files):
        image, path, size, own = files[0]
        raise DataError(
            f'The label maps have other sizes than their images: {path} has {own[0]}×{own[1]} pixels, {image} '
            f'{size[0]}×{size[1]}.',
            'Scale the maps to the sizes of the images, without new values (nearest neighbor), or the images.',
        )


def _describe_datasets(map_of: Mapping[str, str], table: Table, folder: Folder, split: str, files: dict) -> list[dict]:
    """Return the configs of the datasets of a split, and add the files that they need beside the config."""
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for image, path in map_of.items():
        *place, name = _locate(image, path, table.converts)
        groups.setdefault((*place,), {})[name] = path
    datasets = []
    for i, ((images, image_suffix, maps, map_suffix), paths) in enumerate(groups.items()):
        own = f'{split}{i or ""}'
        files[f'{own}.txt'] = partial(bytes, write_list(paths))
        if not map_suffix:
            maps, map_suffix = f'{NEXT_TO_CONFIG}maps/{own}', '.png'
            labels = table.labels if table.converts else None
            for name, path in paths.items():
                files[f'maps/{own}/{name}.png'] = partial(convert, folder.root / path, labels)
        datasets.append(
            dict(
                data_prefix=dict(img_path=images, seg_map_path=maps),
                img_suffix=image_suffix,
                seg_map_suffix=map_suffix,
                reduce_zero_label=table.reduce_zero_label,
                ann_file=f'{NEXT_TO_CONFIG}{own}.txt',
            )
        )
    return datasets


def _locate(image: str, path: str, copy: bool) -> tuple[str, str, str, str, str]:
    """Return folder and suffix of an image, those of its map, and the name that they have in common.

    The map has no suffix if it needs a copy: for other labels, or because its name begins with another word.
    """
    images, maps = (file.split('/')[:-1] for file in (image, path))
    inner = []
    while len(images) > 1 < len(maps) and images[-1] == maps[-1] and split_of_folder(images[-1]) == ALL:
        inner.insert(0, images.pop())
        maps.pop()
    names = [os.path.basename(file) for file in (image, path)]
    starts = [start for start, _ in cuts(names[0]) if start in {start for start, _ in cuts(names[1])}]
    name = starts[-1] if starts else PurePosixPath(image).stem
    end = names[1][len(name) :] if starts and not copy else ''
    return '/'.join(images), names[0][len(name) :], '/'.join(maps), end, '/'.join([*inner, name])


def _count_alone(found: Sequence[Pairs], folder: Folder) -> int:
    """Count the images in the folders of images that have no label map, and do not begin like one that has."""
    used = paired_files(found)
    starts = {PurePosixPath(image).with_suffix('').as_posix() for image in used}
    tops = {pairs.images for pairs in found}
    alone = {join(top, path) for top in tops for path in folder.below(top)} - used
    return sum(not any(start in starts for start, _ in cuts(image)) for image in alone)


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
