"""The files below a folder, and the names that people give to splits."""

import bisect
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TypeVar

from mmstvit.errors import DataError
from mmstvit.fileio import IMAGE_SUFFIXES, open_file, walk_folder

# Name of a folder or part of a file's name -> split.
SPLIT_NAMES = {
    'train': 'train', 'training': 'train', 'tr': 'train', 'trn': 'train', 'trainval': 'train',
    'val': 'val', 'valid': 'val', 'validation': 'val', 'dev': 'val',
    'test': 'test', 'testing': 'test', 'te': 'test',
}  # fmt: skip
# What is written behind the name of a split, as in trainannot.
_BEHIND = re.compile(
    r'(?<=.)(annots?|data|images?|imgs?|labels?|masks?|set|split)+$|((?<=train)|(?<=test)|(?<=val))[ab]$'
)
SPLITS = ('train', 'val', 'test')
# Words in the names of folders and files of label maps.
MAP_WORDS = frozenset(
    {
        *('ann', 'anno', 'annos', 'annot', 'annots', 'annotation', 'annotations', 'gt', 'gts', 'groundtruth', 'truth'),
        *('label', 'labels', 'labelmap', 'labelmaps', 'labelids', 'labeltrainids', 'gtfine', 'gtcoarse', 'manual'),
        *('map', 'maps', 'mask', 'masks', 'matte', 'mattes', 'target', 'targets', 'trimap', 'trimaps'),
        *('seg', 'segs', 'segmap', 'segmaps', 'segmentation', 'segmentations', 'segments'),
        *('segmentationclass', 'segmentationclasspng', 'segmentationobject'),
    }
)
HEAD = 1 << 16  # bytes of the beginning of a file
ALL = 'all'  # a part that no name assigns to a split
Part = TypeVar('Part')


@dataclass(eq=False)
class Folder:
    """The files below a folder, as :func:`mmstvit.fileio.walk_folder` finds them.

    Args:
        root: The folder.
        files: Folder, relative to ``root`` as a POSIX path (``''`` is ``root``) -> sorted names of its files.
        lists: Files that were read as lists of the images of a split.
        named: The file that is named in the place of the folder, relative to it; empty if none is.
    """

    root: Path
    files: dict[str, list[str]] = field(default_factory=dict)
    lists: set[str] = field(default_factory=set)
    named: str = ''

    @classmethod
    def scan(cls, root: Path) -> 'Folder':
        """List the files below ``root``."""
        files = {relative(path, root): names for path, names in walk_folder(root) if names}
        return cls(root, files)

    def with_suffix(self, *suffixes: str) -> Iterator[str]:
        """Yield the files with one of the suffixes, in lower case, as POSIX paths relative to the root."""
        for folder, names in self.files.items():
            for name in names:
                if name.lower().endswith(suffixes):
                    yield join(folder, name)

    def without(self, paths: Set[str]) -> 'Folder':
        """Return the folder without some files."""
        kept = {top: [name for name in names if join(top, name) not in paths] for top, names in self.files.items()}
        return Folder(self.root, {top: names for top, names in kept.items() if names})

    @cached_property
    def images(self) -> list[str]:
        """The images, sorted, as POSIX paths relative to the root."""
        return sorted(self.with_suffix(*IMAGE_SUFFIXES))

    @cached_property
    def by_folder(self) -> dict[str, list[str]]:
        """Folders that have images directly in them -> names of these images."""
        found = {top: [n for n in names if n.lower().endswith(IMAGE_SUFFIXES)] for top, names in self.files.items()}
        return {top: names for top, names in found.items() if names}

    @cached_property
    def all_files(self) -> frozenset[str]:
        """All files, as POSIX paths relative to the root."""
        return frozenset(join(top, name) for top, names in self.files.items() for name in names)

    def below(self, folder: str) -> list[str]:
        """Return the images below a folder, relative to it."""
        if not folder:
            return self.images
        start, end = (bisect.bisect_left(self.images, f'{folder}{mark}') for mark in '/0')  # 0 follows / in ASCII
        return [path[len(folder) + 1 :] for path in self.images[start:end]]

    def subfolders(self, top: str) -> list[str]:
        """Return the names of the folders directly in ``top`` that have images, at any depth."""
        return sorted({path.split('/')[0] for path in self.below(top) if '/' in path})

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """Images by their name, alone and with the folder, with and without suffix."""
        found: dict[str, list[str]] = {}
        for path in self.images:
            whole = '/'.join(path.split('/')[-2:])
            stem = whole[: -len(PurePosixPath(path).suffix)]
            for key in {whole, stem, whole.rpartition('/')[2], stem.rpartition('/')[2]}:
                found.setdefault(key, []).append(path)
        return found

    def images_named(self, name: str) -> Sequence[str]:
        """Return the images of a name, with or without suffix, and with or without their folder."""
        return self._by_name.get(name, ())

    def find_image(self, text: str, near: str = '', among: Set[str] | None = None) -> str | None:
        """Find the image that a text names: with or without suffix, by a path of this or another computer.

        Of several, the one is taken whose folders agree best with the text, which is no label map, and which is nearest
        to a folder.

        Args:
            text: The text.
            near: A folder.
            among: The images from which one is taken; None takes any.

        Returns:
            The image; None if there is none, or if several are equally good.
        """
        *folders, name = text.replace('\\', '/').strip('/').split('/')
        found: list[str] = []
        stem = PurePosixPath(name).stem if name.lower().endswith(IMAGE_SUFFIXES) else name
        for key in (*('/'.join((*folders[-1:], last)) for last in (name, stem)), name, stem):
            found = found or [path for path in self._by_name.get(key, ()) if among is None or path in among]
        for rank in (
            lambda path: -count_equal(reversed(path.split('/')[:-1]), reversed(folders)),
            lambda path: has_map_word(path.rpartition('/')[0]),
            lambda path: folder_distance(path.rpartition('/')[0], near),
        ):
            best = min(map(rank, found), default=0) if len(found) > 1 else 0
            found = [path for path in found if rank(path) == best] if len(found) > 1 else found
        return found[0] if len(found) == 1 else None

    def read_head(self, file: str) -> str:
        """Read the beginning of a text file; empty if it cannot be read."""
        try:
            with open_file(self.root / file) as stream:
                return stream.read(HEAD).decode('utf-8', 'ignore').replace('\r\n', '\n')
        except OSError:
            return ''

    def unused(self, tops: Sequence[str]) -> list[str]:
        """Return a line about the images that are not below one of the folders; empty if there are none."""
        inside = [f'{top}/' if top else '' for top in tops]
        others = Counter(path.rpartition('/')[0] for path in self.images if not path.startswith((*inside,)))
        counts = [f'{count} in {self.root / top}' for top, count in others.most_common(3)]
        more = ['…'] if len(others) > 3 else []
        return [f'not used: {sum(others.values())} images ({", ".join(counts + more)})'] if others else []

    @cached_property
    def others(self) -> list[str]:
        """The files that are not images, sorted, as POSIX paths relative to the root."""
        return sorted(self.all_files - {*self.images})

    def describe(self) -> str:
        """Count the files by suffix, and name the first few."""
        counts = Counter(PurePosixPath(path).suffix.lower() or 'without suffix' for path in self.all_files)
        listed = ', '.join(f'{count} {suffix}' for suffix, count in counts.most_common(6)) or 'no files'
        first = [*self.others, *self.images][:3]
        return listed + (f' (such as {", ".join(first)})' if first else '')


def join(*parts: str) -> str:
    """Join the parts of a POSIX path; empty ones are left out."""
    return '/'.join(part for part in parts if part)


def relative(path: Path, root: Path) -> str:
    """Return a path relative to the root if it is below, else the absolute one; ``''`` is the root."""
    path = Path(os.path.abspath(path))
    return '' if path == root else path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def count_equal(ones: Iterable[str], others: Iterable[str]) -> int:
    """Count how many items of two sequences are equal before the first that differs."""
    return sum(1 for _ in itertools.takewhile(lambda both: both[0] == both[1], zip(ones, others, strict=False)))


def folder_distance(one: str, other: str) -> int:
    """Count the folders in which two paths differ between what they begin and end with: a/x/b and a/y/b have 1."""
    ours, theirs = (path.split('/') if path else [] for path in (one, other))
    start = count_equal(ours, theirs)
    ours, theirs = ours[start:], theirs[start:]
    return max(len(ours), len(theirs)) - count_equal(reversed(ours), reversed(theirs))


def has_map_word(path: str) -> bool:
    """Return True if a word in a path is one for label maps."""
    return not MAP_WORDS.isdisjoint(re.split(r'[^a-z]+', path.lower())) or path.lower().endswith(
        ('annot', 'mask', 'masks', 'labels')
    )


def find_split(path: str) -> str:
    """Find the split in the words of a file's name, then of its folders from the inside; ``ALL`` if there is none."""
    pure = PurePosixPath(path)
    for part in (pure.stem, *reversed(pure.parts[:-1])):
        words = [_BEHIND.sub('', word) for word in re.split(r'[^a-z]+', part.lower())]
        found = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
        if len(found) == 1:
            return found.pop()
    return ALL


def split_of_folder(path: str) -> str:
    """Find the split in the name of a folder, then of those around it."""
    return find_split(f'{path}/x')


def assign_splits(parts: Mapping[str, Part], what: str, remedy: str) -> dict[str, Part]:
    """Return the parts of a data set by split, in order; one without a name of a split is for training.

    Args:
        parts: Parts by split, or by ``ALL``.
        what: What a part is, for messages.
        remedy: Remedy of the errors.

    Raises:
        DataError: No part is for training, or a part belongs to no split beside one for training.
    """
    if ALL in parts and 'train' in parts:
        alone, train = (part[0] if isinstance(part, list) else part for part in (parts[ALL], parts['train']))
        raise DataError(f'{alone} belongs to no split, but {train} is for training.', remedy)
    parts = {'train' if split == ALL else split: part for split, part in parts.items()}
    if 'train' not in parts:
        raise DataError(f'No {what} is for training, only for {" and ".join(parts)}.', remedy)
    return {split: parts[split] for split in SPLITS if split in parts}
