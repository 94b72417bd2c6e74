"""Class names: of the config, of the splits, of the class folders, and their colors."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine import fileio
from mmengine.dataset import BaseDataset
from mmengine.fileio import list_from_file

from mmstvit.datasets.coco import first_names
from mmstvit.datasets.importers.voc import read_voc
from mmstvit.errors import DataError
from mmstvit.fileio.image_files import IMAGE_SUFFIXES, SYSTEM_NAMES, walk_folder

from .annotations import nearest
from .facts import DatasetFacts, Facts, find_class
from .findings import Finding
from .headers import choose_spread
from .kinds import KINDS

_XML_FILES = 5000  # of which the names are read
_SPLIT_FOLDERS = ('train', 'training', 'val', 'valid', 'validation', 'test', 'testing')
# Images that OpenCV does not decode, but that people take for images.
_SUFFIXES = (*IMAGE_SUFFIXES, '.j2k', '.jxl')


def check_class_strings(facts: Facts) -> Iterator[Finding]:
    """Refuse class names that are a string: the libraries take each letter for a class."""
    for data in facts.datasets:
        for name, node in (('classes', data.cfg), ('metainfo.classes', data.cfg.get('metainfo') or {})):
            value = node.get('classes')
            if isinstance(value, str) and not os.path.isfile(os.path.expanduser(value)):  # a file lists the names
                remedy = f'Write a tuple with a comma: ({value!r},)'
                yield data.finding('class names are a string', [repr(value)], f'{data.key}.{name}', remedy=remedy)


def check_splits_agree(facts: Facts) -> Iterator[Finding]:
    """Refuse splits whose class names differ: the same label would mean two classes."""
    known = [data for data in facts.datasets if not data.cfg.get('return_classes')]
    first = next((data for data in known if data.classes), None)
    for data in known:
        needed = data.classes is not None or hasattr(data.dataset, 'reduce_zero_label')  # IoUMetric needs names
        if first and needed and data.classes != first.classes:
            own = _write(data.classes) if data.classes else 'no metainfo.classes'
            values = [f'{first.key} has {_write(first.classes)}', f'{data.key} has {own}']
            kind = 'class names of the splits differ'
            remedy = _suggest(first.classes, data.classes or ()) + KINDS[kind].remedy
            yield Finding(kind, data.key, values, remedy=remedy)  # of two splits


def check_known_names(facts: Facts) -> Iterator[Finding]:
    """Refuse class names that a dataset with fixed classes, such as MMSegmentation's ADE20KDataset, does not know."""
    for data in facts.datasets if facts.scope == 'mmseg' else ():
        names = (data.cfg.get('metainfo') or {}).get('classes')
        known = getattr(find_class(data.cfg), 'METAINFO', {}).get('classes')
        unknown = [name for name in names or () if known and name not in known]
        if unknown and not isinstance(names, str):
            remedy = _suggest(known, unknown)
            yield data.finding('unknown class', map(repr, unknown), f'{data.key}.metainfo.classes', remedy=remedy)


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
            kind = 'unknown name in XML files'
            found = [f'{name!r}: {counts[name]} objects' for name in unknown]
            remedy = _suggest(unknown, list(known)) + KINDS[kind].remedy
            yield data.finding(kind, found, folder, total=len(counts), remedy=remedy)


def _read_names(path: str) -> list[str]:
    """Return the names of the objects in an XML file; none if it cannot be read, which the dataset says."""
    try:
        annotations = read_voc(Path(path))
    except DataError:
        return []
    return [item.label for item in annotations.objects] if annotations else []


def check_class_folders(facts: Facts) -> Iterator[Finding]:
    """Compare the folders of a classification dataset, whose sorted order gives the labels, with its class names."""
    for data in facts.datasets:
        dataset = _with_class_folders(data)
        if dataset is not None:
            root, classes = dataset.img_prefix, list(dataset.CLASSES or ())
            folders = sorted(fileio.list_dir_or_file(root, list_dir=True, list_file=False))
            kind, values = _judge_folders(folders, classes)
            if kind == 'system folder as a class':
                values = [os.path.join(root, name) for name in values]
            if kind:
                yield Finding(kind, f'{data.key}.classes', [root, *values])  # explains findings of every split


def _judge_folders(folders: list[str], classes: list[str]) -> tuple[str, list[str]]:
    """Return the kind of what is wrong with class folders, the first cause only, and values; empty for nothing."""
    if system := [name for name in folders if name.startswith('.') or name in SYSTEM_NAMES]:
        return 'system folder as a class', system
    if len(folders) > 1 and all(name.lower() in _SPLIT_FOLDERS for name in folders):
        return 'splits as classes', [first_names(folders)]
    if not classes or classes == folders:
        return '', []
    if len(classes) != len(folders):
        common = set(classes) & set(folders)
        absent = [name for name in classes if common and name not in folders]
        more = [name for name in folders if not common or name not in classes]
        values = [f'{len(classes)} names and {len(folders)} folders']
        values += [f'no folder for {first_names(absent)}'] if absent else []
        values += [f'no class for {first_names(more)}'] if more else []
        return 'class folders and classes differ', values
    near = {name: name if name in folders else nearest(name, folders) for name in classes if len(folders) <= 200}
    shifted = [i for i, name in enumerate(classes) if near.get(name) not in (None, folders[i])]
    if shifted and set(near.values()) == set(folders):  # a folder for each class, in another order
        i = shifted[0]
        value = f'label {i} is the folder {folders[i]!r}, but {classes[i]!r} in classes'
        return 'order of classes', [value, _write(folders)]
    if set(classes) & set(folders):
        i = next(i for i, name in enumerate(classes) if name != folders[i])
        value = f'{classes[i]!r} for label {i}, but the folder is {folders[i]!r}'
        return 'misspelt class name', [value, _write(folders)]
    return '', []


def check_suffixes(facts: Facts) -> Iterator[Finding]:
    """Warn of image files that MMPreTrain's or MMSegmentation's dataset does not read because of their suffix."""
    for data in facts.datasets:
        dataset = data.dataset
        if dataset is None or getattr(dataset, 'ann_file', ''):
            continue
        if _with_class_folders(data) is not None:
            root, read, option = dataset.img_prefix, tuple(sorted(dataset.extensions)), 'extensions'
            skipped = [name for name in _list_files(root) if not name.lower().endswith(read)]
        elif hasattr(dataset, 'img_suffix') and dataset.data_prefix.get('img_path'):
            root, read, option = dataset.data_prefix['img_path'], dataset.img_suffix, 'img_suffix'
            skipped = [name for name in _list_files(root) if not name.endswith((read, dataset.seg_map_suffix))]
        else:
            continue
        counts = Counter(suffix for name in skipped if (suffix := os.path.splitext(name)[1].lower()) in _SUFFIXES)
        if counts:
            found = [f'{count} {suffix}' for suffix, count in counts.most_common()]
            values = [*found, f'{option} is {read!r}']
            yield data.finding('file with another suffix', values, root, count=counts.total())


def _list_files(root: str) -> list[str]:
    """Return the files below a local folder; MMEngine's function takes ten times as long."""
    return [os.path.join(folder, name) for folder, names in walk_folder(Path(root)) for name in names]


def check_palettes(facts: Facts) -> Iterator[Finding]:
    """Refuse a palette with fewer colors than classes: MMSegmentation cannot build it, MMDetection cannot draw."""
    for data in facts.datasets if facts.scope != 'mmpretrain' else ():
        palette, classes = data.metainfo.get('palette'), data.classes
        if classes and isinstance(palette, (list, tuple)) and len(palette) < len(classes):
            key = f'{data.key}.metainfo.palette'
            remedy = 'Add colors, or leave the palette of a base config out: metainfo=dict(_delete_=True, classes=…).'
            if facts.scope == 'mmdet':
                remedy = f'Set --cfg-options {key}=random, or add colors.'
            values = [f'{len(palette)} colors, {len(classes)} classes']
            yield data.finding('palette too short', values, key, remedy=remedy)


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
            near = None if name in others else nearest(name, [other for other in others if other not in names])
            if near:
                return f'Did you mean {near!r} for {name!r}? '
    return ''


def _write(names: Sequence[object]) -> str:
    return f'({first_names(names)})'
