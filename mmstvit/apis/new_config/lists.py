"""Lists of images that say which of them are for training, validation and test."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from mmstvit.errors import DataError

from .class_names import read_text
from .folder import ALL, SPLITS, Folder, find_split, join
from .options import Options

_SUFFIXES = ('.txt', '.csv', '.lst', '.list')


def find_lists(folder: Folder, images: Iterable[str]) -> dict[str, tuple[str, list[str]]]:
    """Find lists whose names say a split, and of which most lines name an image.

    Args:
        folder: The folder.
        images: The images, relative to the root.

    Returns:
        Split -> the list and its images, in the order of the splits; empty if no list is for training.
    """
    by_name: dict[str, list[str]] = {}
    for path in images:
        pure = PurePosixPath(path)
        for name in {path, pure.name, pure.stem}:
            by_name.setdefault(name, []).append(path)
    found: dict[str, tuple[str, list[str]]] = {}
    for file in folder.with_suffix(*_SUFFIXES):
        split = find_split(f'{PurePosixPath(file).stem}/x') if _is_split(file) else ALL
        if split == ALL or split in found:
            continue
        lines = [line.strip() for line in read_text(folder.root / file).splitlines() if line.strip()]
        named = [image for line in lines if (image := _resolve(line, by_name, file)) is not None]
        if named and len(named) > 0.8 * len(lines):
            found[split] = file, list(dict.fromkeys(named))
    return {split: found[split] for split in SPLITS if split in found} if 'train' in found else {}


def _is_split(file: str) -> bool:
    """Return True for names such as train.txt and val_list.txt, of one split and few other words."""
    words = [word for word in re.split(r'[^a-z]+', PurePosixPath(file).stem.lower()) if word]
    return 0 < len(words) <= 3


def _resolve(line: str, by_name: dict[str, list[str]], file: str) -> str | None:
    """Return the only image that a line names, by its path or name; None if there is none or several."""
    text = re.split(r'[\s,;]', line)[0].replace('\\', '/').removeprefix('./')
    parent = PurePosixPath(file).parent.as_posix().removeprefix('.')
    parts = text.split('/')
    for name in (join(parent, text), text, *('/'.join(parts[i:]) for i in range(1, len(parts)))):
        images = by_name.get(name, [])
        if len(images) == 1:
            return images[0]
    return None


def describe_lists(folder: Folder, used: dict[str, tuple[str, list[str]]], options: Options) -> list[str]:
    """Return a line for each list that is used, and one about files whose names say a split and that are not.

    Raises:
        DataError: A file is called a split, and nothing else decides about the split.
    """
    of_images = {PurePosixPath(path).stem for path in folder.images}
    files = [file for file in folder.with_suffix(*_SUFFIXES) if _names_a_split(file)]
    files = [file for file in files if PurePosixPath(file).stem not in of_images]  # an image's own file
    unread = [file for file in files if file not in {file for file, _ in used.values()}]
    split = next((file for file in unread if 'split' in file.lower()), None)
    if split and not used and options.val is None:
        raise DataError(
            f'{folder.root / split} seems to say which images are for training, in a form that is not known.',
            'Write lists train.txt and val.txt with an image per line, or ignore it with --val 0.2.',
        )
    lines = [f'{split}: the images that {file} lists' for split, (file, _) in used.items()]
    if unread:
        lines.append(f'not used: {", ".join(unread[:3])}, which may say which images are for training')
    return lines


def _names_a_split(file: str) -> bool:
    words = set(re.split(r'[^a-z]+', PurePosixPath(file).stem.lower()))
    return 'split' in words or find_split(f'{PurePosixPath(file).stem}/x') != ALL
