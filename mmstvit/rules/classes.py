"""Class names: of the config, of the splits, of XML files and of class folders."""

import contextlib
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
from mmstvit.fileio.image_files import SYSTEM_NAMES

from .annotations import nearest
from .facts import DatasetFacts, Facts, find_class
from .findings import Finding
from .headers import thin_out
from .kinds import KINDS, WARNING

_XML_FILES = 5000  # of which the names are read
_SPLIT_FOLDERS = ('train', 'training', 'val', 'valid', 'validation', 'test', 'testing')


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


def check_xml_names(facts: Facts) -> Iterator[Finding]:
    """Warn of names in XML files (XMLDataset of MMDetection) that ``metainfo.classes`` has not, or in another case."""
    for data in facts.datasets:
        dataset = data.dataset if data.is_read_by('mmdet.datasets.xml_style') else None
        known = None if dataset is None else dataset.metainfo.get('classes')
        if not known or not os.path.isfile(dataset.ann_file):
            continue
        folder = os.path.join(dataset.sub_data_root, dataset.ann_subdir)
        counts = Counter()
        for name in thin_out(list_from_file(dataset.ann_file), _XML_FILES):
            with contextlib.suppress(DataError):  # which the dataset says
                annotations = read_voc(Path(folder, f'{name}.xml'))
                counts.update(item.label for item in (annotations.objects if annotations else ()))
        unknown = [name for name in counts if name not in known]
        if unknown:
            kind = 'unknown name in XML files'
            found = [f'{name!r}: {counts[name]} objects' for name in unknown]
            remedy = _suggest(unknown, list(known)) + KINDS[kind].remedy
            yield data.finding(kind, found, folder, total=len(counts), remedy=remedy)


def check_class_folders(facts: Facts) -> Iterator[Finding]:
    """Compare the folders of a classification dataset, whose sorted order gives the labels, with its class names."""
    for data in facts.datasets:
        dataset = with_class_folders(data)
        if dataset is None:
            continue
        root, classes = dataset.img_prefix, list(dataset.CLASSES or ())
        folders = sorted(fileio.list_dir_or_file(root, list_dir=True, list_file=False))
        foreign = [name for name in folders if name.startswith('.') or name in SYSTEM_NAMES]
        if len(folders) > 1 and all(name.lower() in _SPLIT_FOLDERS for name in folders):
            foreign = folders
        kind, severity, key = 'class folders and classes differ', '', f'{data.key}.classes'
        if foreign:
            kind, values = 'folder that is no class', [os.path.join(root, name) for name in foreign]
        else:
            values, severity = _compare_folders(folders, classes) if classes else ([], '')
        if values:
            yield Finding(kind, key, [root, *values], severity=severity)  # explains findings of every split


def _compare_folders(folders: list[str], classes: list[str]) -> tuple[list[str], str]:
    """Return what is wrong with the names of classes, empty if nothing is, and the severity if it is not a fault."""
    common = set(classes) & set(folders)
    if len(classes) != len(folders):
        absent = [name for name in classes if common and name not in folders]
        more = [name for name in folders if not common or name not in classes]
        values = [f'{len(classes)} names and {len(folders)} folders']
        values += [f'no folder for {first_names(absent)}'] if absent else []
        return values + ([f'no class for {first_names(more)}'] if more else []), ''
    few = len(folders) <= 200  # nearest() takes seconds for many
    near = [name if name in common else nearest(name, folders) if few else None for name in classes]
    shifted = set(near) == set(folders) and near != folders
    wrong = [i for i, name in enumerate(near if shifted else classes) if name != folders[i]]
    if not wrong or not (shifted or common):  # names for display
        return [], ''
    value = f'label {wrong[0]} is the folder {folders[wrong[0]]!r}, but {classes[wrong[0]]!r} in classes'
    return [value, _write(folders)], '' if shifted else WARNING


def with_class_folders(data: DatasetFacts) -> BaseDataset | None:
    """Return a dataset that takes its labels from the names of folders, without its files if need be; else None."""
    if not hasattr(find_class(data.cfg), 'is_valid_file'):  # MMPreTrain's CustomDataset and its subclasses
        return None
    dataset = data.dataset
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
