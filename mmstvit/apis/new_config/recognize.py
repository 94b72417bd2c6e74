"""Recognize what a folder or file is: collect evidence for every kind of data, and decide only if it is clear."""

import os
import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mmstvit.errors import DataError, UserError
from mmstvit.fileio import has_pages
from mmstvit.rules.headers import thin_out

from . import detection_formats as formats
from . import tables
from .class_folders import look_for_class_folders, read_class_folders
from .evidence import Evidence
from .folder import Folder, relative
from .instances import look_for_coco, read_coco
from .options import Data, Options
from .segments import look_for_label_maps, read_label_maps
from .unread import count_unread, describe_names, look_for_unread_files, quote_file


class Layout(NamedTuple):
    """A kind of data, with what recognizes and reads it.

    Args:
        task: ``'instances'``, ``'segments'`` or ``'classes'``.
        name: Name for messages.
        look: Collects evidence.
        read: Reads the data.
        suffixes: Suffixes of the file that may be named in the place of the folder.
    """

    task: str
    name: str
    look: Callable[[Folder, Options], Evidence]
    read: Callable[[object, Folder, Options], Data]
    suffixes: tuple[str, ...] = ()


CLASS_FOLDERS = Layout('classes', 'a folder of images per class', look_for_class_folders, read_class_folders)
BOXES = Layout('instances', 'tables of boxes', tables.look_for_box_tables, tables.read_box_tables, tables.SUFFIXES)
CLASSES = Layout(
    'classes', 'tables of classes', tables.look_for_class_tables, tables.read_class_tables, tables.SUFFIXES
)
LAYOUTS = (
    Layout('instances', 'annotation files in COCO format', look_for_coco, read_coco, ('.json',)),
    Layout('instances', 'labels of YOLO', formats.look_for_yolo, formats.read_files, ('.yaml', '.yml')),
    Layout('instances', 'XML files of Pascal VOC', formats.look_for_voc, formats.read_files),
    Layout('instances', 'JSON files of labelme', formats.look_for_labelme, formats.read_files),
    Layout('segments', 'images with label maps', look_for_label_maps, read_label_maps),
    BOXES,
    CLASSES,
    CLASS_FOLDERS,
)
_SAMPLE = 20  # images whose pages are counted
_MOST = 0.9  # share of the images that a kind describes if a folder per class is unlikely
# Option -> tasks or kinds to which it applies.
_OPTIONS = {
    'classes': ('segments', 'labels of YOLO', 'tables of boxes', 'tables of classes'),
    'ignore': ('segments',),
    'map_suffix': ('segments',),
    'maps': ('segments',),
    'shapes': ('labels of YOLO',),
    'images': ('segments', 'annotation files in COCO format'),
    'fix': ('annotation files in COCO format',),
    'skip_missing': ('instances', 'tables of classes'),
    'skip_stray': ('a folder of images per class',),
}
Seen = dict[Layout, Evidence]


def recognize(options: Options) -> Data:
    """Recognize the data in a folder, or an annotation file, and read them.

    Raises:
        UserError: It is not clear what the data are; the message has the evidence and the option for each choice.
    """
    path = Path(os.path.abspath(options.data))
    if not path.exists():
        raise UserError(f'{options.data} does not exist.', 'Name a folder of data, or a COCO annotation file.')
    beside: set[str] = set()
    kinds, folder = LAYOUTS, Folder.scan(path.parent if path.is_file() else path)
    alone = path.suffix.lower() in tables.SUFFIXES and not folder.images and folder.files.keys() == {''}
    if alone and path.parent.parent != path.parent.parent.parent:
        folder = Folder.scan(path.parent.parent)  # a table in a folder of tables, beside that of the images
    if path.is_file():  # the other files of its kind say nothing
        suffix = path.suffix.lower()
        kinds = [kind for kind in LAYOUTS if suffix in kind.suffixes]
        if not kinds:
            known = ', '.join(sorted({suffix for kind in LAYOUTS for suffix in kind.suffixes}))
            raise UserError(
                f'{options.data} is a {suffix} file, expected a folder or a file of {known}.',
                'Unpack archives, and name the folder of the data.',
            )
        beside = {*folder.with_suffix(*{other for kind in kinds for other in kind.suffixes})} - {
            relative(path, folder.root)
        }
        folder = folder.without(beside)
        folder.named = relative(path, folder.root)
    for image in thin_out(folder.images, _SAMPLE):
        if has_pages(folder.root / image):
            raise DataError(f'{image} has several pages, of which one would be read.', 'Save each page as a file.')
    every = {kind: kind.look(folder, options) for kind in kinds}
    seen = {kind: every[kind] for kind in kinds if options.task in (None, kind.task)}
    if not seen:
        tasks = ' or '.join(dict.fromkeys(kind.task for kind in kinds))
        raise UserError(f'{options.data} has {tasks}, not {options.task}.', 'Omit --task, or name a folder.')
    _compare(seen, options)
    found = [kind for kind in seen if seen[kind].found and not seen[kind].refused]
    used = set().union(*(evidence.used for evidence in every.values()))
    described = {*seen[found[0]].images} if len(found) == 1 else set()
    others = Evidence()
    if path.is_dir():
        others = look_for_unread_files(folder, used, described or {*folder.images}, alone=not found)
    if CLASS_FOLDERS in found:
        rivals = (other for other in (*seen.values(), others) if other is not seen[CLASS_FOLDERS] and other.against)
        seen[CLASS_FOLDERS].rivals += [other.against[0][0] for other in rivals]
    kind = _decide(seen, others, folder, options)
    if option := _foreign_option(kind, options):
        raise UserError(
            f'{option} does not apply to {kind.name}, which is found here ({seen[kind].reasons[0]}).',
            f'If the data are that, remove {option}; else write a list or table: docs/own_data.md.',
        )
    data = kind.read(seen[kind].found, folder, options)
    if folder.lists and others.against:
        unread = others.against[0][0]
        others = look_for_unread_files(folder, used | folder.lists, described or {*folder.images}, alone=False)
        again = others.against[0][0] if others.against else ''
        seen[kind].rivals = [text for reason in seen[kind].rivals if (text := again if reason == unread else reason)]
    if repeated := [path for path, count in Counter(data.images).items() if count > 1]:
        data.notes.append(
            f'warning: {len(repeated)} images are in two splits (first: {repeated[0]}): the metric is too high; '
            '--val 0.2 divides the images'
        )
    if beside and options.val is None:
        hint = '; for validation: --val FILE' if suffix == '.json' else ''
        data.notes.append(f'not used: {len(beside)} other files, such as {min(beside)}{hint}')
    alike: dict[str, list[str]] = {}
    for name in data.classes:
        alike.setdefault(name.casefold(), []).append(name)
    for names in (names for names in alike.values() if len(names) > 1):
        data.notes.append(
            f'warning: classes that differ only in upper and lower case: {", ".join(names)}; if they are one, give it '
            'one name'
        )
    against = [reason for reason, _ in seen[kind].against]
    data.notes += [f'warning: {reason}' for reason in (*against, *seen[kind].rivals)]
    if kind is not CLASS_FOLDERS:
        unread = [other.against[0][0] for other in (*seen.values(), others) if other.against and not other.found]
        own = tuple(f'{file} ' for file in seen[kind].used | folder.lists)
        data.notes += [f'not used: {reason}' for reason in unread if not own or not reason.startswith(own)]
    data.notes += count_unread(folder, seen[kind].used | folder.lists, data.notes)
    return data


def _compare(seen: Seen, options: Options) -> None:
    """Compare the evidence for several kinds: files about most of the images say more than tables, tables than folders.

    Folders of images with their label maps may have either; an option for label maps decides.
    """
    strong = [kind for kind in seen if seen[kind].found and seen[kind].coverage > _MOST and not seen[kind].refused]
    files = [kind for kind in strong if kind not in (BOXES, CLASSES, CLASS_FOLDERS)]
    folders, table = seen.get(CLASS_FOLDERS, Evidence()), seen.get(CLASSES, Evidence())
    for kind in (BOXES, CLASSES):
        if kind in seen and files:
            seen[kind].found = None
    if folders.found and not table.images.keys() & folders.images.keys():
        table.found, table.against = None, []  # about other images
    if table.found and folders.found:
        both = {(folders.images[image], name) for image, name in table.images.items() if image in folders.images}
        names, labels = {one for one, _ in both}, {other for _, other in both}
        if len(both) == len(names) == len(labels) and any(map(str.isdigit, labels - names)):
            table.found = None  # numbers for names
        elif len(both) == len(names) == len(labels):
            folders.found = None
    if folders.found:
        either = folders.found.maps and not _foreign_option(CLASS_FOLDERS, options)
        for kind in strong:
            if kind not in (CLASSES, CLASS_FOLDERS) and not (either and kind.task == 'segments'):
                folders.rivals.append(seen[kind].reasons[0])


def _decide(seen: Seen, others: Evidence, folder: Folder, options: Options) -> Layout:
    """Return the only kind with evidence and nothing against it; raises DataError."""
    found = [kind for kind in seen if seen[kind].found and not seen[kind].refused]
    weak = any(kind is not CLASS_FOLDERS and seen[kind].coverage > _MOST for kind in found)
    clear = {kind: not seen[kind].against and not seen[kind].rivals for kind in found}
    strong = [kind for kind in found if kind is not CLASS_FOLDERS or not weak or clear[kind]]
    if len(strong) == 1 and clear[strong[0]]:
        return strong[0]
    if options.task and len(found) == 1 and not seen[found[0]].remedies:
        return found[0]  # the user has decided
    if len(strong) > 1:
        listed = '\n'.join(f'  {kind.name}: {"; ".join(seen[kind].reasons[:3])}' for kind in strong)
        tasks = dict.fromkeys(f'--task {kind.task}' for kind in strong)
        choice = ' or '.join(tasks)
        if len(tasks) == 1:
            tables = [file for kind in strong if kind in (BOXES, CLASSES) for file in sorted(seen[kind].used)]
            choice = (
                f'new_config.py {shlex.quote(str(folder.root / tables[0]))} takes the table alone'
                if tables
                else 'move the files of all kinds but one away'
            )
        raise DataError(f'{options.data} has several kinds of data:\n{listed}\n', f'Choose: {choice}.')
    others_found = any(seen[kind].found for kind in seen if kind is not CLASS_FOLDERS)
    kinds = [kind for kind in seen if seen[kind].against and (kind is not CLASS_FOLDERS or not others_found)]
    doubtful = [(kind.name, seen[kind]) for kind in [k for k in kinds if seen[k].found and seen[k].refused] or kinds]
    doubtful += [('another format', others)] if others.against else []
    if not doubtful:
        expected, words = '; '.join(kind.name for kind in seen), describe_names(folder)
        raise DataError(
            f'{options.data} is not recognized: {folder.describe()}{quote_file(folder)}{words}.',
            'If these words are the classes, move the images into a folder for each. ' * bool(words)
            + f'Expected {expected}. Other annotations become a table in a few lines: docs/own_data.md, "Tables".',
        )
    lines, remedies = [], []
    for name, evidence in doubtful:
        lines += [f'  {name}: {reason}' for reason in evidence.reasons[:3]]
        prefix = f'not {name}: ' if evidence.found else ''
        lines += [f'  {prefix}{reason}' for reason, _ in evidence.against[:3]]
        # What is to be chosen among files that are read does not need others.
        remedies += [] if evidence is others and weak and remedies else evidence.remedies
    refused = any(evidence.refused for evidence in seen.values())
    if len(found) == 1 and options.task is None and not seen[found[0]].remedies and not refused:
        first = f' ({", ".join(sorted({*seen[found[0]].images.values()})[:4])})' if seen[found[0]].images else ''
        other = ' Otherwise name the folder whose folders are the classes'
        other += '.' if remedies else ', sort the images into such folders, or write a table: docs/own_data.md.'
        remedies.append(f'If it is {found[0].name}{first}: --task {found[0].task}.{other}')
    raise DataError(
        f'{options.data} is not clear:\n' + '\n'.join(dict.fromkeys(lines)) + '\n',
        ' '.join(dict.fromkeys(remedies)) or 'See docs/own_data.md.',
    )


def _foreign_option(kind: Layout, options: Options) -> str:
    """Return an option that does not apply to a kind of data; empty if all do."""
    names = (name for name, applies in _OPTIONS.items() if not {kind.task, kind.name} & {*applies})
    return next((f'--{name.replace("_", "-")}' for name in names if getattr(options, name)), '')
