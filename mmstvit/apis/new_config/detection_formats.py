"""Instances in the formats of YOLO, Pascal VOC and labelme: found in a folder, and read as COCO content."""

import filecmp
import re
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path, PurePosixPath

from mmstvit.datasets import importers
from mmstvit.datasets.importers import ImageAnnotations, YoloLabels
from mmstvit.errors import DataError
from mmstvit.fileio import IMAGE_SUFFIXES
from mmstvit.rules.headers import thin_out

from .class_names import Entry, find_names, parse_names, read_text
from .evidence import Evidence
from .folder import Folder, join, relative, split_of_folder
from .instances import Part, describe_instances, describe_missing, drop_unannotated
from .options import Data, Options, first_names
from .splits import Parts, divide
from .unread import MATRIX, describe_content

_SAMPLE = 30  # files that are looked at
_ATTRIBUTES = re.compile(r'[;|].*[:=]')  # class;color:red


@dataclass
class AnnotationFiles:
    """Files of annotations of one image each.

    Args:
        name: Name of the format.
        read: Reads a file; returns None for one of another kind.
        files: File -> its image; None if names decide.
        background: Images without a file, beside others, have no objects; else they are not used.
        classes: Names of the classes in the order of their numbers; empty for classes that have no numbers.
        splits: Split -> images, if the format says it.
        notes: What was found, line by line.
    """

    name: str
    read: Callable[[Path], ImageAnnotations | None]
    files: Mapping[str, str | None]
    background: bool = True
    classes: Sequence[str] = ()
    splits: Parts = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def look_for_yolo(folder: Folder, options: Options) -> Evidence:
    """Collect evidence for labels of YOLO."""
    evidence = Evidence()
    yamls = _find_yamls(folder, evidence)
    labels = _find_label_files(folder)
    files = dict(labels)
    sample = list(files)[:_SAMPLE]
    bad = [file for file in sample if not importers.is_label_file(folder.root / file)]
    if len(bad) == len(sample):
        texts = [] if sample or not folder.images else [*folder.with_suffix('.txt')]
        texts = [
            file for file in texts if importers.is_label_file(folder.root / file) and folder.read_head(file).strip()
        ]
        if len(texts) > 1 and not importers.are_in_pixels(folder.root / file for file in texts):
            named = {file: folder.images_named(PurePosixPath(file).stem) for file in texts}
            twice = next((f'{file} with {" and ".join(found[:2])}' for file, found in named.items() if found[1:]), '')
            seen = f'{len(texts)} files of labels of YOLO such as '
            if twice:
                evidence.refuse(f'{seen}{twice} have several images of their name', 'Move the other images away.')
            else:
                evidence.refuse(
                    f'{seen}{texts[0]}, but no image has the name of one', 'Give each file the name of its image.'
                )
        elif yamls:
            remedy = 'Name the folder with images and labels.'
            evidence.refuse(f'{evidence.reasons[0]}, but no image has a file of labels', remedy)
        return evidence
    good = next(file for file in sample if file not in bad)
    made_of, remedy = describe_content(folder, good)
    if remedy == MATRIX:  # the first value is no class
        evidence.refuse(f'label maps as text: {made_of}', remedy)
        return evidence
    if bad:
        evidence.add_against(f'{bad[0]} is not a file of labels of YOLO, but {good} is', 'Correct or remove the file.')
    evidence.reasons.append(f'{len(files)} of {len(folder.images)} images have a file of labels such as {good}')
    for found, what in (
        (labels, 'a file of labels has two images'),
        (map(reversed, labels), 'an image has two files of labels'),
    ):
        first: dict[str, str] = {}
        if two := [(one, first[one], other) for one, other in found if first.setdefault(one, other) != other]:
            evidence.refuse(
                f'{what}, {len(two)} times: {" with ".join(two[0][:2])} and {two[0][2]}',
                'Move one of them away, or rename both.',
            )
    if importers.are_in_pixels(folder.root / file for file in files):
        evidence.refuse(
            f'all lines of all files are in pixels, such as in {good}; YOLO has fractions of the image (0 to 1)',
            'Write class, x and y of the center, width and height: numbers divided by width and height of the image.',
        )
        evidence.used = {*files}
        return evidence
    named = yamls or {path: _with_names(entries) for path, entries in _find_names(folder, options).items()}
    given = _with_names(parse_names(options.classes)).names if options.classes and not yamls else []
    try:
        groups, classes = _group(folder, named, [*files], given)
    except DataError as error:
        evidence.refuse(error.problem, error.remedy)
        evidence.used = {*files}
        return evidence
    if options.classes and yamls:
        remedy = f'Omit --classes, or correct the names in {first_names([*yamls], 2)}.'
        evidence.add_against('--classes does not apply to labels whose names are in a YAML file', remedy)
    if not classes:
        evidence.add_against(
            'no file has the names of the classes (data.yaml, classes.txt)',
            'Name them in their order: --classes NAME NAME …',
        )
    for described, labels in groups.values():
        shapes = {options.shapes} if options.shapes else {'boxes'} if described.keypoints else None
        shapes = shapes or importers.find_shapes(folder.root / file for file in labels)
        if len(shapes) > 1:
            evidence.add_against(
                f'the lines may be boxes with keypoints or polygons, such as in {labels[0]}',
                'Choose: --shapes boxes or --shapes polygons.',
            )
        described.keypoints = shapes == {'boxes'}
    described_by = {folder.root / file: described for described, labels in groups.values() for file in labels}
    evidence.found = found = AnnotationFiles(
        'labels of YOLO', partial(_read_yolo, described_by=described_by), files, classes=classes
    )
    if len(groups) > 1:
        found.notes += [f'names of {path}: {len(labels)} files of labels' for path, (_, labels) in groups.items()]
    unused = [path for path in named if path not in groups and not given and named[path].names != classes]
    found.notes += [f'not used: the other names of {path}, in whose folder are no labels' for path in unused]
    try:
        found.splits = _join_splits(folder, groups, files, found.notes)
    except DataError as error:
        evidence.refuse(error.problem, error.remedy)
    texts = (file for file in folder.with_suffix('.txt') if file not in files)
    if alone := [file for file in texts if importers.is_label_file(folder.root / file)]:
        found.notes.append(f'not used: {len(alone)} files of labels without an image (first: {min(alone)})')
    # A YAML file describes images without labels, too: as background.
    evidence.used, evidence.coverage = {*files, *named}, 1.0 if yamls else len(files) / len(folder.images)
    return evidence


def _find_yamls(folder: Folder, evidence: Evidence) -> dict[str, YoloLabels]:
    """Find the YAML files that describe labels."""
    found, broken = {}, {}
    for path in folder.with_suffix('.yaml', '.yml'):
        if PurePosixPath(path).name == 'data.yaml' or len(path.split('/')) <= 2:
            try:
                described = importers.read_yolo_yaml(folder.root / path)
            except DataError as error:
                broken[path] = error
                continue
            if described is not None:
                evidence.reasons.append(f'{path} has {len(described.names)} names of classes')
                found[path] = described
    for path, error in broken.items():
        if not found or PurePosixPath(path).name == 'data.yaml':  # others may be about anything
            evidence.add_against(error.problem, error.remedy)
    return found


def _find_names(folder: Folder, options: Options) -> dict[str, list[Entry]]:
    """Find the files of names; one that cannot be read does not matter if ``--classes`` has the names."""
    try:
        return find_names(folder)
    except DataError:
        if options.classes:
            return {}
        raise


def _with_names(entries: Sequence[Entry]) -> YoloLabels:
    return YoloLabels([entry.name for entry in entries])


def _group(
    folder: Folder, named: Mapping[str, YoloLabels], files: Sequence[str], given: Sequence[str]
) -> tuple[dict[str, tuple[YoloLabels, list[str]]], list[str]]:
    """Group files of labels by the file of names that applies to them: the only one in a folder above, or the only one.

    Args:
        folder: The folder.
        named: File of names -> its content.
        files: The files of labels.
        given: Names of the option ``--classes``.

    Returns:
        File of names -> its content, and its files of labels; and the classes, joined by name.

    Raises:
        DataError: The files contradict each other, and it is not clear which applies to which labels.
    """
    tops = {path: path[: path.rfind('/') + 1] for path in named}
    above = {file: tuple(path for path, top in tops.items() if file.startswith(top)) for file in files}
    first = next(iter(named), '')
    other = next((path for path in named if named[path].names != named[first].names), None)
    groups = {path: (named[path], [file for file in files if above[file] == (path,)]) for path in named}
    groups = {path: group for path, group in groups.items() if group[1]}
    complete = sum(len(labels) for _, labels in groups.values()) == len(files)
    if complete and len(groups) > 1 and not (given and other is None):
        classes: list[str] = []
        for described, _ in groups.values():
            classes += [name for name in described.names if name not in classes]
        if given and {*given} != {*classes}:
            raise DataError(
                f'--classes has {first_names(given)}, but {" and ".join(groups)} have {first_names(classes)}, each for '
                'the labels in its folder',
                'Omit --classes: then the classes are joined by name.',
            )
        return groups, [*given] or classes
    same = len({*above.values()}) == 1 and (any(above.values()) or len({*tops.values()}) == 1)
    single = complete and len(groups) == 1
    if other is None or single or (given and same):
        path = next(iter(groups)) if single else first
        described = named.get(path, YoloLabels([]))
        described = replace(described, names=[*given] or described.names)
        return {path: (described, [*files])}, described.names
    numbered = list(zip_longest(named[first].names, named[other].names, fillvalue='no class'))
    number = next(i for i, (one, two) in enumerate(numbered) if one != two)
    one, two = numbered[number]
    inner = max(first, other, key=lambda path: path.count('/'))
    is_yaml = inner.lower().endswith(('.yaml', '.yml'))
    remedy = 'Give all labels one order of names, and remove the other files of names'
    if same and not is_yaml:
        remedy = 'Name the one that is right: --classes FILE'
    elif folder.below(tops[inner].rstrip('/')):
        place = folder.root / (inner if is_yaml else tops[inner])
        remedy += f', or train on one: new_config.py {shlex.quote(str(place))}'
    raise DataError(f'the number {number} is {one} in {first} and {two} in {other}', remedy)


def _read_yolo(path: Path, described_by: Mapping[Path, YoloLabels]) -> ImageAnnotations:
    """Read the labels of an image, with the names that apply to its file."""
    described = described_by[path]
    content = importers.read_yolo(path, described)
    return replace(content, objects=[replace(item, label=described.names[item.label]) for item in content.objects])


def _join_splits(
    folder: Folder,
    groups: Mapping[str, tuple[YoloLabels, Sequence[str]]],
    files: Mapping[str, str],
    notes: list[str],
) -> Parts:
    """Join the splits that the YAML files name; a group without any is for training beside others."""
    every = {path: _resolve_splits(folder, path, described, notes) for path, (described, _) in groups.items()}
    joined: Parts = {}
    for path, splits in every.items():
        for split, images in (splits or {'train': [files[file] for file in groups[path][1]]}).items():
            joined[split] = list(dict.fromkeys([*joined.get(split, ()), *images]))
    if len(groups) > 1:
        _refuse_folds(folder, joined, groups)
    return joined if any(every.values()) else {}


def _refuse_folds(folder: Folder, joined: Parts, paths: Collection[str]) -> None:
    """Refuse files of names of which one has for training what another has for validation; raises DataError."""
    trained = {image.rpartition('/')[2]: image for image in joined.get('train', ())}
    both = [(trained.get(image.rpartition('/')[2]), image) for image in joined.get('val', ())]
    shared = [
        val for train, val in both if train and filecmp.cmp(folder.root / train, folder.root / val, shallow=False)
    ]
    if 2 * len(shared) > len(both):
        raise DataError(
            f'{len(shared)} images such as {min(shared)} are for training in one of {first_names([*paths], 3)}, and '
            f'for validation in another, as in folds of a cross-validation',
            f'Name one: new_config.py {shlex.quote(str(folder.root / next(iter(paths))))}',
        )


def _find_label_files(folder: Folder) -> list[tuple[str, str]]:
    """Find the text files that may be labels of images, with the image of each.

    They are in labels/ for images/, or beside the image; if none is, in any folder, with the name of an image of the
    same split.
    """
    found = []
    for image in folder.images:
        stem = image[: -len(PurePosixPath(image).suffix)]
        start, mark, end = f'/{stem}'.rpartition('/images/')
        places = (*([f'{start}/labels/{end}.txt'[1:]] if mark else []), f'{stem}.txt')
        found += [(file, image) for file in places if file in folder.all_files][:1]
    by_split: dict[str, set[str]] = {}
    for image in () if found else folder.images:
        by_split.setdefault(split_of_folder(image.rpartition('/')[0]), set()).add(image)
    for file in folder.with_suffix('.txt') if by_split else ():
        top = file.rpartition('/')[0]
        image = folder.find_image(PurePosixPath(file).stem, top, by_split.get(split_of_folder(top)))
        found += [(file, image)] if image else []
    return found


def _resolve_splits(folder: Folder, yaml: str, described: YoloLabels, notes: list[str]) -> Parts:
    """Return the images of the splits that a YAML file names."""
    splits: Parts = {}
    here = yaml.rpartition('/')[0]
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
    folder.lists.add(file)
    lines = [line.strip() for line in read_text(folder.root / file).splitlines() if line.strip()]
    found = [folder.find_image(line, file.rpartition('/')[0]) for line in lines]
    if None in found:
        raise DataError(f'{folder.root / file} lists {lines[found.index(None)]}, which is not there.')
    return found


def look_for_voc(folder: Folder, options: Options) -> Evidence:
    """Collect evidence for XML files of Pascal VOC."""
    return _look(folder, '.xml', importers.read_voc, 'XML files of Pascal VOC', background=False)


def look_for_labelme(folder: Folder, options: Options) -> Evidence:
    """Collect evidence for JSON files of labelme."""
    return _look(folder, '.json', importers.read_labelme, 'JSON files of labelme', background=True)


def _look(
    folder: Folder, suffix: str, read: Callable[[Path], ImageAnnotations | None], name: str, background: bool
) -> Evidence:
    evidence, good = Evidence(), {}
    files = list(folder.with_suffix(suffix))
    for file in thin_out(files, _SAMPLE):
        try:
            if (content := read(folder.root / file)) is not None:
                good[file] = content
        except DataError as error:
            if suffix != '.json':  # the evidence for COCO says what is wrong with a JSON file
                evidence.add_against(error.problem, error.remedy)
    labels = {item.label for content in good.values() for item in content.objects}
    words = {reason for content in good.values() for reason in content.unused if reason.startswith('<')}
    if len(labels) == 1 and len(words) > 1:
        evidence.add_against(
            f'all objects are called {labels.pop()}, but they differ in {first_names(sorted(words), 4)}, which is not '
            'read; if these are the classes, write a table (docs/own_data.md)'
        )
    if odd := min(filter(_ATTRIBUTES.search, labels), default=''):
        bare = {_ATTRIBUTES.split(label)[0] for label in labels}
        evidence.add_against(
            f'names of classes such as {odd} have attributes; without them: {first_names(sorted(bare), 4)}'
        )
    if masked := [file for file, content in good.items() if importers.MASK in content.unused]:
        evidence.refuse(
            f'{name} with shapes of the type mask (AI-Mask), which are not read, such as {masked[0]}',
            'Convert them to polygons, or export the objects in COCO format.',
        )
    if not labels and (flagged := [file for file, content in good.items() if importers.FLAGS in content.unused]):
        evidence.refuse(
            f'{name} with flags of the images and without shapes, such as {flagged[0]}',
            'If a flag is the class of an image, write a table: docs/own_data.md, "Tables".',
        )
    if good:
        evidence.reasons.append(f'{len(files)} {name} for {len(folder.images)} images, such as {next(iter(good))}')
        evidence.found = AnnotationFiles(name, read, dict.fromkeys(files), background)
        evidence.used, evidence.coverage = {*files}, len(files) / max(1, len(folder.images))
    return evidence


def read_files(found: AnnotationFiles, folder: Folder, options: Options) -> Data:
    """Read a data set with a file of annotations for each image.

    The image of a file is the one that is called like it, or else the one that it names.

    Raises:
        DataError: Images are missing, there are no objects, or the splits are ambiguous.
    """
    annotations, missing, copied, renamed = {}, [], [], []
    for file, image in found.files.items():
        content = found.read(folder.root / file)
        if content is None:
            continue
        if image is None:
            near, stem = file.rpartition('/')[0], PurePosixPath(file).stem
            named = PurePosixPath(content.image.replace('\\', '/')).name  # its folders are those of another computer
            image, other = folder.find_image(stem, near), folder.find_image(named, near) if named else None
            renamed += [(file, named)] if image and other and image != other else []
            image = image or other
        if image is None:
            (copied if folder.images_named(PurePosixPath(file).stem) else missing).append(file)
        else:
            annotations[image] = content
    if copied and not options.skip_missing:
        images = [path for path in folder.images if PurePosixPath(path).stem == PurePosixPath(copied[0]).stem]
        raise DataError(
            f'{len(copied)} of the {len(found.files)} {found.name} have several images of their name (first: '
            f'{copied[0]}, with {" and ".join(images[:3])}).',
            'Move the copies away, or leave these files out with --skip-missing.',
        )
    copies = [f'left out {len(copied)} {found.name} whose images have copies (first: {copied[0]})'] if copied else []
    notes = copies + describe_missing(missing, len(found.files), f'images of {found.name}', folder.root, options)
    if renamed:
        first = '{} names {}'.format(*renamed[0])
        notes.append(
            f'warning: {len(renamed)} files name other images than those called like them, which are taken '
            f'(first: {first})'
        )
    tops = {image.rpartition('/')[0] for image in annotations}
    listed = {image for part in found.splits.values() for image in part}
    alone = [i for i in folder.images if i not in annotations and (i.rpartition('/')[0] in tops or i in listed)]
    if alone and found.background:
        annotations |= dict.fromkeys(alone, ImageAnnotations())
        notes.append(f'{len(alone)} images are background')
    elif alone:
        notes.append(f'not used: {len(alone)} images without one of the {found.name} (first: {alone[0]})')
    notes += found.notes
    return describe_files(found.name, annotations, folder, options, notes, found.splits, found.classes)


def describe_files(
    name: str,
    annotations: dict[str, ImageAnnotations],
    folder: Folder,
    options: Options,
    notes: Sequence[str],
    given: Parts,
    classes: Sequence[str] = (),
) -> Data:
    """Split and describe annotations that were read from another format.

    Args:
        name: Name of the format.
        annotations: Image, relative to the root -> its annotations.
        folder: The folder.
        options: Options of the command.
        notes: What was found, line by line.
        given: Split -> images, if the format says it.
        classes: Names of the classes in the order of their numbers; empty for classes that have no numbers.

    Raises:
        DataError: There are no objects, or the splits are ambiguous.
    """
    classes = classes or sorted({item.label for content in annotations.values() for item in content.objects})
    if not any(content.objects for content in annotations.values()):
        raise DataError(
            f'{folder.root} has no objects of a class ({"; ".join([f"{len(annotations)} images are read", *notes])}).'
        )
    divided, lines = divide(annotations, folder, options, given=given, take_val=False)
    notes = [f'{name}: {len(annotations)} images', *notes, *folder.unused({i.rpartition('/')[0] for i in annotations})]
    unused = sum((annotations[image].unused for part in divided.values() for image in part), Counter())
    notes += [*lines, *(f'not used: {count} × {reason}' for reason, count in unused.items())]
    objects = [item for content in annotations.values() for item in content.objects]
    rectangles = sum(item.is_rectangle for item in objects)
    if rectangles == len(objects):  # a mask learned from a box would be wrong at its corners
        annotations = {image: _without_masks(content) for image, content in annotations.items()}
    elif rectangles:
        notes.append(
            f'{rectangles} of {len(objects)} objects are rectangles, others have outlines: all are learned as masks '
            '(as boxes: --model faster-rcnn)'
        )
    shapes = [polygon for item in objects if not item.is_rectangle for polygon in item.polygons]
    if shapes and all(len(polygon) == 8 for polygon in shapes):
        notes.append('all polygons have four corners, as rotated boxes have: they are learned as masks')
    parts = {}
    for split, part in divided.items():
        content = importers.to_coco(folder.root, {image: annotations[image] for image in part}, classes)
        parts[split] = Part(folder.root, content, folder.root, changed=True)
    return describe_instances(parts, [*notes, *drop_unannotated(parts)], folder, options)


def _without_masks(content: ImageAnnotations) -> ImageAnnotations:
    boxes = [replace(item, box=importers.bounding_box(item.polygons), polygons=()) for item in content.objects]
    return replace(content, objects=boxes)
