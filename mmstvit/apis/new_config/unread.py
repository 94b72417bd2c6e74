"""Files that describe the images in a form that is not read: the formats that are known are refused by name."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Set
from pathlib import PurePosixPath

from mmstvit.datasets.map_files import cuts
from mmstvit.fileio import VIDEO_SUFFIXES, open_file

from .evidence import Evidence
from .folder import Folder

_COCO = 'Export the annotations in COCO format.'
_TABLES = 'docs/own_data.md, "Tables", turns them into one folder per class, or into labels of YOLO.'
_CONVERT = 'Convert it to a format that docs/own_data.md lists: its section "Tables" has examples.'
_MOST_ROWS = 200
_MANY = 20  # images of which a file that names them describes the data, if there are so many
_MOST_FILES = 20  # of a suffix are read
_HEAD = 1 << 16
_TEXTS = ('.csv', '.geojson', '.json', '.jsonl', '.lst', '.odgt', '.tsv', '.txt', '.xml')
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
)  # fmt: skip
# Formats that cannot be looked into: evidence only if nothing else is found.
_BY_SUFFIX = {
    '.ndjson': ('an export of Labelbox', _COCO),
    '.tfrecord': ('TFRecord files', _COCO),
    '.mat': ('MATLAB files',
             'Convert them: label maps to PNG files, boxes to COCO format, classes to one folder per class.'),
    **dict.fromkeys(('.dcm', '.nii', '.nii.gz', '.nrrd'), ('medical volumes', 'Export their slices as PNG files.')),
    **dict.fromkeys(('.npy', '.npz', '.h5', '.hdf5', '.pkl'), ('arrays', 'Export them as PNG files.')),
    **dict.fromkeys(('.parquet', '.arrow', '.mdb', '.rec'), ('a database of images', 'Export the images as files.')),
}  # fmt: skip


def look_for_unread_files(folder: Folder, used: Set[str], images: Set[str], alone: bool) -> Evidence:
    """Collect evidence for annotations that cannot be read.

    Args:
        folder: The folder.
        used: Files that a reader reads.
        images: The images about which they must say something.
        alone: Nothing else was found, so that files of which only the suffix is known say something, too.
    """
    evidence = Evidence()
    if found := next(_find(folder, used, images, alone), None):
        name, remedy, example = found
        evidence.refuse(f'{name}, such as {example}', remedy)
    videos = list(folder.with_suffix(*VIDEO_SUFFIXES))
    if videos and not folder.images:
        evidence.refuse(f'videos without images, such as {videos[0]}', 'Extract frames, and annotate them.')
    return evidence


def _find(folder: Folder, used: Set[str], images: Set[str], alone: bool) -> Iterator[tuple[str, str, str]]:
    """Yield name, way out and first file of each format."""
    texts = {file: _read_head(folder, file) for file in _sample(folder) if file not in used}
    for file, text in texts.items():
        for suffix, matches, name, remedy in _BY_TEXT:
            if file.lower().endswith(suffix) and matches(text):
                yield name, remedy, file
    for file, text in texts.items():
        if described := _describe_table(folder, file, text, images):
            yield described, _TABLES, file
    for suffix, (name, remedy) in _BY_SUFFIX.items() if alone else ():
        for file in folder.with_suffix(suffix):
            yield name, remedy, file
    if named := _name_of_image(folder, used):
        yield (
            f'{len(named)} files with the names of images, in a form that is not read ({_quote(folder, named[0])})',
            _CONVERT,
            named[0],
        )
    for file, text in texts.items():
        if _names_images(folder, text, images):
            yield f'a file that names images, in a form that is not read ({_quote(folder, file)})', _CONVERT, file


def _sample(folder: Folder) -> list[str]:
    """Return the first files of each suffix in each folder, and more of those that do not belong to one image."""
    groups: dict[tuple[str, str], list[str]] = {}
    for file in folder.with_suffix(*_TEXTS):
        groups.setdefault((file.rpartition('/')[0], PurePosixPath(file).suffix.lower()), []).append(file)
    sample = [file for files in list(groups.values())[:_MOST_FILES] for file in files[:3]]
    alone = [file for files in groups.values() for file in files if not folder.has_image(PurePosixPath(file).stem)]
    return list(dict.fromkeys((*sample, *alone[: 5 * _MOST_FILES])))


def _name_of_image(folder: Folder, used: Set[str]) -> list[str]:
    """Return the files of a suffix that are called like most of the images, or of which most are called like images."""
    groups: dict[str, list[str]] = {}
    for file in folder.others:
        if file not in used and not file.lower().endswith(VIDEO_SUFFIXES):
            groups.setdefault(PurePosixPath(file).suffix.lower(), []).append(file)
    for files in groups.values():
        named = [file for file in files if _has_image(folder, PurePosixPath(file).stem)]
        if len(named) > 1 and (2 * len(named) > len(files) or 2 * len(named) > len(folder.images)):
            return named
    return []


def _has_image(folder: Folder, stem: str) -> bool:
    """Return True if an image has a name, or a part of it before or behind a mark: gt_img_1 for img_1."""
    return folder.has_image(stem) or any(
        folder.has_image(part) for start, end in cuts(stem) for part in (start, end[1:])
    )


def _names_images(folder: Folder, text: str, images: Set[str]) -> bool:
    """Return True for a text that names many images, and says more about them than their folders do."""
    words = re.findall(r'(?<=")[^"\n]+(?=")|[^\s,;:"\'<>|()\[\]{}=]+', text)
    folders = {part for path in folder.by_folder for part in path.split('/')}
    named, known, other = set(), 0, 0
    for word in words:
        image = folder.find_image(word, among=images) if len(word) > (5 if word.isdigit() else 3) else None
        if image is not None:
            named.add(image)
            known += '/' in word
        elif word in folders:
            known += 1
        else:
            other += 1
    many = len(named) >= max(2, min(_MANY, 0.3 * len(images)))
    return many and other > (3 if known >= len(named) else 0.5) * len(named)


def _describe_table(folder: Folder, file: str, text: str, images: Set[str]) -> str:
    """Describe a table with a row for an image or object, CSV with a header or JSON lines; empty for other files.

    A table that says of each image the name of its folder says nothing else, and is not described.
    """
    if not file.lower().endswith(('.csv', '.tsv', '.jsonl')):
        return ''
    rows = _read_rows(text, file)
    columns = {name: [str(row.get(name) or '').strip() for row in rows] for name in (rows[0] if rows else ())}
    if any(folder.find_image(str(name), among=images) for name in columns):
        return 'a table of images without a header'
    for name, cells in columns.items():
        named = [folder.find_image(cell, among=images) for cell in cells]
        tops = [image.split('/')[:-1] if image else [] for image in named]
        if 2 * named.count(None) >= len(named) or len({*named}) <= min(_MANY, 0.3 * len(images)):
            continue  # about a few images, such as an icon for each class
        if any(all(cell in top for cell, top in zip(column, tops, strict=True)) for column in columns.values()):
            return ''
        others = [f'{other} with {len(set(column))} values' for other, column in columns.items() if other != name]
        return f'a table whose column {name} names images (others: {", ".join(others[:6]) or "none"})'
    return ''


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


def _read_head(folder: Folder, file: str) -> str:
    try:
        with open_file(folder.root / file) as stream:
            return stream.read(_HEAD).decode('utf-8', 'ignore').replace('\r\n', '\n')
    except OSError:
        return ''


def _is_one_hot(text: str) -> bool:
    """Return True for rows of a file name and a 0 or 1 for every class."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()[1:6]) if row]
    return bool(rows) and all(len(row) > 2 and set(row[1:]) <= {'0', '1', '0.0', '1.0'} for row in rows)


def _quote(folder: Folder, file: str) -> str:
    return f'{file} begins with {" ".join(_read_head(folder, file).split())[:80]!r}'


def quote_file(folder: Folder) -> str:
    """Return the beginning of a file that may have the annotations; empty if there is none."""
    files = folder.with_suffix(*_TEXTS, '.yaml', '.yml', '.data')
    return next((f'; {_quote(folder, file)}' for file in files if 'readme' not in file.lower()), '')
