"""Classes: a folder per class, with or without folders of splits."""

import difflib
import os
import re
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from mmstvit.datasets.images import IMAGE_READER, UnreadableError
from mmstvit.datasets.splitting import group_copies
from mmstvit.errors import DataError

from .code import write_list
from .evidence import Evidence
from .folder import ALL, Folder, assign_splits, check_single, has_map_word, join, relative, split_of_folder
from .options import NEXT_TO_CONFIG, Data, Options, first_names
from .pairing import find_maps_inside, has_masks
from .splits import divide

# What MMPreTrain's CustomDataset reads unless it is told more.
DEFAULT_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')
_SAMPLE = 5  # images of which those of one name in two folders are compared
_NAME_ONE = 'Name the folder with one folder per class, or with train/ and val/: new_config.py FOLDER'
# Names of parts of the data, such as seq1 or HAM10000_images_part_2.
_PART = re.compile(
    r'(.*[\W_])?(batch|cam|camera|case|clip|fold|part|patient|scene|seq|sequence|session|subject|tile|video)[\W_]*\d+',
    re.I,
)
# Names of folders that say what the files are, not which class they show.
_NO_CLASS = ('image', 'images', 'img', 'imgs', 'jpegimages', 'frames', 'input', 'inputs', 'original', 'originals',
             'output', 'outputs', 'photos', 'pictures', 'predictions', 'raw', 'results', 'rgb')  # fmt: skip


@dataclass(frozen=True)
class ClassFolders:
    """Folders of images per class.

    Args:
        tops: Split -> folders that hold those of the classes.
        maps: Label maps in the folders of classes, which are no images of the class.
    """

    tops: dict[str, list[str]]
    maps: Set[str]


def look_for_class_folders(folder: Folder, options: Options) -> Evidence:
    """Collect evidence for one folder of images per class."""
    evidence = Evidence()
    found = _find_tops(folder)
    if options.val is not None:  # the option decides about validation
        found.pop('val', None)
    names = {top: folder.subfolders(top) for tops in found.values() for top in tops}
    if not any(len(inner) > 1 for inner in names.values()):
        return evidence
    maps = find_maps_inside(folder, [join(top, name) for top in names for name in names[top]])
    folder = folder.without(maps)
    evidence.found = ClassFolders(found, maps)
    listed = first_names(sorted({name for inner in names.values() if len(inner) > 1 for name in inner}), 4)
    evidence.images = {
        join(top, name, path) for top in names for name in names[top] for path in folder.below(join(top, name))
    }
    evidence.decide = f'If {listed} are the classes: --task classes.'
    for split, top in ((split, top) for split, tops in found.items() for top in tops):
        if len(names[top]) > 1:
            evidence.add_for(f'{len(names[top])} folders of images in {_say(top)}: {first_names(names[top], 4)}')
        elif split != 'test':
            first = join(top, next(iter(folder.below(top)), 'no images'))
            evidence.add_against(
                f'{top}/ has no folders of classes (it has {first})',
                'Sort its images into the folders of their classes, or remove it and use --val 0.2.',
            )
    tops = [top for split, paths in found.items() if split != 'test' for top in paths]
    strays = [path for top in dict.fromkeys(['', *tops]) for path in _images_in(folder, top)]
    if strays and not options.skip_stray:
        evidence.add_against(
            f'{len(strays)} images are beside the folders of classes, such as {strays[0]}',
            'Move them, or leave them out with --skip-stray.',
        )
    for top, inner in ((top, names[top]) for split in found if split not in ('val', 'test') for top in found[split]):
        if reason := _maps(folder, top, inner):
            evidence.add_against(reason)
            evidence.decide = None
        reasons = [_no_classes(inner), _same_files(folder, top, inner), _copies(folder, top, inner)]
        for reason in filter(None, reasons):
            evidence.add_against(reason)
        if reason := _folders_inside(folder, top, inner):
            shared = 'the same folders' in reason
            evidence.add_against(reason, 'Name the folder whose folders are the classes.' if shared else '')
    return evidence


def _say(top: str) -> str:
    return top or 'the folder'


def _no_classes(names: list[str]) -> str:
    """Say which of several folders are called like something else than classes; empty if none is."""
    called = [name for name in names if name.lower() in _NO_CLASS or (name.isalpha() and has_map_word(name))]
    if called and len(names) > 1:
        return f'a folder is called {called[0]}'
    if len(names) > 1 and all(map(_PART.fullmatch, names)):
        return f'{first_names(names, 3)} are called like parts of the data'
    splits = {split_of_folder(name): name for name in names}
    splits.pop(ALL, None)  # one alone may be a class: "train" of vehicles
    return f'{" and ".join(sorted(splits.values()))} are called like splits' if len(splits) > 1 else ''


def _folders_inside(folder: Folder, top: str, names: list[str]) -> str:
    """Describe folders in the folders of classes; empty if no class has several."""
    inner = {name: folder.subfolders(join(top, name)) for name in names}
    nested = [name for name in names if len(inner[name]) > 1]
    if not nested:
        return ''
    shared = sorted(set.intersection(*map(set, inner.values())))
    what = f'have the same folders in them: {first_names(shared, 3)}'
    if len(shared) < 2:
        what = f'have folders in them: {first_names([join(nested[0], name) for name in inner[nested[0]]], 3)}'
    return f'{first_names(nested, 3)} in {_say(top)} {what}'


def _maps(folder: Folder, top: str, names: list[str]) -> str:
    """Say which folder has masks or label maps where another has photographs; empty if all look alike."""
    places = [join(top, name) for name in names]
    maps = [place for place in places if has_masks(folder, [join(place, path) for path in folder.below(place)])]
    photos = [place for place in places if place not in maps]
    return f'{maps[0]} has masks or label maps, {photos[0]} has photographs' if maps and photos else ''


def _same_files(folder: Folder, top: str, names: list[str]) -> str:
    """Name a file, not an image, that each folder has, as sequences of a video have; empty if there is none."""
    files = [{*folder.others_below(join(top, name))} for name in names]
    shared = set.intersection(*files) if len(names) > 1 else set()
    return f'each folder in {_say(top)} has a file {min(shared)}' if shared else ''


def _copies(folder: Folder, top: str, names: list[str]) -> str:
    """Name images of one name in two folders that look alike, as sharp and blurred ones do; empty if none do."""
    one, other = ({*folder.below(join(top, name))} for name in names[:2]) if len(names) > 1 else (set(), set())
    shared = sorted(one & other)[:_SAMPLE]
    for name in shared:
        if group_copies([folder.root / top / names[0] / name, folder.root / top / names[1] / name]).count > 1:
            return ''
    return f'{join(top, names[0], shared[0])} looks like {join(top, names[1], shared[0])}' if len(shared) > 1 else ''


def _find_tops(folder: Folder) -> dict[str, list[str]]:
    """Find the folders that hold the folders of classes, by split; folders around them are passed."""
    top = ''
    while len(inner := folder.subfolders(top)) == 1 and not _images_in(folder, top):
        if split_of_folder(inner[0]) != ALL:
            break
        top = join(top, inner[0])
    splits: dict[str, list[str]] = {}
    for name in inner:
        splits.setdefault(split_of_folder(name), []).append(_innermost(folder, join(top, name)))
    named = {split: paths for split, paths in splits.items() if split != ALL}
    # A folder "train" may also be a class beside others.
    if not named or (ALL in splits and not all(folder.subfolders(paths[0]) for paths in named.values())):
        return {ALL: [top]}
    # Of several folders for a split, those with classes, such as Test beside test-more.
    return {split: [top for top in tops if folder.subfolders(top)] or tops for split, tops in named.items()}


def _innermost(folder: Folder, top: str) -> str:
    """Return the folder in a folder, as in train/train/ant."""
    while len(inner := folder.subfolders(top)) == 1 and not _images_in(folder, top):
        if len(folder.subfolders(join(top, inner[0]))) < 2:
            break
        top = join(top, inner[0])
    return top


def _images_in(folder: Folder, top: str) -> list[str]:
    return [join(top, name) for name in folder.by_folder.get(top, ())]


def read_class_folders(found: ClassFolders, folder: Folder, options: Options) -> Data:
    """Read a data set with a folder per class.

    Args:
        found: The folders of classes.
        folder: The folder.
        options: Options of the command.

    Raises:
        DataError: The splits are ambiguous, or have other classes.
    """
    folder = folder.without(found.maps)
    tops = _choose_tops(found.tops, folder, options)
    names = {split: folder.subfolders(top) for split, top in tops.items()}
    notes = [f'a folder per class in {folder.root / top}' for top in tops.values()]
    if 'test' in tops and not set(names['test']) & set(names['train']):
        notes.append(f'test: {folder.root / tops.pop("test")} has no class folders, for predict.py only')
    _check_classes({split: names[split] for split in tops}, classes := names['train'])
    of_class = {
        join(tops[split], name, path): (name, split)
        for split in tops
        for name in names[split]
        for path in folder.below(join(tops[split], name))
    }
    lost = _find_unreadable(of_class, folder)
    notes += [*_describe_lost(lost, folder, tops), *folder.unused(list(tops.values()))]
    if found.maps:
        notes.append(f'left out: {len(found.maps)} label maps beside images (first: {min(found.maps)})')
    strays = [path for top in tops.values() for path in _images_in(folder, top)]
    if strays:
        notes.append(f'left out: {len(strays)} images beside the folders of classes (first: {strays[0]})')
    used = {image: name for image, (name, _) in of_class.items() if image not in lost}
    parts, lines = divide(used, folder, options, used, split_of=lambda image: of_class[image][1])
    notes += lines
    # MMPreTrain numbers the folders of each split by itself: lists are exact where it would see others.
    listed = bool(lost or strays or found.maps) or set(parts) != set(tops) or sum(map(len, parts.values())) < len(used)
    listed |= any(_folders_on_disk(folder, top) != classes for top in tops.values())
    listed |= not {PurePosixPath(image).suffix.lower() for image in used} <= set(DEFAULT_EXTENSIONS)
    datasets, files = {}, {}
    for split, part in parts.items():
        top = tops.get(split, tops['train']) if len(tops) > 1 else tops['train']
        datasets[split] = [dict(data_prefix=top)]
        if listed:
            datasets[split][0]['ann_file'] = f'{NEXT_TO_CONFIG}{split}.txt'
            lines = [f'{image[len(top) :].lstrip("/")} {classes.index(used[image])}' for image in part]
            files[f'{split}.txt'] = partial(bytes, write_list(lines))
        counts = Counter(map(used.get, part))
        shares = first_names([f'{counts[name]} {name}' for name in classes])
        notes.append(f'{split}: {len(part)} images ({shares})')
    return Data(
        task='classes',
        root=folder.root,
        classes=classes,
        datasets=datasets,
        counts={split: len(part) for split, part in parts.items()},
        images=[folder.root / image for part in parts.values() for image in part],
        notes=notes,
        comments=dict(classes='The names of the folders, sorted: MMPreTrain numbers them in this order.'),
        files=files,
    )


def _choose_tops(found: dict[str, list[str]], folder: Folder, options: Options) -> dict[str, str]:
    """Choose the folder of each split; without folders of splits, all is for training."""
    if options.val_fraction is None:
        top = relative(Path(options.val), folder.root)
        if not folder.subfolders(top) or top.startswith('/'):
            raise DataError(
                f'--val {options.val} is not a folder with class folders below {folder.root}.',
                'Name one, or a fraction of the images such as 0.2.',
            )
        found = {**found, 'val': [top]}
    check_single(found, _NAME_ONE)
    return assign_splits({split: top for split, (top,) in found.items()}, 'folder', _NAME_ONE)


def _check_classes(parts: Mapping[str, list[str]], classes: list[str]) -> None:
    for split, names in parts.items():
        foreign = sorted(set(names) - set(classes))
        if foreign:
            near = difflib.get_close_matches(foreign[0], classes, n=1)
            hint = f' (train has {near[0]})' if near else ''
            raise DataError(
                f'{split} has folders that train does not have: {", ".join(foreign)}{hint}.',
                'Give the folders of a class the same name in every split.',
            )


def _find_unreadable(images: Mapping[str, object], folder: Folder) -> set[str]:
    """Return the images of the suffixes of which OpenCV cannot decode the first file of a folder."""
    groups: dict[tuple[str, str], list[str]] = {}
    for image in images:
        pure = PurePosixPath(image)
        if pure.suffix.lower() not in DEFAULT_EXTENSIONS:
            groups.setdefault((pure.parent.as_posix(), pure.suffix.lower()), []).append(image)
    return {image for group in groups.values() if not _is_readable(folder, group[0]) for image in group}


def _is_readable(folder: Folder, image: str) -> bool:
    try:
        IMAGE_READER.read(str(folder.root / image))
    except UnreadableError:
        return False
    return True


def _describe_lost(lost: set[str], folder: Folder, tops: Mapping[str, str]) -> list[str]:
    """Return a line about all files in the folders of classes that are not used."""
    unused = Counter(f'{PurePosixPath(image).suffix.lower()} (cannot be decoded)' for image in sorted(lost))
    for inner in (join(top, name) for top in tops.values() for name in folder.subfolders(top)):
        unused.update(PurePosixPath(name).suffix.lower() or 'without suffix' for name in folder.others_below(inner))
    return [f'left out: {", ".join(f"{count} {suffix}" for suffix, count in unused.items())}'] if unused else []


def _folders_on_disk(folder: Folder, top: str) -> list[str]:
    """Return the names of all folders in ``top``, as MMPreTrain sees them."""
    return sorted(entry.name for entry in os.scandir(folder.root / top) if entry.is_dir())
