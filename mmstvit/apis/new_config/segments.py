"""Segments: pairs of images and label maps as a data set."""

import os
import re
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from mmstvit.datasets.images import IMAGE_READER, MAP_READER, UnreadableError
from mmstvit.datasets.json_files import read_json
from mmstvit.datasets.map_files import cuts, look_at
from mmstvit.errors import DataError
from mmstvit.rules.headers import thin_out

from .class_names import choose_names, parse_names, parse_value
from .code import write_list
from .evidence import Evidence
from .folder import ALL, Folder, has_map_word, join, relative, split_of_folder
from .label_values import IGNORED, Table, Values, convert, make_table, read_values, write
from .listed_pairs import find_listed_pairs
from .options import NEXT_TO_CONFIG, Data, Options, first_names
from .pairing import Pairs, find_folders_of_photos, find_pairs, has_masks, other_maps, paired_files, several_maps
from .splits import divide

_SHOWN = 4
_LOOKED_AT = 24  # label maps
_MATLAB = 'PixelLabelData'  # folder of MATLAB's Image Labeler
_MOST_JSON = 200  # JSON files beside label maps that are read
_COLOR = re.compile(r'\(\d+(, \d+){2,3}\)')


def look_for_label_maps(folder: Folder, options: Options) -> Evidence:
    """Collect evidence for images with label maps."""
    evidence = Evidence()
    maps, images = (
        None if option is None else relative(option, folder.root) for option in (options.maps, options.images)
    )
    chosen = any((options.map_suffix, options.maps, options.images))
    listed = {} if chosen else find_listed_pairs(folder)
    evidence.used |= listed.keys()
    found = [pairs for part in listed.values() for pairs in part]
    if all(pairs.split == ALL for pairs in found):
        by_name = find_pairs(folder, options.map_suffix, maps, images)
        if _count_images(found) < _count_images(by_name):  # a list of a few images, or none
            listed, found = {}, by_name
    evidence.found = found
    evidence.reasons += [f'{file} lists images with their label maps' for file in [*listed][:_SHOWN]]
    for pairs in found[:_SHOWN]:
        evidence.reasons.append(f'{len(pairs.files)} pairs in {pairs}, such as {pairs.example}')
    if not listed and (own := next((top for top in folder.by_folder if top.rpartition('/')[2] == _MATLAB), None)):
        evidence.refuse(
            f'MATLAB numbers the label maps in {own} in the order of its images, not by their names',
            'Write a list, pairs.csv, with an image and its map in each line: gTruth.DataSource.Source and '
            'gTruth.LabelData.PixelLabelData.',
        )
    if (options.maps or options.images) and not found:
        evidence.add_against(f'no image has a label map in {options.maps or options.images}')
    if not found and (alone := _find_alone(folder)):
        evidence.refuse(
            f'masks or label maps without an image of their name, such as {alone}',
            'Give a mask the name of its image. If an image has a mask for each object, draw its masks into one label '
            'map, or export the objects in COCO format.',
        )
    elif not found and (reason := _find_masks_of_objects(folder)):
        evidence.refuse(reason, 'Join the masks of a photograph into one label map, or export them in COCO format.')
    if options.task != 'segments' and (numbered := _numbers_objects(folder, found)):
        evidence.refuse(
            f'the label maps seem to number objects, not classes: {numbered}',
            'For objects, export them in COCO format; if the values are classes, add --task segments --classes NAME …',
        )
    more = {} if options.map_suffix or listed else other_maps(folder, found)
    ends = {*more.values(), *(pairs.end for pairs in found)}
    if len({re.sub(r'\d+', '#', end) for end in ends}) < len(ends) and (more or several_maps(found)):
        evidence.refuse(
            f'an image has a mask for each object, with ends such as {first_names(sorted(ends), 3)}',
            'Join the masks of an image into one label map, or export them in COCO format.',
        )
        return evidence
    if more:
        evidence.add_against(
            f'an image has more than one label map, such as {next(iter(more))}',
            'Join the masks of an image into one label map, or take those of one ending: --map-suffix END',
        )
    if contradiction := _find_contradiction(folder, found):
        evidence.refuse(
            f'JSON files beside the label maps name their colors, and contradict each other: {contradiction}',
            'Write label maps with one number for each class, by these files.',
        )
    if choices := several_maps(found):
        evidence.add_against(*_explain_choice(folder, choices))
    return evidence


def _count_images(found: Sequence[Pairs]) -> int:
    return len({image for pairs in found for image in pairs.files})


def _find_alone(folder: Folder) -> str:
    """Return a file of a folder that is called like one of masks and has masks; empty if there is none."""
    tops = (top for top in folder.by_folder if has_map_word(top.rpartition('/')[2]))
    paths = ([join(top, name) for name in folder.by_folder[top]] for top in tops)
    return next((names[0] for names in paths if has_masks(folder, names)), '')


def _find_masks_of_objects(folder: Folder) -> str:
    """Describe a folder that has the name of a photograph, and masks; empty if there is none."""
    for (images, top), photo in find_folders_of_photos(folder).items():
        photos, masks = ([join(place, name) for name in folder.by_folder[place]] for place in (images, top))
        if has_masks(folder, masks) and not has_masks(folder, photos):
            return f'a folder for each photograph, with a mask per object: {top}/ for {photo}'
    return ''


def _find_contradiction(folder: Folder, found: Sequence[Pairs]) -> str:
    """Describe a color to which JSON files beside label maps give two names, as in Isaac Sim; empty without one."""
    tops = {pairs.maps for pairs in found}
    names: dict[str, tuple[str, str]] = {}
    for file in thin_out([file for file in folder.with_suffix('.json') if file.rpartition('/')[0] in tops], _MOST_JSON):
        content = read_json(folder.root / file)
        for key, value in content.items() if isinstance(content, Mapping) else ():
            if isinstance(value, Mapping) and _COLOR.fullmatch(key):
                name = str(value.get('class'))
                first, other = names.setdefault(key, (name, file))
                if first != name:
                    return f'{key} is {first} in {other}, and {name} in {file}'
    return ''


def _explain_choice(folder: Folder, choices: Sequence[Pairs]) -> tuple[str, str]:
    """Say why images have several maps, or maps several images, and how to choose."""
    maps, images = (sorted({getattr(part, side) for part in choices}) for side in ('maps', 'images'))
    join_them = 'masks of several classes or parts have to be joined into one label map.'
    if len({(part.images, part.maps) for part in choices}) < len(choices):  # in one folder
        ends = ', '.join(sorted({part.end for part in choices}))
        if ', ' not in ends:
            two = ' and '.join(next(iter(part.files)) for part in choices[:2])
            return f'a label map has several images, such as {two}', 'Move the images of all kinds but one away.'
        return (
            f'an image has several masks or label maps, with the ends {ends}',
            f'Choose one: --map-suffix END; {join_them}',
        )
    if len(images) > len(maps):
        samples = {part.images: look_at(folder.root / next(iter(part.files))) for part in choices}
        photos = max(images, key=lambda top: samples[top] is not None and samples[top].colored)
        return (
            f'label maps have images in several folders: {", ".join(f"{top}/" for top in images)}',
            f'Choose one: --images {shlex.quote(str(folder.root / photos))}; change detection, which compares two '
            'images, is not supported.',
        )
    first = min(maps, key=lambda top: not has_map_word(top))
    above = first.rpartition('/')[0]  # of the maps of all classes or cameras
    if above and {part.images for part in choices} <= {p.images for p in choices if p.maps.startswith(f'{above}/')}:
        first = above if len(images) > 1 else first
    return (
        f'images have label maps in several folders: {", ".join(f"{top}/" for top in maps)}',
        f'Choose one: --maps {shlex.quote(str(folder.root / first))}; {join_them}',
    )


def _numbers_objects(folder: Folder, found: Sequence[Pairs]) -> str:
    """Describe maps in which each value from 1 is one region, up to another value in each map; empty for others."""
    paths = [path for pairs in found for path in pairs.files.values()]
    highest = set()
    for path in thin_out(paths, _LOOKED_AT):
        try:
            labels = MAP_READER.read(str(folder.root / path)).squeeze()
        except UnreadableError:
            return ''
        values = np.unique(labels).tolist()
        if labels.ndim != 2 or values != list(range(len(values))):
            return ''
        if any(cv2.connectedComponents((labels == value).astype(np.uint8))[0] > 2 for value in values[1:]):
            return ''
        highest.add(values[-1])
    if len(paths) < 3 or len(highest) < 2 or max(highest) < 3:
        return ''
    return f'in each map every value from 1 is one region, and the highest is {min(highest)} to {max(highest)}'


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
    places = [pairs.images.rpartition('/') for pairs in found]
    places = [(above, name) for above, _, name in places if split_of_folder(name) == ALL]
    names = sorted({name for _, name in places})
    if len(names) > 1 and all(split_of_folder(above) != ALL or above == places[0][0] for above, _ in places):
        top = folder.root / os.path.commonpath([above for above, _ in places])
        notes.append(
            f'not used: the names of the folders of images, {first_names(names, _SHOWN)} (if these are the classes: '
            f'new_config.py {shlex.quote(str(top))} --task classes, or another value for each in the label maps)'
        )
    if alone := _count_alone(found, folder):
        notes.append(f'left out: {alone} files in the folders of images without a label map')
    others = other_maps(folder, found)
    if lost := _find_maps_without_image(found, folder, others):
        notes.append(f'not used: {len(lost)} label maps without an image (first: {lost[0]})')
    if others:
        notes.append(f'not used: {len(others)} other files about these images, such as {min(others)}')
    given: dict[str, list[str]] = {}
    for pairs in found:
        given.setdefault(pairs.split, []).extend(pairs.files)
    parts, lines = divide(map_of, folder, options, given=given if {*given} != {ALL} else None)
    values = read_values([folder.root / map_of[image] for part in parts.values() for image in part])
    entries, source = (
        (parse_names(options.classes), '--classes') if options.classes else choose_names(folder, values.pixels)
    )
    table = make_table(values, entries, [parse_value(text) for text in options.ignore])
    notes += [*_describe(table, values, source), *lines]
    files, datasets = {}, {}
    for split, part in parts.items():
        notes.append(f'{split}: {len(part)} images')
        datasets[split] = _describe_dataset({image: map_of[image] for image in part}, table, folder, split, files)
    if any(path.startswith('maps/') for path in files):
        notes.append('the label maps get copies beside the config, with the labels 0, 1, …')
    return Data(
        task='segments',
        root=folder.root,
        classes=table.classes,
        datasets=datasets,
        counts={split: len(part) for split, part in parts.items()},
        images=[folder.root / image for part in parts.values() for image in part],
        notes=notes,
        comment=table.comment,
        palette=table.palette,
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


def _describe_dataset(map_of: Mapping[str, str], table: Table, folder: Folder, split: str, files: dict) -> dict:
    """Return the config of the dataset of a split, and add the files that it needs beside the config.

    The maps are read where they are if they have the labels, and if image and map differ in folder and suffix alone,
    in the same way for all; otherwise they get copies.
    """
    located = {image: _locate(image, path) for image, path in map_of.items()}
    places = {place for _, place in located.values()}
    if table.converts or len(places) > 1 or '' in places:
        top = os.path.commonpath([os.path.dirname(image) for image in map_of])
        suffixes = {PurePosixPath(image).suffix for image in map_of}
        suffix = suffixes.pop() if len(suffixes) == 1 else ''
        names = {os.path.relpath(image, top or '.').removesuffix(suffix): path for image, path in map_of.items()}
        labels = table.labels if table.converts else None
        for name, path in names.items():
            files[f'maps/{split}/{name}.png'] = partial(convert, folder.root / path, labels)
        images, maps, map_suffix = top, f'{NEXT_TO_CONFIG}maps/{split}', '.png'
    else:
        ((images, suffix, maps, map_suffix),) = places
        names = [name for name, _ in located.values()]
    files[f'{split}.txt'] = partial(bytes, write_list(names))
    return dict(
        data_prefix=dict(img_path=images, seg_map_path=maps),
        img_suffix=suffix,
        seg_map_suffix=map_suffix,
        reduce_zero_label=False,
        ann_file=f'{NEXT_TO_CONFIG}{split}.txt',
    )


def _locate(image: str, path: str) -> tuple[str, tuple[str, ...] | str]:
    """Return the name that an image and its map have in common, and folder and suffix of both.

    The second is empty if the names do not begin with the same word.
    """
    images, maps = (file.split('/')[:-1] for file in (image, path))
    inner = []
    while len(images) > 1 < len(maps) and images[-1] == maps[-1] and split_of_folder(images[-1]) == ALL:
        inner.insert(0, images.pop())
        maps.pop()
    names = [os.path.basename(file) for file in (image, path)]
    starts = [start for start, _ in cuts(names[0]) if start in {start for start, _ in cuts(names[1])}]
    if not starts:
        return '', ''
    place = '/'.join(images), names[0].removeprefix(starts[-1]), '/'.join(maps), names[1].removeprefix(starts[-1])
    return '/'.join([*inner, starts[-1]]), place


def _count_alone(found: Sequence[Pairs], folder: Folder) -> int:
    """Count the images in the folders of images that have no label map, and do not begin like one that has."""
    used = paired_files(found)
    starts = {PurePosixPath(image).with_suffix('').as_posix() for image in used}
    tops = {pairs.images for pairs in found}
    alone = {join(top, path) for top in tops for path in folder.below(top)} - used
    return sum(not any(start in starts for start, _ in cuts(image)) for image in alone)


def _find_maps_without_image(found: Sequence[Pairs], folder: Folder, others: Collection[str]) -> list[str]:
    """Return the files in folders of label maps alone that are called like maps, but belong to no image.

    Args:
        found: The pairs.
        folder: The folder.
        others: Other maps of the images, which belong to one.
    """
    known = {*paired_files(found), *others}
    ends: dict[str, list[str]] = {}
    for pairs in found:
        ends.setdefault(pairs.maps, []).append(pairs.end)
    for top in {pairs.images for pairs in found} & ends.keys():
        del ends[top]
    paths = (join(top, name) for top in sorted(ends) for name in folder.by_folder[top] if name.endswith((*ends[top],)))
    return [path for path in paths if path not in known]


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
    return lines
