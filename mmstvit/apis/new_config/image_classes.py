"""Classes: a data set of images of which each has one class, by its folder or by a table."""

import difflib
import filecmp
import posixpath
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mmstvit.datasets.images import IMAGE_READER
from mmstvit.errors import DataError
from mmstvit.fileio import image_size

from .code import write_list
from .folder import Folder
from .options import NEXT_TO_CONFIG, Data, Options, first_names
from .splits import divide

_COMMON = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')


def describe_classes(
    class_of: Mapping[str, str],
    folder: Folder,
    options: Options,
    notes: Sequence[str],
    given: Mapping[str, Sequence[str]] | None = None,
    split_of: Callable[[str], str] | None = None,
) -> Data:
    """Split and describe a data set of images with classes.

    Lists of the images of each split state the labels: MMPreTrain would number the folders of each split by itself.

    Args:
        class_of: Image, relative to the root -> its class.
        folder: The folder.
        options: Options of the command.
        notes: What was found, line by line.
        given: See :func:`divide`.
        split_of: See :func:`divide`.

    Raises:
        DataError: The splits are ambiguous, or have other classes.
    """
    unusual = [image for image in class_of if not image.lower().endswith(_COMMON)]
    lost = {image for image in unusual if image_size(folder.root / image) is None}
    used = {image: name for image, name in class_of.items() if image not in lost}
    reason = f'{min(lost)}: {IMAGE_READER.find_fault(folder.root / min(lost))}' if lost else ''
    if not used:
        raise DataError(f'no image can be read, such as {reason}.')
    if len({*used.values()}) == len(used):
        raise DataError(
            f'Each class has one image: {first_names([*used.values()], 4)}. None is left for validation.',
            'Add images of each class. Folders of scenes or persons are no classes: name the annotations.',
        )
    notes = [*notes, *_find_in_two(used, folder)]
    parts, lines = divide(used, folder, options, used, given, split_of)
    notes += lines
    if lost:
        notes.append(f'left out: {len(lost)} images that cannot be decoded (first: {reason})')
    classes = sorted({used[image] for image in parts['train']})
    if 'test' in parts and not {used[image] for image in parts['test']} & {*classes}:
        notes.append(f'test: {len(parts.pop("test"))} images without the classes of train, for predict.py only')
    datasets, files = {}, {}
    numbers = {name: number for number, name in enumerate(classes)}
    for split, part in parts.items():
        _check_classes(split, {used[image] for image in part} - {*classes}, classes)
        top = posixpath.commonpath([posixpath.dirname(image) for image in part])
        lines = [f'{posixpath.relpath(image, top or ".")} {numbers[used[image]]}' for image in part]
        datasets[split] = dict(data_prefix=top, ann_file=f'{NEXT_TO_CONFIG}{split}.txt')
        files[f'{split}.txt'] = partial(bytes, write_list(lines))
        counts = Counter(used[image] for image in part)
        notes.append(f'{split}: {len(part)} images ({first_names([f"{counts[name]} {name}" for name in classes])})')
    return Data(
        task='classes',
        root=folder.root,
        classes=classes,
        datasets=datasets,
        counts={split: len(part) for split, part in parts.items()},
        images=[folder.root / image for part in parts.values() for image in part],
        notes=notes,
        comment='Sorted; the lists of images have their numbers from 0.',
        files=files,
    )


def _find_in_two(class_of: Mapping[str, str], folder: Folder) -> list[str]:
    """Return a warning about equal files of equal names in two classes, if there are any."""
    first: dict[str, str] = {}
    both = [
        (first[name], image)
        for image in class_of
        if class_of[first.setdefault(name := posixpath.basename(image), image)] != class_of[image]
    ]
    same = [pair for pair in both if filecmp.cmp(*(folder.root / path for path in pair), shallow=False)]
    text = f'warning: {len(same)} images have two classes (first: {" and ".join(same[0])})' if same else ''
    return [f'{text}: several classes per image are not supported; keep one copy'] if same else []


def _check_classes(split: str, foreign: set[str], classes: Sequence[str]) -> None:
    if foreign:
        near = difflib.get_close_matches(min(foreign), classes, n=1)
        hint = f' (train has {near[0]})' if near else ''
        raise DataError(
            f'{split} has classes that train does not have: {", ".join(sorted(foreign))}{hint}.',
            'Give a class the same name in every split.',
        )
