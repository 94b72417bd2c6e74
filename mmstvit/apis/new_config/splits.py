"""The images for training, validation and test: as lists or folders say, or else by chance."""

import csv
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from pathlib import Path, PurePosixPath

from mmstvit.datasets.json_files import read_json
from mmstvit.datasets.splitting import split_images
from mmstvit.errors import DataError

from .class_names import read_text
from .folder import ALL, SPLIT_NAMES, SPLITS, Folder, assign_splits, find_split, relative, split_of_folder
from .options import Options

_SUFFIXES = ('.txt', '.csv', '.lst', '.list', '.train', '.val', '.valid', '.test')
_LARGEST = 1 << 26  # bytes of a JSON file
_SPLIT_KEY = re.compile(r'"train(ing)?"\s*:\s*\[')
_NAME_ONE = 'Name a folder in which train, val and test are folders, or which has no splits.'
Parts = dict[str, list[str]]  # split -> images


def divide(
    images: Iterable[str],
    folder: Folder,
    options: Options,
    classes: Mapping[str, object] | None = None,
    given: Mapping[str, Sequence[str]] | None = None,
    split_of: Callable[[str], str] | None = None,
    take_val: bool = True,
) -> tuple[Parts, list[str]]:
    """Divide the images of a data set.

    The first of these decides: ``--val FOLDER``; what the format says; the names of folders, or of all files; lists
    such as train.txt.

    Args:
        images: The images, relative to the root.
        folder: The folder.
        options: Options of the command.
        classes: Image -> its class, of which each part gets some.
        given: Split -> its images, if the format says it.
        split_of: Finds the split of an image; None looks at its path.
        take_val: Without images for validation, take a part of those for training.

    Returns:
        Split -> images, in order; and what was found, line by line.

    Raises:
        DataError: It is not clear which images are for training.
    """
    images, notes = list(images), []
    parts: Parts = {}
    for split, image in zip(map(split_of or _split_of_path(images), images), images, strict=True):
        parts.setdefault(split, []).append(image)
    if options.val_fraction is None:
        top = relative(Path(options.val), folder.root)
        chosen = [image for image in images if image.startswith(f'{top}/')]
        if not chosen:
            raise DataError(f'--val {options.val} is not a folder of images of the data.', 'Name one, or a fraction.')
        taken = {*chosen}
        others = {split: [image for image in part if image not in taken] for split, part in parts.items()}
        train = [*others.get('train', ()), *others.get(ALL, ())]
        parts = {'train': train, 'val': chosen} | ({'test': others['test']} if others.get('test') else {})
    elif given and any(given.values()):
        parts = {split: [*part] for split, part in given.items() if part}
    elif 'val' not in parts and options.val is None:
        lists = _find_lists(folder, images) or _find_json_lists(folder, images) or _find_tables(folder, images)
        notes += [f'{split}: the images that {file} lists' for split, (file, _) in lists.items()]
        folder.lists.update(file for file, _ in lists.values())
        parts = {split: named for split, (_, named) in lists.items()} or parts
        if not lists and (unread := _find_unread_lists(folder)):
            line = next((line for line in read_text(folder.root / unread).splitlines() if line.strip()), '')
            raise DataError(
                f'{folder.root / unread} seems to say which images are for training, but its first line is no image '
                f'here: {line.strip()[:80]!r}.',
                'Write lists train.txt and val.txt with an image per line, or ignore it with --val 0.2.',
            )
    if not parts.keys() & {ALL, 'train'}:
        if options.val_fraction is None or options.val is None:
            raise DataError(
                f'Only images for {" and ".join(parts)} have annotations, such as {images[0]}; none is for training.',
                'Divide these images into train and val with --val 0.2, or annotate images for training.',
            )
        parts = {ALL: images}
    outside = parts.get(ALL, images)[0].split('/')[0]
    parts = assign_splits(
        parts, 'image', f'If it is for validation: --val {shlex.quote(str(folder.root / outside))}. {_NAME_ONE}'
    )
    if alone := len({*images}.difference(*parts.values())):
        notes.append(f'not used: {alone} images that no list names')
    if options.val is not None and options.val_fraction is not None and 'val' in parts:
        notes.append(f'not used: {len(parts.pop("val"))} images of val, which --val replaces')
    if take_val and 'val' not in parts:
        train = parts['train']
        split = split_images(
            [folder.root / image for image in train],
            [{classes[image]} for image in train] if classes else (),
            options.val_fraction,
        )
        parts |= dict(train=[train[i] for i in split.train], val=[train[i] for i in split.val])
        notes.append(split.describe())
    return {split: parts[split] for split in SPLITS if split in parts}, notes


def _split_of_path(images: Sequence[str]) -> Callable[[str], str]:
    """Return what finds the split of an image: its folders, or its own name if all names say one."""
    by_folder = {image: split_of_folder(image.rpartition('/')[0]) for image in images}
    by_name = {image: find_split(image.rpartition('/')[2]) for image in images}
    named = set(by_folder.values()) == {ALL} and ALL not in by_name.values()
    return (by_name if named else by_folder).__getitem__


def _find_lists(folder: Folder, images: Iterable[str]) -> dict[str, tuple[str, list[str]]]:
    """Find lists of images, such as train.txt and val.txt.

    Lists that name an image of others, such as those of each class or trainval.txt, are not taken.

    Args:
        folder: The folder.
        images: The images, relative to the root.

    Returns:
        Split -> the first list and the images of all; empty if no list is for training.
    """
    images = set(images)
    lists = [(file, named) for file in _list_files(folder) if (named := _read_list(folder, file, images))]
    foreign = {os.path.dirname(file) for file, named in lists if not named <= images}  # for other data
    lists.sort(key=lambda i: (os.path.dirname(i[0]) in foreign, 'trainval' in i[0], len(_words(i[0])), -len(i[1])))
    found: dict[str, tuple[str, list[str]]] = {}
    taken: set[str] = set()
    for file, named in lists:
        if named & images and taken.isdisjoint(named):
            taken |= named
            found.setdefault(_split_of_list(file), (file, []))[1].extend(sorted(named & images))
    return {split: found[split] for split in SPLITS if split in found} if 'train' in found else {}


def _find_json_lists(folder: Folder, images: Iterable[str]) -> dict[str, tuple[str, list[str]]]:
    """Find a JSON file with a list of images for each split, such as ``{"train": ["1.jpg", …], "test": […]}``.

    Entries are names, also of annotation files, or objects with one.

    Returns:
        As :func:`_find_lists`.

    Raises:
        DataError: The file names other images.
    """
    images = set(images)
    for file in folder.with_suffix('.json'):
        path = folder.root / file
        if path.stat().st_size > _LARGEST or not _SPLIT_KEY.search(folder.read_head(file)):
            continue
        content = read_json(path)
        content = content if isinstance(content, Mapping) else {}
        parts = {
            SPLIT_NAMES[key]: part for key, part in content.items() if key in SPLIT_NAMES and isinstance(part, list)
        }
        if 'train' not in parts or len(parts) < 2:
            continue
        found = {split: [_find_named(folder, file, entry, images) for entry in part] for split, part in parts.items()}
        if lost := [parts[split][named.index(None)] for split, named in found.items() if None in named]:
            raise DataError(
                f'{path} seems to say which images are for training, but names {str(lost[0])[:80]!r}: not here.',
                'Correct or remove the file, or ignore it with --val 0.2.',
            )
        return {split: (file, [*dict.fromkeys(found[split])]) for split in SPLITS if split in found}
    return {}


def _find_tables(folder: Folder, images: Iterable[str]) -> dict[str, tuple[str, list[str]]]:
    """Find tables with a column of images and one of their splits, such as ``image,split``.

    Returns:
        As :func:`_find_lists`, with the files joined by commas.
    """
    images, files = set(images), []
    found: dict[str, list[str]] = {}
    for file in folder.with_suffix('.csv', '.tsv'):
        try:
            lines = read_text(folder.root / file).splitlines()
            _, *rows = csv.reader(lines, delimiter=max('\t;,', key=''.join(lines[:1]).count))
        except (DataError, ValueError, csv.Error):  # another kind of table, or an empty one
            continue
        columns = [[cell.strip() for cell in cells] for cells in zip(*rows, strict=False)]
        splits = next((cells for cells in columns if {cell.lower() for cell in cells} <= SPLIT_NAMES.keys()), None)
        near = file.rpartition('/')[0]
        named = ([folder.find_image(cell, near, images) for cell in cells] for cells in columns if splits)
        if part := next((part for part in named if part.count(None) < 0.2 * len(part)), None):
            files.append(file)
            folder.lists.add(file)
            for image, split in zip(part, splits, strict=True):
                found.setdefault(SPLIT_NAMES[split.lower()], []).extend([image] if image else [])
    return {split: (', '.join(files), found[split]) for split in SPLITS if split in found} if 'train' in found else {}


def _find_named(folder: Folder, file: str, entry: object, images: Set[str]) -> str | None:
    """Return the image that an entry names, by its name or that of its annotation file."""
    texts = [entry] if isinstance(entry, str) else [*entry.values()] if isinstance(entry, Mapping) else []
    near = file.rpartition('/')[0]
    texts = [text for text in texts if isinstance(text, str)]
    names = (name for text in texts for name in (text, text[: -len(PurePosixPath(text).suffix) or None]))
    return next((image for name in names if name and (image := folder.find_image(name, near, images))), None)


def _list_files(folder: Folder) -> list[str]:
    """Return the files whose names say a split, and that do not belong to one image."""
    files = folder.with_suffix(*_SUFFIXES)
    return [file for file in files if _split_of_list(file) != ALL and not folder.images_named(PurePosixPath(file).stem)]


def _split_of_list(file: str) -> str:
    """Find the split in the name of a list, such as train.txt or ants.train."""
    return find_split(PurePosixPath(file).name.replace('.', '_'))


def _read_list(folder: Folder, file: str, images: Set[str]) -> set[str]:
    """Return the images that a list names, one at the beginning of each line; empty for a file of another form.

    Args:
        folder: The folder.
        file: The list.
        images: The images of the data set, which are preferred to others.
    """
    lines = {line.strip() for line in read_text(folder.root / file).splitlines() if line.strip()}
    if file.endswith('.csv') and any(',' in line or ';' in line for line in lines):
        return set()
    near, found = file.rpartition('/')[0], set()
    for line in lines:
        texts = (line, re.split(r'[\s,;]', line)[0])
        named = (folder.find_image(text, near, among) for among in (images, None) for text in texts)
        found |= {next((image for image in named if image is not None), None)} - {None}
    return found if len(found) > 0.8 * len(lines) else set()


def _find_unread_lists(folder: Folder) -> str:
    """Return a file that seems to say which images are for training; empty if there is none."""
    by_place: dict[Path, dict[str, str]] = {}
    for file in _list_files(folder):
        if not file.endswith('.csv'):
            by_place.setdefault(PurePosixPath(file).parent, {})[_split_of_list(file)] = file
    several = (files['train'] for files in by_place.values() if 'train' in files and len(files) > 1)
    called = (file for file in folder.with_suffix(*_SUFFIXES) if 'split' in _words(file))
    return next(iter((*several, *called)), '')


def _words(file: str) -> list[str]:
    return re.findall(r'[a-z]+|\d+', PurePosixPath(file).stem.lower())
