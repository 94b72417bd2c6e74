"""Formats that are recognized to be refused by name, with the way out."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from mmstvit.fileio import VIDEO_SUFFIXES

from .evidence import Evidence
from .folder import Folder

_COCO = 'Export the annotations in COCO format.'
_TABLES = 'docs/own_data.md, "Tables", turns them into one folder per class, or into labels of YOLO.'
_MOST_ROWS = 200
_MOST_FILES = 20  # of a suffix are read
_HEAD = 1 << 16
_BY_SUFFIX = ('.mat', '.ndjson', '.tfrecord')
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
    ('.csv', lambda text: _is_one_hot(text), 'a table with a column of 0 and 1 per class (CSV)',
     'Sort the images into one folder per class; several classes per image are not supported by new_config.py.'),
    ('.txt', lambda text: len(text.split('\n')[0].split()) in (15, 16) and not text[:1].isdigit(), 'labels of KITTI',
     _TABLES),
    ('.ndjson', lambda text: True, 'an export of Labelbox', _COCO),
    ('.tfrecord', lambda text: True, 'TFRecord files', _COCO),
    ('.mat', lambda text: True, 'MATLAB files',
     'Convert what is in them: label maps to PNG files, boxes to COCO format, classes to one folder per class.'),
)  # fmt: skip


def look_for_other_formats(folder: Folder, alone: bool) -> Evidence:
    """Collect evidence for formats that cannot be used.

    Args:
        folder: The folder.
        alone: Nothing else was found, so that files of which only the suffix is known say something, too.
    """
    evidence = Evidence()
    for name, remedy, example in (*_find(folder, alone), *_find_tables(folder)):
        evidence.refuse(f'{name}, such as {example}', remedy)
        return evidence
    videos = list(folder.with_suffix(*VIDEO_SUFFIXES))
    if videos and not folder.images:
        evidence.refuse(f'videos without images, such as {videos[0]}', 'Extract frames, and annotate them.')
    return evidence


def _find(folder: Folder, alone: bool) -> Iterator[tuple[str, str, str]]:
    """Yield name, way out and first file of each format."""
    for suffix in dict.fromkeys(row[0] for row in _BY_TEXT if alone or row[0] not in _BY_SUFFIX):
        for path in list(folder.with_suffix(suffix))[:_MOST_FILES]:
            text = _read_head(folder.root / path)
            for other, matches, name, remedy in _BY_TEXT:
                if other == suffix and matches(text):
                    yield name, remedy, path


def _find_tables(folder: Folder) -> Iterator[tuple[str, str, str]]:
    """Yield name, way out and file of tables with a row for an image or object: CSV with a header, or JSON lines."""
    known = {name for path in folder.images for name in (path, PurePosixPath(path).name, PurePosixPath(path).stem)}
    for file in list(folder.with_suffix('.csv', '.tsv', '.jsonl'))[:_MOST_FILES] if known else ():
        rows = _read_rows(_read_head(folder.root / file), file)
        columns = {name: [str(row.get(name) or '').strip() for row in rows] for name in (rows[0] if rows else ())}
        images = [name for name, cells in columns.items() if sum(cell in known for cell in cells) > len(cells) / 2]
        if images and len({*columns[images[0]]} & known) < 0.3 * min(len(folder.images), _MOST_ROWS):
            continue  # about a few images, such as an icon for each class
        if any(name in known for name in columns):
            yield 'a table of images without a header', _TABLES, file
        elif images:
            others = [f'{name} with {len(set(cells))} values' for name, cells in columns.items() if name not in images]
            yield (
                f'a table whose column {images[0]} names images (others: {", ".join(others[:12]) or "none"})',
                _TABLES,
                file,
            )


def _read_rows(text: str, file: str) -> list[dict]:
    """Return the first rows of a table; none if it has no header."""
    lines = text.splitlines()[:_MOST_ROWS]
    if file.lower().endswith('.jsonl'):
        try:
            rows = [json.loads(line) for line in lines[:-1] or lines if line.strip()]
        except ValueError:
            return []
        return [row for row in rows if isinstance(row, dict)]
    mark = max('\t;,', key=lines[0].count) if lines else ','
    return list(csv.DictReader(lines, delimiter=mark, skipinitialspace=True))


def _read_head(path: Path) -> str:
    try:
        with open(path, encoding='utf-8', errors='ignore') as file:
            return file.read(_HEAD)
    except OSError:
        return ''


def _is_one_hot(text: str) -> bool:
    """Return True for rows of a file name and a 0 or 1 for every class."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()[1:6]) if row]
    return bool(rows) and all(len(row) > 2 and set(row[1:]) <= {'0', '1', '0.0', '1.0'} for row in rows)


def quote_file(folder: Folder) -> str:
    """Return the beginning of a file that may have the annotations; empty if there is none."""
    for file in folder.with_suffix(
        '.json', '.jsonl', '.txt', '.xml', '.yaml', '.yml', '.csv', '.tsv', '.odgt', '.data'
    ):
        if 'readme' not in file.lower():
            return f'; {file} begins with {" ".join(_read_head(folder.root / file).split())[:80]!r}'
    return ''
