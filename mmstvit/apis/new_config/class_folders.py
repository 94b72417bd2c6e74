"""Classes: a folder of images per class, with or without folders of splits."""

import itertools
import re
import shlex
from collections.abc import Set
from dataclasses import dataclass
from pathlib import PurePosixPath

from mmstvit.datasets.splitting import group_copies

from .class_names import find_names
from .evidence import Evidence
from .folder import ALL, Folder, has_map_word, join, relative, split_of_folder
from .image_classes import describe_classes
from .options import Data, Options, first_names
from .pairing import find_maps_inside, find_pairs, has_masks

_SAMPLE = 5  # images of which those of one name in two folders are compared
# Names of parts of the data, such as seq1, HAM10000_images_part_2, 2024-05-31 or 101CANON.
_PART = re.compile(
    r'(.*[\W_])?(area|batch|cam|camera|case|chunk|clip|day|experiment|field|flight|fold|frames?|location|mission|part|'
    r'patient|plot|recording|run|sample|scene|seq|sequence|session|site|slide|stack|station|subject|take|tile|trial|'
    r'trip|video|visit|volume|week|zone)[\W_]*\d+'
    r'|(.*[\W_])?((19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d|[0-3]\d[-_.][01]\d[-_.](19|20)?\d\d)([\W_].*)?'
    r'|1\d\d(APPLE|CANON|EOS|GOPRO|MEDIA|MSDCF|NIKON|NCD|OLYMP|PANA|_).*',
    re.I,
)
# Names of folders that say what the files are, not which class they show.
_NO_CLASS = ('image', 'images', 'img', 'imgs', 'jpegimages', 'frames', 'input', 'inputs', 'original', 'originals',
             'output', 'outputs', 'photos', 'pictures', 'predictions', 'raw', 'results', 'rgb')  # fmt: skip


@dataclass(frozen=True)
class ClassFolders:
    """Folders of images per class.

    Args:
        tops: Folders that hold those of the classes -> their split.
        classes: Image -> its class.
        maps: Label maps in the folders of classes, which are no images of the class.
        strays: Images beside the folders of classes.
        inner: The folders of splits are in those of the classes, as in ant/train.
    """

    tops: dict[str, str]
    classes: dict[str, str]
    maps: Set[str]
    strays: list[str]
    inner: bool


def look_for_class_folders(folder: Folder, options: Options) -> Evidence:
    """Collect evidence for one folder of images per class."""
    evidence = Evidence()
    tops = _find_tops(folder, options)
    names = {top: folder.subfolders(top) for top in tops}
    several = [top for top in tops if len(names[top]) > 1]
    if not several:
        return evidence
    maps = find_maps_inside(folder, [join(top, name) for top in tops for name in names[top]])
    rest = folder.without(maps)
    evidence.images = {
        join(top, name, path): name for top in tops for name in names[top] for path in rest.below(join(top, name))
    }
    for top, split in tops.items():
        if top in several:
            evidence.reasons.append(f'{len(names[top])} folders of images in {_say(top)}: {first_names(names[top], 4)}')
        elif split != 'test':
            first = join(top, next(iter(rest.below(top)), 'no images'))
            evidence.add_against(
                f'{top}/ has no folders of classes (it has {first})',
                'Sort its images into the folders of their classes, or remove it and use --val 0.2.',
            )
    evidence.against += _find_splits_beside(folder, tops, names)
    evidence.against += _find_equal_splits(rest, tops)
    called = {name for top in several for name in names[top]}
    texts = [
        file
        for file in folder.others
        if PurePosixPath(file).stem in called and file.endswith(('.csv', '.txt', '.json', '.xml'))
    ]
    if 2 * len({PurePosixPath(file).stem for file in texts}) > len(called):
        evidence.add_against(f'files called like the folders may be about the images in them, such as {texts[0]}')
    outside = dict.fromkeys(['', *(top for top, split in tops.items() if split != 'test')])
    strays = [join(top, name) for top in outside for name in rest.by_folder.get(top, ())]
    if strays and not options.skip_stray:
        evidence.add_against(
            f'{len(strays)} images are beside the folders of classes, such as {strays[0]}',
            'Move them, or leave them out with --skip-stray.',
        )
    for top in (top for top in several if tops[top] in (ALL, 'train')):
        for find in (_find_masks, _find_mixed, _find_other_names, _find_copies, _find_equal_names, _find_inner_folders):
            if reason := find(rest, top, names[top]):
                evidence.add_against(reason, _name_one(rest, top, names[top]))
        for one, other in _find_pairs(rest, top, names[top]):
            evidence.add_against(
                f'{other} has the label maps of the images in {one}',
                f'Take the maps with --task segments, or name the folder of the images: new_config.py '
                f'{shlex.quote(str(folder.root / one))}',
            )
    inner = all(_has_splits(rest, top, names[top]) for top in tops)
    evidence.found = ClassFolders(tops, evidence.images, maps, strays, inner)
    return evidence


def _say(top: str) -> str:
    return top or 'the folder'


def _find_masks(folder: Folder, top: str, names: list[str]) -> str:
    """Say which folder has masks or label maps where another has photographs; empty if all look alike."""
    places = [join(top, name) for name in names]
    maps = [place for place in places if has_masks(folder, [join(place, path) for path in folder.below(place)])]
    photos = [place for place in places if place not in maps]
    if not maps or not photos:
        return ''
    return f'{maps[0]} has masks or label maps, {photos[0]} has photographs; a mask needs the name of its image'


def _find_mixed(folder: Folder, top: str, names: list[str]) -> str:
    """Say which files of a folder are label maps where those of other names are photographs; empty unless in all."""
    first = ''
    for place in [join(top, name) for name in names[:_SAMPLE]]:
        groups: dict[str, list[str]] = {}
        for path in folder.below(place):
            groups.setdefault(re.sub(r'\d+', '#', path), []).append(join(place, path))
        masks = {name: has_masks(folder, paths) for name, paths in groups.items()} if len(groups) <= _SAMPLE else {}
        if len({*masks.values()}) < 2:
            return ''
        mask, photo = (next(groups[name][0] for name in groups if masks[name] is kind) for kind in (True, False))
        first = first or f'{mask} looks like a label map, {photo} like a photograph; of both write a list: image map'
    return first


def _find_pairs(folder: Folder, top: str, names: list[str]) -> set[tuple[str, str]]:
    """Find folders of which one has the label maps of the images in the other."""
    if not _find_masks(folder, top, names):
        return set()
    tops = ((pairs.images, pairs.maps) for pairs in find_pairs(folder))
    places = {tuple(next((p for n in names if f'{path}/'.startswith(f'{(p := join(top, n))}/')), '') for path in both)
              for both in tops}  # fmt: skip
    return {both for both in places if all(both) and len({*both}) == 2}


def _find_other_names(folder: Folder, top: str, names: list[str]) -> str:
    """Say which of several folders are called like something else than classes; empty if none is."""
    called = [name for name in names if name.lower() in _NO_CLASS or (name.isalpha() and has_map_word(name))]
    if called:
        return f'a folder is called {called[0]}'
    if all(map(_PART.fullmatch, names)):
        return f'{first_names(names, 3)} are called like parts of the data'
    splits = {split_of_folder(name): name for name in names}
    splits.pop(ALL, None)  # one alone may be a class: "train" of vehicles
    return f'{" and ".join(sorted(splits.values()))} are called like splits' if len(splits) > 1 else ''


def _find_copies(folder: Folder, top: str, names: list[str]) -> str:
    """Name images of one name in two folders that look alike, as sharp and blurred ones do; empty if some do not."""
    places = [join(top, name) for name in names[:2]]
    shared = sorted({*folder.below(places[0])} & {*folder.below(places[1])})[:_SAMPLE]
    alike = all(group_copies([folder.root / place / name for place in places]).count == 1 for name in shared)
    return f'{places[0]}/{shared[0]} looks like {places[1]}/{shared[0]}' if len(shared) > 1 and alike else ''


def _find_equal_names(folder: Folder, top: str, names: list[str]) -> str:
    """Say that folders have images of the same names, as pairs of a scene or samples; empty if the names only count."""
    one, other, *_ = every = [{*folder.below(join(top, name))} for name in names]
    numbers = [*map(int, re.findall(r'\d{1,9}', ' '.join(one)))]
    words = len({re.sub(r'\d+', '#', name) for name in one}) > 1
    if words and 1 < len(one) < _SAMPLE and all(own == one for own in every):
        return f'all folders in {_say(top)} have the same names of images: {first_names(sorted(one), 3)}'
    if one != other or len(one) < _SAMPLE or len({*numbers}) > max(numbers, default=0) - min(numbers, default=0):
        return ''
    return f'{names[0]} and {names[1]} in {_say(top)} have the same names of images, such as {min(one)}'


def _find_inner_folders(folder: Folder, top: str, names: list[str]) -> str:
    """Describe folders in the folders of classes; empty if no class has several."""
    inner = {name: folder.subfolders(join(top, name)) for name in names}
    nested = [name for name in names if len(inner[name]) > 1]
    if _has_splits(folder, top, names):
        return ''
    shared = set.intersection(*({*folder.subfolders(_find_innermost(folder, join(top, name)))} for name in names))
    if len(shared) > 1:
        listed, same = first_names(names, 3), first_names(sorted(shared), 3)
        return f'{listed} in {_say(top)} have the same folders: {same} (splits are called train, val)'
    if not nested:
        return ''
    listed = first_names([join(nested[0], name) for name in inner[nested[0]]], 3)
    return f'{first_names(nested, 3)} in {_say(top)} have folders in them: {listed}'


def _find_splits_beside(folder: Folder, tops: dict[str, str], names: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Find folders beside those of splits that have the folders of the same classes."""
    train = next((top for top in tops if tops[top] == 'train'), None)
    above = train.rpartition('/')[0] if train else ''
    beside = [join(above, name) for name in folder.subfolders(above) if join(above, name) not in tops] if train else []
    return [
        (f'{top}/ has folders of the same classes as {train}/', 'Name it val or test, or move it away.')
        for top in beside
        if len({*names[train]} & {*folder.subfolders(top)}) > 1
    ]


def _find_equal_splits(folder: Folder, tops: dict[str, str]) -> list[tuple[str, str]]:
    """Find folders of one split whose images have the same names, such as train and train_edges."""
    pairs = [pair for pair in itertools.combinations(tops, 2) if tops[pair[0]] == tops[pair[1]]]
    inside = {top: {*folder.below(top)} for pair in pairs for top in pair}
    return [
        (f'{one}/ and {other}/ have images of the same names', 'Move one of these folders away, if they show the same.')
        for one, other in pairs
        if 2 * len(inside[one] & inside[other]) > min(len(inside[one]), len(inside[other]))
    ]


def _has_splits(folder: Folder, top: str, names: list[str]) -> bool:
    """Return True if each folder of a class has folders of splits alone, one of them for training."""
    places = [join(top, name) for name in names]
    inner = {place: folder.subfolders(place) for place in places}
    return all(
        'train' in map(split_of_folder, inner[place])
        and not folder.by_folder.get(place)
        and all(split_of_folder(name) != ALL and not folder.subfolders(join(place, name)) for name in inner[place])
        for place in places
    )


def _name_one(folder: Folder, top: str, names: list[str]) -> str:
    """Return a remedy if each of several folders has folders of classes for training, as folds have; else empty."""
    places = [join(top, name) for name in names]
    trains = [[join(place, n) for n in folder.subfolders(place) if split_of_folder(n) == 'train'] for place in places]
    if not all(len(folder.subfolders(train[0])) > 1 if train else False for train in trains):
        return ''
    return f'These are data sets of their own; name one: new_config.py {shlex.quote(str(folder.root / places[0]))}'


def _find_tops(folder: Folder, options: Options) -> dict[str, str]:
    """Find the folders that hold the folders of classes, with their splits; folders around them are passed."""
    top = ''
    while len(inner := folder.subfolders(top)) == 1 and not folder.by_folder.get(top):
        if split_of_folder(inner[0]) != ALL:
            break
        top = join(top, inner[0])
    tops = {_find_innermost(folder, join(top, name)): split_of_folder(name) for name in inner}
    named = {path: split for path, split in tops.items() if split != ALL}
    # A folder "train" may also be a class beside others.
    if not named or (len(named) < len(tops) and not all(map(folder.subfolders, named))):
        named = {top: ALL}
    else:  # of several folders for a split, those with classes, such as Test beside test-more
        full = {split for path, split in named.items() if folder.subfolders(path)}
        named = {path: split for path, split in named.items() if folder.subfolders(path) or split not in full}
    if options.val is not None:  # the option decides about validation
        named = {path: split for path, split in named.items() if split != 'val'}
    if options.val_fraction is None:
        named[relative(options.val, folder.root)] = 'val'
    return named


def _find_innermost(folder: Folder, top: str) -> str:
    """Return the folder in a folder, as in train/train/ant."""
    while len(inner := folder.subfolders(top)) == 1 and not folder.by_folder.get(top):
        if len(folder.subfolders(join(top, inner[0]))) < 2:
            break
        top = join(top, inner[0])
    return top


def read_class_folders(found: ClassFolders, folder: Folder, options: Options) -> Data:
    """Read a data set with a folder per class.

    Args:
        found: The folders of classes.
        folder: The folder.
        options: Options of the command.

    Raises:
        DataError: The splits are ambiguous, or have other classes.
    """
    tops = [top for top in found.tops if folder.subfolders(top)]
    notes = [*(f'a folder per class in {folder.root / top}' for top in tops), *folder.unused(tops)]
    for what, paths in (('label maps beside images', found.maps), ('images beside the folders', found.strays)):
        if paths:
            notes.append(f'left out: {len(paths)} {what} of classes (first: {min(paths)})')

    used = {*found.classes.values()}
    for path, entries in find_names(folder).items():
        if {entry.name for entry in entries} != used:
            notes.append(f'not used: the names in {path}; the classes have the names of their folders')
        folder.lists.add(path)

    def split_of(image: str) -> str:
        if found.inner:
            return split_of_folder(image.split('/')[-2])
        return next(split for top, split in found.tops.items() if image.startswith(f'{top}/' if top else ''))

    return describe_classes(found.classes, folder, options, notes, split_of=split_of)
