"""Classification: a folder per class, with or without folders of splits."""

import difflib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

from mmstvit.datasets.images import IMAGE_READER, UnreadableError
from mmstvit.errors import DataError

from .code import write_list
from .folder import ALL, Folder, assign_splits, check_single, find_split, join, relative
from .found import BESIDE, Data, Options, first_names
from .splitting import split_files

# What MMPreTrain's CustomDataset reads unless it is told more.
DEFAULT_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')
_NAME_ONE = 'Name the folder with one folder per class, or with train/ and val/: new_config.py FOLDER'
# Split -> class -> images of the class, relative to the root.
Classes = dict[str, dict[str, list[str]]]


def find_folders(folder: Folder, options: Options) -> dict[str, list[str]] | None:
    """Find the folders that hold one folder per class, by split; None if there are none."""
    top = ''
    while len(inner := _subfolders(folder, top)) == 1 and find_split(f'{inner[0]}/x') == ALL:
        top = join(top, inner[0])  # a folder around the data
    splits: dict[str, list[str]] = {}
    for name in inner:
        splits.setdefault(find_split(f'{name}/x'), []).append(join(top, name))
    named = {split: paths for split, paths in splits.items() if split != ALL}
    # A folder "train" may also be a class beside others.
    is_split = ALL not in splits or all(_subfolders(folder, paths[0]) for paths in named.values())
    found = named if named and is_split else {ALL: [top]}
    tops = [path for split, paths in found.items() for path in paths if split != 'test']
    names = {path: _subfolders(folder, path) for path in tops}
    if any(_images_in(folder, path) for path in [top, *tops]):
        return None  # images outside of the class folders
    return found if names and all(len(inner) >= 2 for inner in names.values()) else None


def _subfolders(folder: Folder, top: str) -> list[str]:
    """Return the names of the folders directly in ``top`` that have images, at any depth."""
    start = f'{top}/' if top else ''
    return sorted(
        {
            path[len(start) :].split('/')[0]
            for path in folder.images
            if '/' in path[len(start) :] and path.startswith(start)
        }
    )


def _images_in(folder: Folder, top: str) -> bool:
    return any(path.rpartition('/')[0] == top for path in folder.images)


def read_folders(found: dict[str, list[str]], folder: Folder, options: Options) -> Data:
    """Read a data set with a folder per class.

    Args:
        found: Result of :func:`find_folders`.
        folder: The folder that was scanned.
        options: Options of the command.

    Raises:
        DataError: The splits are ambiguous, or have other classes.
    """
    tops = _choose_tops(found, folder, options)
    notes = [f'a folder per class in {folder.root / top}' for top in tops.values()]
    parts: Classes = {
        split: {name: folder.below(join(top, name)) for name in _subfolders(folder, top)} for split, top in tops.items()
    }
    if 'test' in parts and not set(parts['test']) & set(parts['train']):
        notes.append(f'test: {folder.root / tops["test"]} has no class folders, for predict.py only')
        del parts['test']
    classes = sorted(parts['train'])
    _check_classes(parts, classes)
    lost = _leave_out(parts, folder, tops)
    notes += [*lost, *folder.unused(list(tops.values()))]
    extensions = sorted(
        {PurePosixPath(path).suffix.lower() for part in parts.values() for c in part.values() for path in c}
    )
    # MMPreTrain numbers the folders of each split by itself: lists are exact where it would see others.
    listed = bool(lost) or any(_folders_on_disk(folder, tops[split]) != classes for split in parts)
    if 'val' not in parts:
        parts, listed, tops['val'] = _split(parts, folder, tops['train'], options), True, tops['train']
        notes.append('split by image in every class, equal files on one side')
    datasets = {}
    for split in parts:
        datasets[split] = dict(data_prefix=tops[split])
        if listed:
            datasets[split]['ann_file'] = f'{BESIDE}{split}.txt'
        elif not set(extensions) <= set(DEFAULT_EXTENSIONS):
            datasets[split]['extensions'] = sorted({*DEFAULT_EXTENSIONS, *extensions})
    for split, part in parts.items():
        counts = first_names([f'{len(part.get(name, ()))} {name}' for name in classes])
        notes.append(f'{split}: {sum(map(len, part.values()))} images ({counts})')
    return Data(
        task='classes',
        root=folder.root,
        classes=classes,
        datasets={split: [dataset] for split, dataset in datasets.items()},
        counts={split: sum(map(len, part.values())) for split, part in parts.items()},
        images=[path for split, part in parts.items() for path in _paths(part, folder.root / tops[split])],
        notes=notes,
        comments=dict(classes='The names of the folders, sorted: MMPreTrain numbers them in this order.'),
        files={f'{split}.txt': partial(bytes, _serialize(part, classes)) for split, part in parts.items()}
        if listed
        else {},
    )


def _choose_tops(found: dict[str, list[str]], folder: Folder, options: Options) -> dict[str, str]:
    """Choose the folder of each split; without folders of splits, all is for training."""
    if options.val_fraction is None:
        path = Path(os.path.abspath(options.val))
        if not path.is_relative_to(folder.root) or not _subfolders(folder, relative(path, folder.root)):
            raise DataError(
                f'--val {options.val} is not a folder with class folders below {folder.root}.',
                'Name one, or a fraction of the images such as 0.2.',
            )
        found = {**found, 'val': [relative(path, folder.root)]}
    check_single(found, _NAME_ONE)
    return assign_splits({split: top for split, (top,) in found.items()}, 'folder', _NAME_ONE)


def _check_classes(parts: Classes, classes: list[str]) -> None:
    for split, part in parts.items():
        foreign = sorted(set(part) - set(classes))
        if foreign:
            near = difflib.get_close_matches(foreign[0], classes, n=1)
            hint = f' (train has {near[0]})' if near else ''
            raise DataError(
                f'{split} has folders that train does not have: {", ".join(foreign)}{hint}.',
                'Give the folders of a class the same name in every split.',
            )


def _leave_out(parts: Classes, folder: Folder, tops: Mapping[str, str]) -> list[str]:
    """Drop images that OpenCV cannot decode by their suffix; return a line about all files that are not used."""
    unused = Counter()
    for split, part in parts.items():
        for name, paths in part.items():
            top = join(tops[split], name)
            for suffix in sorted({PurePosixPath(path).suffix.lower() for path in paths} - set(DEFAULT_EXTENSIONS)):
                same = [path for path in paths if path.lower().endswith(suffix)]
                if not _is_readable(folder.root / top / same[0]):
                    unused[f'{suffix} (cannot be decoded)'] += len(same)
                    part[name] = paths = [path for path in paths if not path.lower().endswith(suffix)]
            unused += Counter(
                PurePosixPath(path).suffix.lower() or 'without suffix' for path in folder.others_below(top)
            )
    return [f'left out: {", ".join(f"{count} {suffix}" for suffix, count in unused.items())}'] if unused else []


def _is_readable(path: Path) -> bool:
    try:
        IMAGE_READER.read(str(path))
    except UnreadableError:
        return False
    return True


def _folders_on_disk(folder: Folder, top: str) -> list[str]:
    """Return the names of all folders in ``top``, as MMPreTrain sees them."""
    return sorted(path.name for path in (folder.root / top).iterdir() if path.is_dir())


def _paths(part: Mapping[str, list[str]], top: Path) -> Iterator[Path]:
    for name, paths in part.items():
        yield from (top / name / path for path in paths)


def _split(parts: Classes, folder: Folder, top: str, options: Options) -> Classes:
    """Take images of every class for validation out of those for training."""
    items = [(name, path) for name, paths in parts['train'].items() for path in paths]
    labels = [name for name, _ in items]
    train, val = split_files(
        [folder.root / join(top, name, path) for name, path in items], options.val_fraction, labels
    )
    both = {split: {name: [] for name in parts['train']} for split in ('train', 'val')}
    for split, indices in (('train', train), ('val', val)):
        for name, path in map(items.__getitem__, indices):
            both[split][name].append(path)
    return {**parts, **both}


def _serialize(part: Mapping[str, list[str]], classes: list[str]) -> bytes:
    return write_list(f'{name}/{path} {classes.index(name)}' for name, paths in part.items() for path in paths)
