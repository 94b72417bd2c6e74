"""Classes: a folder per class, with or without folders of splits."""

import difflib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

from mmstvit.datasets.images import IMAGE_READER, UnreadableError
from mmstvit.datasets.splitting import split_images
from mmstvit.errors import DataError

from .code import write_list
from .evidence import Evidence
from .folder import ALL, Folder, assign_splits, check_single, find_split, join, relative
from .lists import describe_lists, find_lists
from .options import NEXT_TO_CONFIG, Data, Options, first_names
from .pairing import has_map_word

# What MMPreTrain's CustomDataset reads unless it is told more.
DEFAULT_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')
_NAME_ONE = 'Name the folder with one folder per class, or with train/ and val/: new_config.py FOLDER'
# Names of folders that say what the files are, not which class they show.
_NO_CLASS = ('image', 'images', 'img', 'imgs', 'jpegimages', 'frames', 'input', 'inputs', 'original', 'originals',
             'output', 'outputs', 'photos', 'pictures', 'predictions', 'raw', 'results', 'rgb')  # fmt: skip
# Split -> class -> images of the class, relative to the root.
Classes = dict[str, dict[str, list[str]]]


def look_for_class_folders(folder: Folder, options: Options) -> Evidence:
    """Collect evidence for one folder of images per class."""
    evidence = Evidence()
    # Without a folder of validation, if its part is given as a fraction.
    found = {split: tops for split, tops in _find_tops(folder).items() if split != 'val' or options.val is None}
    names = {split: [folder.subfolders(top) for top in tops] for split, tops in found.items()}
    if not any(len(inner) > 1 for inners in names.values() for inner in inners):
        return evidence
    evidence.found = found
    for split, tops in found.items():
        for top, inner in zip(tops, names[split], strict=True):
            if len(inner) > 1:
                evidence.add_for(f'{len(inner)} folders of images in {top or "the folder"}: {first_names(inner, 4)}')
            elif split != 'test':
                evidence.add_against(f'{top}/ has no folders of classes (it has {_first_image(folder, top)})')
                evidence.remedy = 'Sort its images into the folders of their classes, or remove it and use --val 0.2.'
    tops = [top for split, paths in found.items() if split != 'test' for top in paths]
    strays = [path for top in dict.fromkeys(['', *tops]) for path in _images_in(folder, top)]
    if strays and not options.skip_stray:
        evidence.add_against(f'{len(strays)} images are beside the folders of classes, such as {strays[0]}')
        evidence.remedy = evidence.remedy or 'Move them, or leave them out with --skip-stray.'
    telling = [
        name for inners in names.values() for inner in inners for name in inner[1:] and inner if _says_no_class(name)
    ]
    if telling:
        evidence.add_against(f'a folder is called {telling[0]}')
    for split, tops in found.items():
        for top, inner in zip(tops, names[split], strict=True):
            if not_classes := _same_inside(folder, top, inner) or _splits_among(inner):
                evidence.add_against(not_classes)
                evidence.remedy = evidence.remedy or 'Name the folder whose folders are the classes.'
    described = _described_images(folder)
    if described:
        evidence.add_against(described)
    return evidence


def _says_no_class(name: str) -> bool:
    return name.lower() in _NO_CLASS or (has_map_word(name) and name.lower().isalpha())


def _first_image(folder: Folder, top: str) -> str:
    return join(top, next(iter(folder.below(top)), 'no images'))


def _described_images(folder: Folder) -> str:
    """Return a line if most images have a file of annotations of the same name, anywhere; else an empty string."""
    files = {PurePosixPath(path).stem: path for path in folder.with_suffix('.json', '.xml', '.txt')}
    described = [files[stem] for path in folder.images if (stem := PurePosixPath(path).stem) in files]
    if 2 * len(described) <= len(folder.images):
        return ''
    return f'most images have a file of the same name, such as {described[0]}'


def _same_inside(folder: Folder, top: str, names: list[str]) -> str:
    """Describe the folders that most of the folders of classes have in them; empty if they differ."""
    inner = [set(folder.subfolders(join(top, name))) for name in names]
    shared = set.intersection(*inner) if inner else set()
    if len(shared) < 2:
        return ''
    where = top or 'the folder'
    return f'{first_names(names, 3)} in {where} have the same folders in them: {first_names(sorted(shared), 3)}'


def _splits_among(names: list[str]) -> str:
    """Say which folders are called like splits; empty for fewer than two ("train" may be a class of vehicles)."""
    splits = {find_split(f'{name}/x'): name for name in names}
    splits.pop(ALL, None)
    return f'{" and ".join(sorted(splits.values()))} are called like splits' if len(splits) > 1 else ''


def _find_tops(folder: Folder) -> dict[str, list[str]]:
    """Find the folders that hold the folders of classes, by split; folders around them are passed."""
    top = ''
    while len(inner := folder.subfolders(top)) == 1 and not _images_in(folder, top) and _no_split(inner[0]):
        top = join(top, inner[0])
    splits: dict[str, list[str]] = {}
    for name in inner:
        splits.setdefault(find_split(f'{name}/x'), []).append(_innermost(folder, join(top, name)))
    named = {split: paths for split, paths in splits.items() if split != ALL}
    # A folder "train" may also be a class beside others.
    is_split = ALL not in splits or all(folder.subfolders(paths[0]) for paths in named.values())
    return named if named and is_split else {ALL: [top]}


def _no_split(name: str) -> bool:
    return find_split(f'{name}/x') == ALL


def _innermost(folder: Folder, top: str) -> str:
    """Return the folder in a folder, as in train/train/ant."""
    while len(inner := folder.subfolders(top)) == 1 and not _images_in(folder, top):
        if len(folder.subfolders(join(top, inner[0]))) < 2:
            break
        top = join(top, inner[0])
    return top


def _images_in(folder: Folder, top: str) -> list[str]:
    return [join(top, name) for name in folder.by_folder.get(top, ())]


def read_class_folders(found: dict[str, list[str]], folder: Folder, options: Options) -> Data:
    """Read a data set with a folder per class.

    Args:
        found: Folders that hold those of the classes, by split.
        folder: The folder.
        options: Options of the command.

    Raises:
        DataError: The splits are ambiguous, or have other classes.
    """
    tops = _choose_tops(found, folder, options)
    notes = [f'a folder per class in {folder.root / top}' for top in tops.values()]
    parts: Classes = {
        split: {name: folder.below(join(top, name)) for name in folder.subfolders(top)} for split, top in tops.items()
    }
    if 'test' in parts and not set(parts['test']) & set(parts['train']):
        notes.append(f'test: {folder.root / tops["test"]} has no class folders, for predict.py only')
        del parts['test']
    classes = sorted(parts['train'])
    _check_classes(parts, classes)
    lost = _leave_out(parts, folder, tops)
    notes += [*lost, *folder.unused(list(tops.values()))]
    strays = [path for split in parts for path in _images_in(folder, tops[split])]
    if strays:
        notes.append(f'left out: {len(strays)} images beside the folders of classes (first: {strays[0]})')
    extensions = sorted(
        {PurePosixPath(path).suffix.lower() for part in parts.values() for c in part.values() for path in c}
    )
    # MMPreTrain numbers the folders of each split by itself: lists are exact where it would see others.
    listed = bool(lost or strays) or any(_folders_on_disk(folder, tops[split]) != classes for split in parts)
    lists = find_lists(folder, folder.images) if set(parts) == {'train'} and options.val is None else {}
    if lists:
        parts, listed = _split_by_lists(parts['train'], tops['train'], lists), True
        tops = dict.fromkeys(parts, tops['train'])
    notes += describe_lists(folder, lists, options)
    if 'val' not in parts:
        parts, line = _split(parts, folder, tops['train'], options)
        listed, tops['val'] = True, tops['train']
        notes.append(line)
    datasets = {}
    for split in parts:
        datasets[split] = dict(data_prefix=tops[split])
        if listed:
            datasets[split]['ann_file'] = f'{NEXT_TO_CONFIG}{split}.txt'
        elif not set(extensions) <= set(DEFAULT_EXTENSIONS):
            datasets[split]['extensions'] = sorted({*DEFAULT_EXTENSIONS, *extensions})
    for split, part in parts.items():
        counts = first_names([f'{len(part.get(name, ()))} {name}' for name in classes])
        notes.append(f'{split}: {sum(map(len, part.values()))} images ({counts})')
    files = {f'{split}.txt': partial(bytes, _list_images(part, classes)) for split, part in parts.items()}
    return Data(
        task='classes',
        root=folder.root,
        classes=classes,
        datasets={split: [dataset] for split, dataset in datasets.items()},
        counts={split: sum(map(len, part.values())) for split, part in parts.items()},
        images=[path for split, part in parts.items() for path in _paths(part, folder.root / tops[split])],
        notes=notes,
        comments=dict(classes='The names of the folders, sorted: MMPreTrain numbers them in this order.'),
        files=files if listed else {},
    )


def _choose_tops(found: dict[str, list[str]], folder: Folder, options: Options) -> dict[str, str]:
    """Choose the folder of each split; without folders of splits, all is for training."""
    found = {split: tops for split, tops in found.items() if split != 'val' or options.val is None}
    if options.val_fraction is None:
        path = Path(os.path.abspath(options.val))
        if not path.is_relative_to(folder.root) or not folder.subfolders(relative(path, folder.root)):
            raise DataError(
                f'--val {options.val} is not a folder with class folders below {folder.root}.',
                'Name one, or a fraction of the images such as 0.2.',
            )
        found['val'] = [relative(path, folder.root)]
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


def _split_by_lists(part: Mapping[str, list[str]], top: str, lists: Mapping[str, tuple[str, list[str]]]) -> Classes:
    """Divide the images of the classes by lists."""
    return {
        split: {name: [path for path in paths if join(top, name, path) in named] for name, paths in part.items()}
        for split, named in ((split, set(images)) for split, (_, images) in lists.items())
    }


def _split(parts: Classes, folder: Folder, top: str, options: Options) -> tuple[Classes, str]:
    """Take images of every class for validation out of those for training; returns also a line about it."""
    items = [(name, path) for name, paths in parts['train'].items() for path in paths]
    paths = [folder.root / join(top, name, path) for name, path in items]
    split = split_images(paths, [{name} for name, _ in items], options.val_fraction)
    both = {name: {label: [] for label in parts['train']} for name in ('train', 'val')}
    for part, indices in (('train', split.train), ('val', split.val)):
        for name, path in map(items.__getitem__, indices):
            both[part][name].append(path)
    return {**parts, **both}, split.describe()


def _list_images(part: Mapping[str, list[str]], classes: list[str]) -> bytes:
    return write_list(f'{name}/{path} {classes.index(name)}' for name, paths in part.items() for path in paths)
