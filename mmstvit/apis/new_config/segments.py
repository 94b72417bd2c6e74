"""Segments: pairs of images and label maps as a data set."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from mmstvit.datasets.images import MAP_READER, UnreadableError
from mmstvit.datasets.splitting import split_images
from mmstvit.errors import DataError

from .class_names import find_names, parse_names, parse_value
from .code import write_list
from .evidence import Evidence
from .folder import Folder, assign_splits, find_split, join, relative
from .label_values import IGNORED, Table, Values, convert, make_table, read_values, write
from .lists import describe_lists, find_lists
from .options import NEXT_TO_CONFIG, Data, Options, first_names
from .pairing import Pairs, find_pairs, look_at, more_maps, several_maps

_NAME_ONE = 'Name a folder with one folder of images and one of label maps, or with train and val of both.'
_SHOWN = 4
_LOOKED_AT = 24  # label maps


def look_for_label_maps(folder: Folder, options: Options) -> Evidence:
    """Collect evidence for images with label maps."""
    evidence = Evidence()
    top = None if options.maps is None else relative(options.maps, folder.root)
    found = find_pairs(folder, options.map_suffix, top)
    if top is not None and not found:
        evidence.add_against(f'no image has a label map in --maps {options.maps}')
    per_object = _maps_per_object(folder)
    if per_object:
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
        evidence.add_against(f'an image has more than one label map, such as {more}')
        evidence.remedy = 'Join the masks of an image into one label map, or take those of one ending: --map-suffix END'
    choices = several_maps(found)
    if choices:
        _explain_choice(evidence, folder, choices)
    evidence.found = _by_split(found)
    for pairs in found[:_SHOWN] if found else ():
        evidence.add_for(f'{len(pairs.files)} pairs in {pairs}, such as {pairs.example}')
    return evidence


def _by_split(found: Sequence[Pairs]) -> dict[str, list[Pairs]]:
    splits: dict[str, list[Pairs]] = {}
    for pairs in found:
        splits.setdefault(find_split(f'{pairs.images}/x'), []).append(pairs)
    return splits


def _explain_choice(evidence: Evidence, folder: Folder, choices: Sequence[Pairs]) -> None:
    """Say why images have several maps, or maps several images, and how to choose."""
    parts = {part.maps: part for part in choices}
    ends = sorted({str(part.map_suffix) for part in choices})
    if len(ends) > 1 and len({(part.images, part.maps) for part in choices}) == len({part.images for part in choices}):
        evidence.add_against(f'images have several label maps, with the ends {", ".join(ends)}')
        evidence.remedy = 'Choose one: --map-suffix END'
        return
    firsts = [folder.root / join(part.maps, next(iter(part.files.values()))) for part in parts.values()]
    binary = all(look is not None and look.values <= 2 for look in map(look_at, firsts))
    folders = ', '.join(f'{top}/' for top in parts)
    evidence.add_against(
        f'a mask for each class in a folder of its own ({folders})'
        if binary and len(parts) > 2 and len({part.images for part in choices}) == 1
        else f'images have label maps in several folders: {folders}'
    )
    evidence.remedy = (
        f'Choose one: --maps {folder.root / next(iter(parts))}; masks of several classes have to be joined into one '
        f'label map.'
    )


def _numbers_objects(folder: Folder, found: Sequence[Pairs]) -> str:
    """Describe maps in which each value from 1 is one region, up to another value in each map; empty for others."""
    paths = [path for pairs in found for _, path in pairs.paths().values()]
    highest = {}
    for path in paths[:: -(-len(paths) // _LOOKED_AT) or 1]:
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


def read_label_maps(found: Mapping[str, list[Pairs]], folder: Folder, options: Options) -> Data:
    """Read a data set of images and label maps.

    Args:
        found: Pairs by split.
        folder: The folder.
        options: Options of the command.

    Raises:
        DataError: The splits are ambiguous, or the values need names.
    """
    parts = _choose_parts(found, folder, options)
    every = [pairs for part in parts.values() for pairs in part]
    notes = [f'images with label maps: {pairs}, {len(pairs.files)} pairs such as {pairs.example}' for pairs in every]
    notes += folder.unused([top for pairs in every for top in (pairs.images, pairs.maps)])
    alone = _count_alone(every, folder)
    if alone:
        notes.append(f'left out: {alone} images without a label map')
    values = read_values([folder.root / path for pairs in every for _, path in pairs.paths().values()])
    entries, source = (parse_names(options.classes), '--classes') if options.classes else find_names(folder)
    table = make_table(values, entries, [parse_value(text) for text in options.ignore])
    notes += _describe(table, values, source)
    images = [image for pairs in every for image, _ in pairs.paths().values()]
    lists = find_lists(folder, images) if set(parts) == {'train'} and options.val is None else {}
    if lists:
        parts = _split_by_lists(parts['train'], lists)
    notes += describe_lists(folder, lists, options)
    if 'val' not in parts:
        parts, line = _split(parts, folder, options)
        notes.append(line)
    files, datasets = {}, {}
    listed = (
        bool(lists)
        or alone > 0
        or 'val' not in found
        or any(len(part) > 1 or part[0].images == part[0].maps for part in parts.values())
    )
    for split, part in parts.items():
        datasets[split] = []
        for i, pairs in enumerate(part):
            dataset, own = _describe_dataset(pairs, table, folder, f'{split}{i or ""}', listed)
            datasets[split].append(dataset)
            files |= own
    counts = {split: sum(len(pairs.files) for pairs in part) for split, part in parts.items()}
    notes += [f'{split}: {count} images' for split, count in counts.items()]
    return Data(
        task='segments',
        root=folder.root,
        classes=table.classes,
        datasets=datasets,
        counts=counts,
        images=[path for part in parts.values() for pairs in part for path in _images(pairs, folder)],
        notes=notes,
        comments=dict(classes=table.comment),
        palette=table.palette,
        reduce_zero_label=table.reduce_zero_label,
        files=files,
    )


def _describe_dataset(pairs: Pairs, table: Table, folder: Folder, name: str, listed: bool) -> tuple[dict, dict]:
    """Return the config of a dataset, and the files that it needs beside the config."""
    files = {}
    copies = table.converts or pairs.map_suffix is None
    top = f'maps/{name}'
    dataset = dict(
        data_prefix=dict(img_path=pairs.images, seg_map_path=NEXT_TO_CONFIG + top if copies else pairs.maps),
        img_suffix=pairs.image_suffix,
        seg_map_suffix='.png' if copies else pairs.map_suffix,
        reduce_zero_label=table.reduce_zero_label,
    )
    if listed or pairs.map_suffix is None:
        files[f'{name}.txt'] = partial(bytes, write_list(pairs.names))
        dataset['ann_file'] = f'{NEXT_TO_CONFIG}{name}.txt'
    if copies:
        labels = table.labels if table.converts else None
        for name, (_, path) in pairs.paths().items():
            files[f'{top}/{name}.png'] = partial(convert, folder.root / path, labels)
    return dataset, files


def _images(pairs: Pairs, folder: Folder) -> list[Path]:
    return [folder.root / image for image, _ in pairs.paths().values()]


def _choose_parts(found: Mapping[str, list[Pairs]], folder: Folder, options: Options) -> dict[str, list[Pairs]]:
    """Choose the pairs of each split; without folders of splits, all is for training."""
    parts = dict(found)
    if options.val_fraction is None:
        top = relative(Path(options.val), folder.root)
        chosen = [pairs for part in parts.values() for pairs in part if pairs.images == top]
        if not chosen:
            known = ', '.join(str(folder.root / pairs.images) for part in parts.values() for pairs in part)
            raise DataError(f'--val {options.val} is not a folder of images with label maps.', f'Name one of: {known}')
        parts = {split: [p for p in part if p not in chosen] for split, part in parts.items() if split != 'val'}
        parts = {split: part for split, part in parts.items() if part} | {'val': chosen}
    return assign_splits(parts, 'folder', _NAME_ONE)


def _count_alone(every: Sequence[Pairs], folder: Folder) -> int:
    """Count the images in the folders of images that have no label map."""
    used = {path for pairs in every for both in pairs.paths().values() for path in both}
    tops = {pairs.images for pairs in every}
    return sum(join(top, path) not in used for top in tops for path in folder.below(top))


def _split_by_lists(every: Sequence[Pairs], lists: Mapping[str, tuple[str, list[str]]]) -> dict[str, list[Pairs]]:
    """Divide pairs by the lists of images."""
    parts: dict[str, list[Pairs]] = {}
    for split, (_, images) in lists.items():
        named = set(images)
        for pairs in every:
            names = [name for name, (image, _) in pairs.paths().items() if image in named]
            if names:
                parts.setdefault(split, []).append(pairs.select(names))
    return parts


def _split(parts: Mapping[str, list[Pairs]], folder: Folder, options: Options) -> tuple[dict[str, list[Pairs]], str]:
    """Take images for validation out of those for training; returns also a line about it."""
    items = [(i, name) for i, pairs in enumerate(parts['train']) for name in pairs.names]
    files = [path for pairs in parts['train'] for path in _images(pairs, folder)]
    split = split_images(files, fraction=options.val_fraction)
    both: dict[str, list[Pairs]] = {}
    for name, indices in (('train', split.train), ('val', split.val)):
        names: dict[int, list[str]] = {}
        for i, image in map(items.__getitem__, indices):
            names.setdefault(i, []).append(image)
        both[name] = [parts['train'][i].select(part) for i, part in names.items()]
    return {**parts, **both}, split.describe()


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
