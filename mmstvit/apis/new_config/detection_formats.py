"""Instances in the formats of YOLO, Pascal VOC and labelme: found in a folder, and read as COCO content."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

from mmstvit.datasets.importers import CocoTable, YoloLabels, read_labelme, read_voc, read_yolo, read_yolo_yaml
from mmstvit.datasets.importers.labelme import NO_CLASS, parse_labelme
from mmstvit.datasets.importers.voc import parse_voc
from mmstvit.datasets.importers.yolo import is_label_file
from mmstvit.errors import DataError
from mmstvit.fileio import IMAGE_SUFFIXES

from .class_names import choose_names, parse_names
from .evidence import Evidence
from .folder import Folder, join, relative
from .instances import Part, describe_instances, drop_unannotated
from .options import Data, Options, first_names
from .splits import Parts, divide

Content = TypeVar('Content')
_SAMPLE = 30  # files that are looked at


@dataclass
class Labels:
    """Images with labels of YOLO.

    Args:
        files: Image -> its file; None for an image without one.
        described: Content of data.yaml.
        splits: Split -> images, as data.yaml has them.
        notes: What was found, line by line.
    """

    files: dict[str, str | None]
    described: YoloLabels
    splits: Parts = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def look_for_yolo(folder: Folder, options: Options) -> Evidence:
    """Collect evidence for labels of YOLO."""
    evidence = Evidence()
    yaml, described = _find_yaml(folder, evidence)
    labels = {image: next((f for f in _label_files(image) if f in folder.all_files), None) for image in folder.images}
    named = [file for file in labels.values() if file is not None]
    good = [file for file in named[:_SAMPLE] if is_label_file(folder.root / file)]
    if good and len(good) == len(named[:_SAMPLE]):
        evidence.add_for(f'{len(named)} of {len(labels)} images have a file of labels such as {good[0]}')
    elif good:
        bad = next(file for file in named if file not in good)
        evidence.add_against(f'{bad} is not a file of labels of YOLO, but {good[0]} is', 'Correct or remove the file.')
    elif described is not None:
        evidence.refuse(
            f'{evidence.reasons[0]}, but no image has a file of labels', 'Name the folder with images and labels.'
        )
    if not good:
        return evidence
    # An image without a label is background in a folder of labeled images; others are something else.
    tops = {image.rpartition('/')[0] for image, file in labels.items() if file is not None}
    used = {image: file for image, file in labels.items() if image.rpartition('/')[0] in tops}
    found = Labels(used, described or YoloLabels([]))
    if others := len(labels) - len(used):
        found.notes.append(f'not used: {others} images in folders without labels')
    if described is not None:
        found.splits = _resolve_splits(folder, yaml, described, found.notes)
    else:
        entries = parse_names(options.classes) if options.classes else choose_names(folder)[0]
        found.described.names = [entry.name for entry in entries]
        if not entries:
            evidence.add_against(
                'no file has the names of the classes (data.yaml, classes.txt)',
                'Name them in their order: --classes NAME NAME …',
            )
    alone = [file for file in folder.with_suffix('.txt') if file not in {*named} and is_label_file(folder.root / file)]
    if alone:
        found.notes.append(f'not used: {len(alone)} files of labels without an image (first: {min(alone)})')
    evidence.found, evidence.used, evidence.coverage = found, {*named}, len(used) / len(labels)
    return evidence


def _find_yaml(folder: Folder, evidence: Evidence) -> tuple[str, YoloLabels | None]:
    """Find the YAML file that describes the labels."""
    for path in folder.with_suffix('.yaml', '.yml'):
        if PurePosixPath(path).name == 'data.yaml' or len(path.split('/')) <= 2:
            try:
                described = read_yolo_yaml(folder.root / path)
            except DataError as error:
                evidence.add_against(error.problem, error.remedy)
                continue
            if described is not None:
                evidence.add_for(f'{path} has {len(described.names)} names of classes')
                return path, described
    return '', None


def _label_files(image: str) -> list[str]:
    """Return where the labels of an image may be: in labels/ for images/, or beside it."""
    stem = image[: -len(PurePosixPath(image).suffix)]
    start, mark, end = f'/{stem}'.rpartition('/images/')
    return [f'{stem}.txt', *([f'{start}/labels/{end}.txt'[1:]] if mark else [])][::-1]


def _resolve_splits(folder: Folder, yaml: str, described: YoloLabels, notes: list[str]) -> Parts:
    """Return the images of the splits that a YAML file names."""
    splits: Parts = {}
    here = PurePosixPath(yaml).parent.as_posix().removeprefix('.')
    for split, values in described.splits.items():
        images: list[str] = []
        for value in values:
            place = _resolve(folder, here, described.path, value)
            if place is None:
                notes.append(f'{split}: {yaml} names {value}, which is not below {folder.root}')
            elif place.endswith('.txt'):
                images += _read_list(folder, place)
            elif place.lower().endswith(IMAGE_SUFFIXES):
                images.append(place)
            else:
                images += [join(place, path) for path in folder.below(place)]
        if images:
            splits[split] = list(dict.fromkeys(images))
    return splits


def _resolve(folder: Folder, here: str, path: str, value: str) -> str | None:
    """Return the place below the folder that a path in a YAML file names; None if it is not there."""
    value, path = value.replace('\\', '/').rstrip('/'), path.replace('\\', '/').rstrip('/')
    tries = [join(here, path, value), join(here, value), join(path, value), value]
    parts = value.split('/')
    tries += [join(here, *parts[i:]) for i in range(1, len(parts))]  # paths of other computers, and ../
    for attempt in tries:
        place = relative(folder.root / attempt, folder.root)
        if not place.startswith('/') and (place in folder.all_files or folder.below(place) if place else True):
            return place
    return None


def _read_list(folder: Folder, file: str) -> list[str]:
    """Read a list of images; raises DataError if one of them is not there."""
    near, found = PurePosixPath(file).parent.as_posix().removeprefix('.'), []
    for number, line in enumerate((folder.root / file).read_text(encoding='utf-8-sig').splitlines(), 1):
        if line.strip():
            image = folder.find_image(line.strip(), near)
            if image is None:
                raise DataError(f'{folder.root / file}, line {number}: {line.strip()} is not there.')
            found.append(image)
    return found


def read_yolo_data(found: Labels, folder: Folder, options: Options) -> Data:
    """Read a data set of YOLO; raises DataError for a line that is not a label."""
    files, described = found.files, found.described
    notes = [
        f'labels of YOLO for {sum(file is not None for file in files.values())} images, '
        f'{sum(file is None for file in files.values())} images are background',
        *found.notes,
    ]
    return _describe(
        lambda part: read_yolo(
            folder.root, {image: files.get(image) for image in part}, described.names, described.keypoints
        ),
        divide(files, folder, options, given=found.splits, take_val=False),
        notes,
        folder,
        options,
    )


def look_for_voc(folder: Folder, options: Options) -> Evidence:
    """Collect evidence for XML files of Pascal VOC."""
    return _look(folder, '.xml', parse_voc, 'XML files of Pascal VOC')


def look_for_labelme(folder: Folder, options: Options) -> Evidence:
    """Collect evidence for JSON files of labelme."""
    evidence = _look(folder, '.json', parse_labelme, 'JSON files of labelme')
    evidence.against.clear()  # the evidence for COCO says what is wrong with a file
    return evidence


def _look(folder: Folder, suffix: str, parse: Callable[[Path], object], name: str) -> Evidence:
    """Collect evidence for files of one image each."""
    evidence, good = Evidence(), []
    files = list(folder.with_suffix(suffix))
    for file in files[:_SAMPLE]:
        try:
            if parse(folder.root / file) is not None:
                good.append(file)
        except DataError as error:
            evidence.add_against(error.problem, error.remedy)
    if good:
        evidence.add_for(f'{len(files)} {name} such as {good[0]}')
        evidence.found, evidence.used = files, {*files}
        evidence.coverage = len(files) / max(1, len(folder.images))
    return evidence


def read_voc_data(files: list[str], folder: Folder, options: Options) -> Data:
    """Read a data set of Pascal VOC; raises DataError if most images are missing."""
    parsed, lost = _match(files, folder, parse_voc, lambda found: found[0], 'XML files', options)
    classes = sorted({item.name for _, found in parsed.values() for item in found})
    notes = [f'Pascal VOC: {len(parsed)} images, classes {first_names(classes)}', *lost]
    tops = {image.rpartition('/')[0] for image in parsed}
    if alone := sum(image not in parsed and image.rpartition('/')[0] in tops for image in folder.images):
        notes.append(f'not used: {alone} images without an XML file')
    return _describe(
        lambda part: read_voc(folder.root, {image: parsed[image][1] for image in part}, classes),
        divide(parsed, folder, options, take_val=False),
        notes,
        folder,
        options,
    )


def read_labelme_data(files: list[str], folder: Folder, options: Options) -> Data:
    """Read a data set of labelme; raises DataError if most images are missing."""
    contents, lost = _match(
        files, folder, parse_labelme, lambda content: str(content.get('imagePath') or ''), 'JSON files', options
    )
    labels = Counter(shape['label'] for content in contents.values() for shape in content['shapes'])
    classes = sorted(name for name in labels if name not in NO_CLASS)
    if not classes:
        raise DataError(f'The files of labelme in {folder.root} have no shape with a class.')
    every = {**contents, **{image: dict(shapes=[]) for image in folder.images if image not in contents}}
    notes = [
        f'labelme: {len(contents)} images with a file of shapes, {len(every) - len(contents)} without, classes '
        f'{first_names(classes)}',
        *lost,
    ]
    return _describe(
        lambda part: read_labelme(folder.root, {image: every[image] for image in part}, classes),
        divide(every, folder, options, take_val=False),
        notes,
        folder,
        options,
    )


def _match(
    files: Sequence[str],
    folder: Folder,
    parse: Callable[[Path], Content | None],
    name_of: Callable[[Content], str],
    what: str,
    options: Options,
) -> tuple[dict[str, Content], list[str]]:
    """Parse files of annotations, and find the image of each: by the name in it, or else by its own.

    Returns:
        Content by image; and a line about the files that are left out, if there are any.

    Raises:
        DataError: Images are missing, and ``--skip-missing`` is not given; or most are.
    """
    contents, missing = {}, []
    for file in files:
        content = parse(folder.root / file)
        if content is None:
            continue
        pure = PurePosixPath(file)
        near = pure.parent.as_posix().removeprefix('.')
        named = PurePosixPath(name_of(content).replace('\\', '/')).name  # its folders are those of another computer
        image = (folder.find_image(named, near) if named else None) or folder.find_image(pure.stem, near)
        if image is None:
            missing.append(file)
        else:
            contents[image] = content
    if not missing:
        return contents, []
    most = 2 * len(missing) > len(files)
    if most or not options.skip_missing:
        raise DataError(
            f'{len(missing)} of {len(files)} {what} have no image (first: {missing[0]}).',
            'Put the images into the folder.'
            if most
            else 'Add the images, or train on the others with --skip-missing.',
        )
    return contents, [f'left out: {len(missing)} files whose image is missing (first: {missing[0]})']


def _describe(
    read: Callable[[Sequence[str]], CocoTable],
    divided: tuple[Mapping[str, Sequence[str]], list[str]],
    notes: list[str],
    folder: Folder,
    options: Options,
) -> Data:
    """Read the parts of a data set, and go on as with COCO files."""
    tables = {split: read(part) for split, part in divided[0].items()}
    unused = sum((table.unused for table in tables.values()), Counter())
    notes += [*divided[1], *(f'not used: {count} × {reason}' for reason, count in unused.items())]
    if not any(table.annotations for table in tables.values()):
        raise DataError(f'{folder.root} has no objects.')
    masks = [polygon for table in tables.values() for entry in table.annotations for polygon in entry['segmentation']]
    if masks and all(len(polygon) == 8 for polygon in masks):
        notes.append('all polygons have four corners, as rotated boxes have: they are learned as masks')
    parts = {split: Part(folder.root, table.content, folder.root, changed=True) for split, table in tables.items()}
    notes += drop_unannotated(parts)
    return describe_instances(parts, notes, folder, options)
