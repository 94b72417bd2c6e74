"""Pairs of images and label maps that a file lists: two paths in a line, or two columns of a table."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from mmstvit.errors import DataError
from mmstvit.fileio import IMAGE_SUFFIXES

from .class_names import read_text
from .folder import ALL, Folder, find_split
from .pairing import Pairs, is_accepted

_SUFFIXES = ('.csv', '.lst', '.tsv', '.txt')
_MOST = 0.8  # share of the lines that have to name two files


def find_listed_pairs(folder: Folder) -> dict[str, list[Pairs]]:
    """Find the files that list images with their label maps; if some are about splits, only those.

    Returns:
        File -> its pairs, by folders, without those of an earlier file.
    """
    files = (file for file in folder.with_suffix(*_SUFFIXES) if not folder.images_named(PurePosixPath(file).stem))
    found = {file: pairs for file in files if (pairs := _read(folder, file))}
    if any(find_split(file) == 'train' for file in found):
        found = {file: pairs for file, pairs in found.items() if find_split(file) != ALL}
    taken: set[tuple[str, str]] = set()
    result = {}
    for file, pairs in sorted(found.items(), key=lambda item: len(item[1])):  # trainval.txt after train.txt
        result[file] = _group({image: path for image, path in pairs if (image, path) not in taken}, find_split(file))
        taken.update(pairs)
    return {file: pairs for file, pairs in result.items() if pairs}


def _read(folder: Folder, file: str) -> list[tuple[str, str]]:
    """Return the images of a list, with their label maps; empty for a file that lists something else."""
    try:
        lines = [line.strip() for line in read_text(folder.root / file).splitlines() if line.strip()]
        mark = max('\t;,', key=''.join(lines[:1]).count)
        rows = [*csv.reader(lines, delimiter=mark)] if lines and mark in lines[0] else [*map(str.split, lines)]
    except (DataError, csv.Error):  # other kinds say so
        return []
    named = [[cell.strip() for cell in row if cell.strip().lower().endswith(IMAGE_SUFFIXES)] for row in rows]
    near = file.rpartition('/')[0]
    pairs = [(folder.find_image(row[0], near), folder.find_image(row[1], near)) for row in named if len(row) == 2]
    pairs = [(one, other) for one, other in pairs if one is not None and other not in (None, one)]
    if len(pairs) < max(2, _MOST * (len(lines) - 1)):
        return []
    swapped = [(other, one) for one, other in pairs]
    return next((order for order in (pairs, swapped) if _are_maps(folder, order)), [])


def _are_maps(folder: Folder, pairs: Sequence[tuple[str, str]]) -> bool:
    return all(is_accepted(folder, part) for part in _group(dict(pairs), ALL))


def _group(pairs: Mapping[str, str], split: str) -> list[Pairs]:
    """Group pairs by their folders."""
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for image, path in pairs.items():
        groups.setdefault((image.rpartition('/')[0], path.rpartition('/')[0]), {})[image] = path
    return [Pairs(images, maps, '', files, split) for (images, maps), files in groups.items()]
