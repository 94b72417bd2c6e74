"""Recognize what a folder or file is: each layout has a function that finds it and one that reads it."""

import os
from collections.abc import Callable
from pathlib import Path

from mmstvit.errors import DataError, UserError

from .folder import Folder
from .folders import find_folders, read_folders
from .found import Data, Options
from .instances import find_coco, read_instances
from .maps import find_maps, read_maps

# Task -> find(folder, options) -> what is there or None; read(found, folder, options) -> Data.
LAYOUTS: dict[str, tuple[Callable, Callable]] = {
    'instances': (find_coco, read_instances),
    'segments': (find_maps, read_maps),
    'classes': (find_folders, read_folders),
}
# Task -> how it looks, for messages.
EXPECTED = {
    'instances': 'annotation files in COCO format, with their images',
    'segments': 'a folder of images and one of label maps, such as images/ and masks/',
    'classes': 'one folder of images per class',
}
# Formats that are only named: mark in the text of a file of this suffix -> how to get COCO format.
OTHER_FORMATS = (
    ('.json', '"shapes"', 'labelme: convert its files with labelme2coco'),
    ('.json', '"_via_img_metadata"', 'a project of VIA: export the annotations in COCO format'),
    ('.json', '"regions"', 'annotations of VIA: export them in COCO format'),
    ('.json', '"completions"', 'Label Studio: export in COCO format'),
    ('.json', '"annotations"', 'perhaps Label Studio: export in COCO format'),
    ('.xml', '<annotation', 'Pascal VOC: export in COCO format, or convert it'),
    ('.txt', '0 0.', 'perhaps YOLO: export in COCO format, or convert it'),
    ('.ndjson', '', 'Labelbox: export in COCO format'),
)
_ARCHIVES = ('.zip', '.tar', '.gz', '.tgz', '.7z', '.rar')


def recognize(options: Options) -> Data:
    """Recognize the layout of a folder or annotation file, and read it.

    Raises:
        UserError: Nothing or several things are there; the message lists what was found.
    """
    path = Path(os.path.abspath(options.data))
    if not path.exists():
        raise UserError(f'{options.data} does not exist.', 'Name a folder of data, or a COCO annotation file.')
    if path.suffix.lower() in _ARCHIVES:
        raise UserError(f'{options.data} is an archive.', 'Unpack it, and name the folder.')
    if path.is_file():
        folder = Folder(path.parent, {'': [path.name]})
        tasks = ['instances']
    else:
        folder = Folder.scan(path)
        tasks = [options.task] if options.task else list(LAYOUTS)
    found: dict[str, object] = {}
    for task in tasks:
        # Folders of images say little where annotations or label maps were found.
        result = None if task == 'classes' and found else LAYOUTS[task][0](folder, options)
        if result is not None:
            found[task] = result
    if not found:
        raise DataError(
            f'{options.data} is not recognized: {folder.describe()}{_name_format(folder)}.',
            f'Expected {"; or ".join(EXPECTED[task] for task in tasks)}. See docs/own_data.md.',
        )
    if len(found) > 1:
        raise DataError(
            f'{options.data} has {" and ".join(EXPECTED[task] for task in found)}.',
            f'Choose: --task {" or --task ".join(found)}; or name an inner folder.',
        )
    ((task, result),) = found.items()
    if path.is_file():
        folder = Folder.scan(path.parent)
    return LAYOUTS[task][1](result, folder, options)


def _name_format(folder: Folder) -> str:
    """Name the format of the first annotation file that is known, for a message."""
    for suffix, mark, advice in OTHER_FORMATS:
        for file in list(folder.with_suffix(suffix))[:3]:
            with open(folder.root / file, encoding='utf-8', errors='ignore') as text:
                if mark in text.read(1 << 16):
                    return f'; {file} looks like {advice}'
    return ''
