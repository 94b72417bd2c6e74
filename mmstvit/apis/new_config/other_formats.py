"""Formats that are recognized to be refused by name, with the way out."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from mmstvit.fileio import VIDEO_SUFFIXES

from .evidence import Evidence
from .folder import Folder
from .options import Options

_COCO = 'Export the annotations in COCO format.'
_MOST_FILES = 20  # of a suffix are read
_HEAD = 1 << 16
# Suffix, what the text has, name of the format, way out.
_BY_TEXT: tuple[tuple[str, Callable[[str], bool], str, str], ...] = (
    ('.json', lambda text: '"_via_img_metadata"' in text or '"_via_settings"' in text, 'a project of VIA', _COCO),
    ('.json', lambda text: '"regions"' in text and '"shape_attributes"' in text, 'annotations of VIA', _COCO),
    ('.json', lambda text: text.lstrip().startswith('[') and ('"completions"' in text or '"from_name"' in text),
     'JSON of Label Studio', 'Export from Label Studio in the format "COCO".'),
    ('.json', lambda text: '"classTitle"' in text and '"objects"' in text, 'annotations of Supervisely',
     'Export from Supervisely in COCO format.'),
    ('.json', lambda text: '"segments_info"' in text, 'panoptic annotations of COCO',
     'Use the annotations of instances (instances_*.json), or label maps.'),
    ('.json', lambda text: '"caption"' in text and '"image_id"' in text, 'captions of COCO',
     'Use the annotations of instances (instances_*.json).'),
    ('.xml', lambda text: '<annotations' in text and ('<meta' in text or '<image ' in text or '<track ' in text),
     'XML of CVAT', 'Export from CVAT in the format "COCO 1.0".'),
    ('.csv', lambda text: _header(text)[:4] == ['filename', 'width', 'height', 'class'], 'a table of boxes (CSV)',
     _COCO),
    ('.csv', lambda text: _is_one_hot(text), 'a table with a column of 0 and 1 per class (CSV)',
     'Sort the images into one folder per class; several classes per image are not supported by new_config.py.'),
    ('.txt', lambda text: len(text.split('\n')[0].split()) in (15, 16) and not text[:1].isdigit(), 'labels of KITTI',
     _COCO),
    ('.ndjson', lambda text: True, 'an export of Labelbox', _COCO),
    ('.tfrecord', lambda text: True, 'TFRecord files', _COCO),
    ('.mat', lambda text: True, 'MATLAB files', 'Convert them to label maps in PNG format, or to COCO format.'),
)  # fmt: skip


def look_for_other_formats(folder: Folder, options: Options) -> Evidence:
    """Collect evidence for formats that cannot be used."""
    evidence = Evidence()
    for name, remedy, example in _find(folder):
        evidence.refuse(f'{name}, such as {example}', remedy)
        return evidence
    videos = list(folder.with_suffix(*VIDEO_SUFFIXES))
    if videos and not folder.images:
        evidence.refuse(f'videos without images, such as {videos[0]}', 'Extract frames, and annotate them.')
    return evidence


def _find(folder: Folder) -> Iterator[tuple[str, str, str]]:
    """Yield name, way out and first file of each format."""
    for suffix in dict.fromkeys(row[0] for row in _BY_TEXT):
        for path in list(folder.with_suffix(suffix))[:_MOST_FILES]:
            text = _read_head(folder.root / path)
            for other, matches, name, remedy in _BY_TEXT:
                if other == suffix and matches(text):
                    yield name, remedy, path


def _read_head(path: Path) -> str:
    try:
        with open(path, encoding='utf-8', errors='ignore') as file:
            return file.read(_HEAD)
    except OSError:
        return ''


def _header(text: str) -> list[str]:
    return [cell.strip().lower() for cell in next(csv.reader(text.splitlines()[:1]), [])]


def _is_one_hot(text: str) -> bool:
    """Return True for rows of a file name and a 0 or 1 for every class."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()[1:6]) if row]
    return bool(rows) and all(len(row) > 2 and set(row[1:]) <= {'0', '1', '0.0', '1.0'} for row in rows)
