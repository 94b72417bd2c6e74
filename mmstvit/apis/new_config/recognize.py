"""Recognize what a folder or file is: collect evidence for every kind of data, and decide only if it is clear."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from mmstvit.errors import DataError, UserError

from . import detection_formats as formats
from .class_folders import look_for_class_folders, read_class_folders
from .evidence import Evidence
from .folder import Folder
from .instances import look_for_coco, read_coco
from .options import Data, Options
from .segments import look_for_label_maps, read_label_maps
from .unread import look_for_unread_files, quote_file


class Layout(NamedTuple):
    """A kind of data, with what recognizes and reads it.

    Args:
        task: ``'instances'``, ``'segments'`` or ``'classes'``.
        name: Name for messages.
        look: Collects evidence.
        read: Reads the data.
    """

    task: str
    name: str
    look: Callable[[Folder, Options], Evidence]
    read: Callable[[object, Folder, Options], Data]


LAYOUTS = (
    Layout('instances', 'annotation files in COCO format', look_for_coco, read_coco),
    Layout('instances', 'labels of YOLO', formats.look_for_yolo, formats.read_files),
    Layout('instances', 'XML files of Pascal VOC', formats.look_for_voc, formats.read_files),
    Layout('instances', 'JSON files of labelme', formats.look_for_labelme, formats.read_files),
    Layout('segments', 'images with label maps', look_for_label_maps, read_label_maps),
    Layout('classes', 'a folder of images per class', look_for_class_folders, read_class_folders),
)
_MOST = 0.5  # share of the images that a kind describes if a folder per class is unlikely
_ARCHIVES = ('.zip', '.tar', '.gz', '.tgz', '.7z', '.rar')
# Option -> tasks to which it applies.
_OPTIONS = {
    'classes': ('segments', 'labels of YOLO'),
    'ignore': ('segments',),
    'map_suffix': ('segments',),
    'maps': ('segments',),
    'shapes': ('labels of YOLO',),
    'images': ('segments', 'annotation files in COCO format'),
    'fix': ('annotation files in COCO format',),
    'skip_missing': ('instances',),
    'skip_stray': ('classes',),
}


def recognize(options: Options) -> Data:
    """Recognize the data in a folder, or an annotation file, and read them.

    Raises:
        UserError: It is not clear what the data are; the message has the evidence and the option for each choice.
    """
    path = Path(os.path.abspath(options.data))
    if not path.exists():
        raise UserError(f'{options.data} does not exist.', 'Name a folder of data, or a COCO annotation file.')
    if path.suffix.lower() in _ARCHIVES:
        raise UserError(f'{options.data} is an archive.', 'Unpack it, and name the folder.')
    if path.is_file() and path.suffix.lower() not in ('.json', '.yaml', '.yml'):
        raise UserError(
            f'{options.data} is a {path.suffix} file, expected a folder, a .json or a .yaml file.', 'Name its folder.'
        )
    kinds = [kind for kind in LAYOUTS if options.task in (None, kind.task)]
    if path.is_file() and options.task not in (None, 'instances'):
        raise UserError(f'{options.data} has instances, not {options.task}.', 'Omit --task, or name a folder.')
    folder = Folder.scan(path.parent if path.is_file() else path)
    if path.suffix.lower() == '.json' and path.is_file():
        kinds, named = kinds[:1], Folder(path.parent, {'': [path.name]})
        seen, used = {kinds[0]: look_for_coco(named, options)}, set()
    else:
        if path.is_file():
            kinds = [kind for kind in kinds if kind.look is formats.look_for_yolo]
        every = {kind: kind.look(folder, options) for kind in LAYOUTS}
        used = set().union(*(evidence.used for evidence in every.values()))
        seen = {kind: every[kind] for kind in kinds}
    found = [kind for kind in seen if seen[kind].found and not seen[kind].refused]
    described = seen[found[0]].images if len(found) == 1 else None
    others = look_for_unread_files(folder, used, described or {*folder.images}, alone=not found)
    for kind in found:
        if kind.task == 'classes':
            if any(evidence.refused for evidence in seen.values()):
                seen[kind].decide = None
            # Folders of images with their label maps may have either; an option for label maps decides.
            either = seen[kind].found.maps and not _foreign_option(kind, options)
            rivals = [seen[other] for other in seen if other is not kind and not (either and other.task == 'segments')]
            _contradict(seen[kind], [*rivals, others])
    kind = _decide(seen, others, folder, options)
    _check_options(kind, options)
    data = kind.read(seen[kind].found, folder, options)
    if others.against and kind.task != 'classes':
        data.notes.append(f'not used: {others.against[0][0]}')
    return data


def _contradict(classes: Evidence, others: Sequence[Evidence]) -> None:
    """Let evidence for another kind speak against a folder per class, for which any folder of images speaks."""
    for other in others:
        if other.found and other.coverage > _MOST and not other.refused:
            classes.add_against(other.reasons[0])
        elif other.against:
            classes.add_against(other.against[0][0])


def _decide(seen: dict[Layout, Evidence], others: Evidence, folder: Folder, options: Options) -> Layout:
    """Return the only kind with evidence and nothing against it; raises DataError."""
    found = [kind for kind in seen if seen[kind].found and not seen[kind].refused]
    weak = any(kind.task != 'classes' and seen[kind].coverage > _MOST for kind in found)
    strong = [kind for kind in found if kind.task != 'classes' or not (weak and seen[kind].against)]
    if len(strong) == 1 and not seen[strong[0]].against:
        return strong[0]
    if options.task and len(found) == 1 and not seen[found[0]].remedies:
        return found[0]  # the user has decided
    tasks = list(dict.fromkeys(kind.task for kind in strong))
    if len(strong) > 1:
        listed = '\n'.join(f'  {kind.name}: {"; ".join(seen[kind].reasons[:3])}' for kind in strong)
        choice = (
            f'--task {" or --task ".join(tasks)}'
            if len(tasks) > 1
            else 'name the annotation file, or an inner folder, or move the other files elsewhere'
        )
        raise DataError(f'{options.data} has several kinds of data:\n{listed}\n', f'Choose: {choice}.')
    doubtful = [(kind.name, seen[kind]) for kind in seen if seen[kind].against and kind.task != 'classes']
    doubtful += [('another format', others)] if others.against else []
    # A folder per class is what remains if nothing else is there.
    doubtful = doubtful or [(kind.name, seen[kind]) for kind in seen if seen[kind].against]
    if not doubtful:
        expected = '; '.join(dict.fromkeys(kind.name for kind in seen))
        raise DataError(
            f'{options.data} is not recognized: {folder.describe()}{quote_file(folder)}.',
            f'Expected {expected}. See docs/own_data.md.',
        )
    lines, remedies = [], []
    for name, evidence in doubtful:
        lines += [f'  {name}: {reason}' for reason in evidence.reasons[:3]]
        prefix = f'not {name}: ' if evidence.found else ''
        lines += [f'  {prefix}{reason}' for reason, _ in evidence.against[:3]]
        # What is to be chosen among files that are read does not need others.
        remedies += [] if evidence is others and weak and remedies else evidence.remedies
    if len(found) == 1 and options.task is None and not seen[found[0]].remedies:
        decide = seen[found[0]].decide
        remedies += [] if decide is None else [decide or f'If it is {found[0].name}: --task {found[0].task}.']
    raise DataError(
        f'{options.data} is not clear:\n' + '\n'.join(dict.fromkeys(lines)) + '\n',
        ' '.join(dict.fromkeys(remedies)) or 'Images and masks that belong together have one name: docs/own_data.md.',
    )


def _check_options(kind: Layout, options: Options) -> None:
    """Refuse options that do not apply to the data; raises UserError."""
    if option := _foreign_option(kind, options):
        raise UserError(f'{option} does not apply to {kind.name}.', f'Remove {option}, or name other data.')


def _foreign_option(kind: Layout, options: Options) -> str:
    """Return an option that does not apply to a kind of data; empty if all do."""
    names = (name for name, applies in _OPTIONS.items() if not {kind.task, kind.name} & {*applies})
    return next((f'--{name.replace("_", "-")}' for name in names if getattr(options, name)), '')
