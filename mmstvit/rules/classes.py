"""Class names: of the config, of the splits, of the class folders, and their colors."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine import fileio
from mmengine.dataset import BaseDataset
from mmengine.fileio import list_from_file

from mmstvit.datasets.coco import first_names
from mmstvit.datasets.importers.voc import parse_voc
from mmstvit.errors import DataError
from mmstvit.fileio.image_files import IMAGE_SUFFIXES

from .annotations import nearest
from .facts import DatasetFacts, Facts, find_class
from .findings import Finding
from .headers import choose_spread
from .kinds import KINDS

# Folders that operating systems, archivers and editors make.
_SYSTEM_FOLDERS = ('__MACOSX', '__pycache__', '@eaDir', '$RECYCLE.BIN', 'System Volume Information', 'lost+found')
_XML_KIND = 'unknown name in XML files'
_XML_FILES = 5000  # of which the names are read
_SPLIT_FOLDERS = ('train', 'training', 'val', 'valid', 'validation', 'test', 'testing')
# Images that OpenCV does not decode, but that people take for images.
_SUFFIXES = (*IMAGE_SUFFIXES, '.heic', '.heif', '.j2k', '.jxl')


def check_class_strings(facts: Facts) -> Iterator[Finding]:
    """Refuse class names that are a string: the libraries take each letter for a class."""
    for data in facts.datasets:
        for name, node in (('classes', data.cfg), ('metainfo.classes', data.cfg.get('metainfo') or {})):
            value = node.get('classes')
            if isinstance(value, str) and not os.path.isfile(os.path.expanduser(value)):  # a file lists the names
                key = f'{data.key}.{name}'
                message = f'{key} is a string, {value!r}, of which each letter would be a class.'
                remedy = f'Write a tuple with a comma: ({value!r},)'
                yield data.finding('class names are a string', message, remedy, key)


def check_splits_agree(facts: Facts) -> Iterator[Finding]:
    """Refuse splits whose class names differ: the same label would mean two classes."""
    known = [(data, data.classes) for data in facts.datasets if not data.cfg.get('return_classes')]
    first, expected = next((pair for pair in known if pair[1]), (None, None))
    for data, classes in known:
        needed = classes is not None or hasattr(data.dataset, 'reduce_zero_label')  # IoUMetric needs names
        if expected and needed and classes != expected:
            own = f'has {_write(classes)}' if classes else 'has no metainfo.classes'
            message = f'{first.key} has the classes {_write(expected)}, but {data.key} {own}.'
            hint = _suggest(expected, classes or ())
            remedy = (
                f'{hint}Give {data.key} the names of {first.key} in the same order: metainfo=dict(classes=…), or for '
                f'class folders the same folders, which may be empty.'
            )
            yield Finding('class names of the splits differ', message, remedy, data.key)  # of two splits


def check_known_names(facts: Facts) -> Iterator[Finding]:
    """Refuse class names that a dataset with fixed classes, such as MMSegmentation's ADE20KDataset, does not know."""
    if facts.scope != 'mmseg':
        return
    for data in facts.datasets:
        names = (data.cfg.get('metainfo') or {}).get('classes')
        known = getattr(find_class(data.cfg), 'METAINFO', {}).get('classes')
        unknown = [name for name in names or () if known and name not in known]
        if unknown and not isinstance(names, str):
            key = f'{data.key}.metainfo.classes'
            message = f'{key} has {first_names(unknown)}, which {data.cfg["type"]} does not know.'
            near = nearest(unknown[0], known)
            yield data.finding('unknown class', message, f'Did you mean {near!r}?' if near else '', key)


def check_xml_names(facts: Facts) -> Iterator[Finding]:
    """Warn of names in XML files (XMLDataset of MMDetection) that ``metainfo.classes`` has not, or in another case."""
    for data in facts.datasets:
        dataset = data.unloaded if data.is_read_by('mmdet.datasets.xml_style') else None
        known = None if dataset is None else dataset.metainfo.get('classes')
        if not known or not os.path.isfile(dataset.ann_file):
            continue
        folder = os.path.join(dataset.sub_data_root, dataset.ann_subdir)
        files = [os.path.join(folder, f'{name}.xml') for name in list_from_file(dataset.ann_file)]
        read = [files[position] for position in choose_spread(len(files), _XML_FILES)]
        counts = Counter(name for path in read for name in _read_names(path))
        unknown = [name for name in counts if name not in known]
        if unknown:
            near = {name: other for name in unknown if (other := nearest(name, list(known)))}
            remedy = ''.join(f'Did you mean {name!r} for {other!r}? ' for name, other in near.items())
            message = f'names in {folder} are not in metainfo.classes ({first_names(known)}): objects are dropped.'
            remedy += KINDS[_XML_KIND].remedy
            found = [f'{name!r}: {counts[name]} objects' for name in unknown]
            yield data.finding(_XML_KIND, message, remedy, '', found, len(counts))


def _read_names(path: str) -> list[str]:
    """Return the names of the objects in an XML file; none if it cannot be read, which the dataset says."""
    try:
        _, objects = parse_voc(Path(path)) or ('', [])
    except DataError:
        return []
    return [item.name for item in objects]


def check_class_folders(facts: Facts) -> Iterator[Finding]:
    """Compare the folders of a classification dataset, whose sorted order gives the labels, with its class names."""
    for data in facts.datasets:
        dataset = _with_class_folders(data)
        if dataset is None:
            continue
        root = dataset.img_prefix
        folders = sorted(fileio.list_dir_or_file(root, list_dir=True, list_file=False))
        for kind, message, remedy in _judge_folders(root, folders, dataset.CLASSES, data.key):
            yield Finding(kind, message, remedy, root)  # explains findings of every split


def _judge_folders(
    root: str, folders: list[str], classes: Sequence[str] | None, key: str
) -> Iterator[tuple[str, str, str]]:
    """Yield kind, message and remedy of what is wrong with class folders: the first cause only."""
    system = [name for name in folders if name.startswith('.') or name in _SYSTEM_FOLDERS]
    if system:
        message = f'the folder {first_names(system)} in {root} is not a class, but counts as one: it shifts the labels.'
        yield 'system folder as a class', message, f'Delete {" and ".join(os.path.join(root, name) for name in system)}'
        return
    if len(folders) > 1 and all(name.lower() in _SPLIT_FOLDERS for name in folders):
        message = f'the folders in {root} are splits, {first_names(folders)}, not classes.'
        yield 'splits as classes', message, f'Set {key}.data_prefix to one of them.'
        return
    if classes is None or list(classes) == folders:
        return
    if len(classes) != len(folders):
        common = set(classes) & set(folders)
        absent = [name for name in classes if common and name not in folders]
        more = [name for name in folders if not common or name not in classes]
        message = f'{key}.classes has {len(classes)} names, but {root} has {len(folders)} folders'
        message += f'; no folder for {first_names(absent)}' if absent else ''
        message += f'; no class for {first_names(more)}.' if more else '.'
        remedy = f'Make a folder for each class, which may be empty, or correct {key}.classes.'
        yield 'class folders and classes differ', message, remedy
        return
    near = {name: name if name in folders else nearest(name, folders) for name in classes if len(folders) <= 200}
    shifted = [i for i, name in enumerate(classes) if near.get(name) not in (None, folders[i])]
    if shifted and set(near.values()) == set(folders):  # a folder for each class, in another order
        i = shifted[0]
        message = (
            f'{key}.classes is not in the order of the folders in {root}, which gives the labels: label {i} is the '
            f'folder {folders[i]!r}, but {classes[i]!r} in classes.'
        )
        yield 'order of classes', message, f'Set {key}.classes to the sorted names: {_write(folders)}'
    elif set(classes) & set(folders):
        i = next(i for i, name in enumerate(classes) if name != folders[i])
        message = f'{key}.classes has {classes[i]!r} for label {i}, but the folder in {root} is {folders[i]!r}.'
        yield 'misspelt class name', message, f'Set it to the names of the folders: {_write(folders)}'


def check_suffixes(facts: Facts) -> Iterator[Finding]:
    """Warn of image files that MMPreTrain's or MMSegmentation's dataset does not read because of their suffix."""
    for data in facts.datasets:
        dataset = data.dataset
        if dataset is None or getattr(dataset, 'ann_file', ''):
            continue
        if _with_class_folders(data) is not None:
            root, read, option = dataset.img_prefix, tuple(sorted(dataset.extensions)), 'extensions'
            files = _list_files(root)
            skipped = [name for name in files if not name.lower().endswith(read)]
        elif hasattr(dataset, 'img_suffix') and dataset.data_prefix.get('img_path'):
            root, read, option = dataset.data_prefix['img_path'], dataset.img_suffix, 'img_suffix'
            files = _list_files(root)
            skipped = [name for name in files if not name.endswith((read, dataset.seg_map_suffix))]
        else:
            continue
        skipped = [name for name in skipped if _suffix(name) in _SUFFIXES]
        if skipped:
            counts = ', '.join(f'{count} {suffix}' for suffix, count in Counter(map(_suffix, skipped)).most_common())
            reads = _write(read) if isinstance(read, tuple) else repr(read)
            message = f'files in {root} are not read because of their suffix: {counts}; {option} is {reads}.'
            remedy = f'Convert them, or set {data.key}.{option} if OpenCV reads the format (not .heic).'
            yield data.finding('file with another suffix', message, remedy, root, skipped, len(files))


def _list_files(root: str) -> list[str]:
    """Return the files below a local folder; MMEngine's function takes ten times as long."""
    found = os.walk(root, followlinks=True)
    return [os.path.join(folder, name) for folder, _, names in found for name in names if not name.startswith('.')]


def check_palettes(facts: Facts) -> Iterator[Finding]:
    """Refuse a palette with fewer colors than classes: MMSegmentation cannot build it, MMDetection cannot draw."""
    if facts.scope == 'mmpretrain':
        return
    for data in facts.datasets:
        palette, classes = data.metainfo.get('palette'), data.classes
        if not classes or not isinstance(palette, (list, tuple)) or len(palette) >= len(classes):
            continue
        key, lacks = f'{data.key}.metainfo.palette', len(classes) - len(palette)
        message = f'{key} has {len(palette)} colors for {len(classes)} classes; pictures need one color for each.'
        remedy = (
            f'Add {lacks} colors, or leave the palette of a base config out: metainfo=dict(_delete_=True, classes=…).'
        )
        if facts.scope == 'mmdet':
            remedy = f'Set --cfg-options {key}=random, or add {lacks} colors.'
        yield data.finding('palette too short', message, remedy, key)


def _with_class_folders(data: DatasetFacts) -> BaseDataset | None:
    """Return a dataset that takes its labels from the names of folders, without its files if need be; else None."""
    if not hasattr(find_class(data.cfg), 'is_valid_file'):  # MMPreTrain's CustomDataset and its subclasses
        return None
    dataset = data.unloaded
    labeled = dataset is not None and dataset.with_label and not dataset.ann_file
    return dataset if labeled and os.path.isdir(dataset.img_prefix) else None


def _suggest(expected: Sequence[str], classes: Sequence[str]) -> str:
    """Return a question about the first misspelt name, with the nearest one; empty if there is none."""
    for names, others in ((classes, expected), (expected, classes)):
        for name in names:
            if name not in others:
                near = nearest(name, [other for other in others if other not in names])
                return f'Did you mean {near!r} for {name!r}? ' if near else ''
    return ''


def _write(names: Sequence[object]) -> str:
    return f'({first_names(names)})'


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
