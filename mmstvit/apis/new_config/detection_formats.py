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

from .class_names import find_names, parse_names
from .evidence import Evidence
from .folder import Folder, assign_splits, find_split, join, relative
from .instances import Part, describe_instances, drop_unannotated
from .lists import describe_lists, find_lists
from .options import Data, Options, first_names
from .pairing import has_map_word

Content = TypeVar('Content')
_SAMPLE = 30  # files that are looked at
_NAME_ONE = 'Name a folder in which train, val and test are folders, or which has no splits.'


@dataclass
class FileOfImage:
    """Images with a file of annotations each.

    Args:
        files: Image -> its file; None for an image without one.
        splits: Split -> images; empty if the folders decide.
        names: Names of the classes of YOLO.
        keypoints: Labels of YOLO have keypoints after the box.
        notes: What was found, line by line.
    """

    files: dict[str, str | None]
    splits: dict[str, list[str]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    keypoints: bool = False
    notes: list[str] = field(default_factory=list)

    def by_split(self) -> dict[str, list[str]]:
        """Return the images of each split."""
        splits = dict(self.splits)
        for image in () if splits else self.files:
            splits.setdefault(find_split(image), []).append(image)
        return assign_splits({split: images for split, images in splits.items() if images}, 'image', _NAME_ONE)


class Images:
    """The images of a folder, to be found by what an annotation file says of them."""

    def __init__(self, folder: Folder) -> None:
        self.all = frozenset(folder.images)
        self._by_stem: dict[str, list[str]] = {}
        for path in folder.images:
            self._by_stem.setdefault(PurePosixPath(path).stem, []).append(path)

    def find(self, file: str, named: str = '') -> str | None:
        """Find the image of an annotation file: beside it, in a folder beside its own, or the only one of its name.

        Args:
            file: The annotation file.
            named: Name of the image in it; may be empty or a path of another computer.
        """
        parent, stem = PurePosixPath(file).parent.as_posix().removeprefix('.'), PurePosixPath(file).stem
        named = PurePosixPath(named.replace('\\', '/')).name
        candidates = self._by_stem.get(PurePosixPath(named).stem) or self._by_stem.get(stem, [])
        # Label maps have the same stem, as in Pascal VOC.
        exact = [path for path in candidates if PurePosixPath(path).name == named]
        candidates = exact or [path for path in candidates if not has_map_word(path.rpartition('/')[0])] or candidates
        if len(candidates) > 1:
            nearest = min(_distance(path, parent) for path in candidates)
            candidates = [path for path in candidates if _distance(path, parent) == nearest]
        return candidates[0] if len(candidates) == 1 else None


def _distance(path: str, folder: str) -> int:
    """Count the folders that differ between the path of an image and a folder."""
    ours, theirs = path.split('/')[:-1], folder.split('/') if folder else []
    common = 0
    while common < min(len(ours), len(theirs)) and ours[common] == theirs[common]:
        common += 1
    return len(ours) + len(theirs) - 2 * common


def look_for_yolo(folder: Folder, options: Options) -> Evidence:
    """Collect evidence for labels of YOLO."""
    evidence = Evidence()
    texts = list(folder.with_suffix('.txt'))
    described = None
    for path in folder.with_suffix('.yaml', '.yml'):
        if PurePosixPath(path).name == 'data.yaml' or len(path.split('/')) <= 2:
            try:
                described = read_yolo_yaml(folder.root / path)
            except DataError as error:
                evidence.add_against(error.problem)
                evidence.remedy = error.remedy
            if described is not None:
                evidence.add_for(f'{path} has {len(described.names)} names of classes')
                break
    labels = {image: next((f for f in _label_files(image) if f in folder.all_files), None) for image in folder.images}
    named = [file for file in labels.values() if file is not None]
    good = [file for file in named[:_SAMPLE] if is_label_file(folder.root / file)]
    if named and len(good) == len(named[:_SAMPLE]):
        evidence.add_for(f'{len(named)} of {len(labels)} images have a file of labels such as {good[0]}')
    elif named and good:
        bad = next(file for file in named if file not in good)
        evidence.add_against(f'{bad} is not a file of labels of YOLO, but {good[0]} is')
        evidence.remedy = 'Correct or remove the file.'
    if not good:
        if described is not None:
            evidence.refuse(
                f'{evidence.reasons[0]}, but no image has a file of labels', 'Name the folder with images and labels.'
            )
        return evidence
    # An image without a label is background in a folder of labeled images; others are something else.
    tops = {image.rpartition('/')[0] for image, file in labels.items() if file is not None}
    found = FileOfImage({image: file for image, file in labels.items() if image.rpartition('/')[0] in tops})
    others = len(labels) - len(found.files)
    if others:
        found.notes.append(f'not used: {others} images in folders without labels')
    if described is not None:
        found.splits = _resolve_splits(folder, path, described, found.notes)
        found.names, found.keypoints = described.names, described.keypoints
    else:
        entries = parse_names(options.classes) if options.classes else find_names(folder)[0]
        found.names = [entry.name for entry in entries]
        if not found.names:
            evidence.add_against('no file has the names of the classes (data.yaml, classes.txt)')
            evidence.remedy = 'Name them in their order: --classes NAME NAME …'
    if not found.splits:
        lists = find_lists(folder, found.files)
        found.splits = {
            split: [image for image in images if image in found.files] for split, (_, images) in lists.items()
        }
        texts = [path for path in texts if path not in {file for file, _ in lists.values()}]
        found.notes += describe_lists(folder, lists, options)
    alone = set(texts) - set(named) - {path for path in texts if not is_label_file(folder.root / path)}
    if alone:
        found.notes.append(f'not used: {len(alone)} files of labels without an image (first: {min(alone)})')
    evidence.found = found
    return evidence


def _label_files(image: str) -> list[str]:
    """Return where the labels of an image may be: in labels/ for images/, or beside it."""
    stem = image[: -len(PurePosixPath(image).suffix)]
    start, mark, end = f'/{stem}'.rpartition('/images/')
    return [f'{stem}.txt', *([f'{start}/labels/{end}.txt'[1:]] if mark else [])][::-1]


def _resolve_splits(folder: Folder, yaml: str, described: YoloLabels, notes: list[str]) -> dict[str, list[str]]:
    """Return the images of the splits that a YAML file names."""
    splits: dict[str, list[str]] = {}
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
    unused = len(set(folder.images) - {image for images in splits.values() for image in images})
    if splits and unused:
        notes.append(f'not used: {unused} images that are in no split of {yaml}')
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
    top = PurePosixPath(file).parent.as_posix().removeprefix('.')
    found = []
    for number, line in enumerate((folder.root / file).read_text(encoding='utf-8-sig').splitlines(), 1):
        if line.strip():
            place = _resolve(folder, top, '', line.strip())
            if place is None:
                raise DataError(f'{folder.root / file}, line {number}: {line.strip()} is not there.')
            found.append(place)
    return found


def read_yolo_data(found: FileOfImage, folder: Folder, options: Options) -> Data:
    """Read a data set of YOLO; raises DataError for a line that is not a label."""
    tables = {
        split: read_yolo(folder.root, {image: found.files.get(image) for image in images}, found.names, found.keypoints)
        for split, images in found.by_split().items()
    }
    background = sum(file is None for file in found.files.values())
    notes = [f'labels of YOLO for {len(found.files) - background} images, {background} images are background']
    return _describe(tables, [*notes, *found.notes], folder, options)


def look_for_voc(folder: Folder, options: Options) -> Evidence:
    """Collect evidence for XML files of Pascal VOC."""
    evidence = Evidence()
    files = list(folder.with_suffix('.xml'))
    sample = files[:_SAMPLE]
    try:
        good = [file for file in sample if parse_voc(folder.root / file) is not None]
    except DataError as error:
        evidence.add_against(error.problem)
        evidence.remedy = error.remedy
        good = sample
    if not good:
        return evidence
    evidence.add_for(f'{len(files)} XML files of Pascal VOC such as {good[0]}')
    evidence.found = files
    return evidence


def read_voc_data(files: list[str], folder: Folder, options: Options) -> Data:
    """Read a data set of Pascal VOC; raises DataError if most images are missing."""
    parsed, of_file, lost = _match(files, folder, parse_voc, lambda found: found[0], 'XML files', options)
    objects = {image: found for image, (_, found) in parsed.items()}
    classes = sorted({item.name for found in objects.values() for item in found})
    described = FileOfImage(of_file, _image_sets(folder, of_file))
    tables = {
        split: read_voc(folder.root, {image: objects[image] for image in part}, classes)
        for split, part in described.by_split().items()
    }
    notes = [f'Pascal VOC: {len(objects)} images, classes {first_names(classes)}', *lost]
    used = sum(len(table.images) for table in tables.values())
    if used < len(objects):
        notes.append(f'not used: {len(objects) - used} images that ImageSets does not list')
    return _describe(tables, notes, folder, options)


def _image_sets(folder: Folder, files: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the images of the splits in ImageSets/Main (or Segmentation, Layout)."""
    by_stem = {PurePosixPath(file).stem: image for image, file in files.items()}
    for kind in ('Main', 'Segmentation', 'Layout', ''):
        splits = {}
        for split in ('train', 'val', 'test', 'trainval'):
            end = join('ImageSets', kind, f'{split}.txt')
            path = next((path for path in folder.with_suffix('.txt') if f'/{path}'.endswith(f'/{end}')), None)
            if path is not None:
                stems = [line.split()[0] for line in (folder.root / path).read_text().splitlines() if line.strip()]
                splits[split] = [
                    by_stem[PurePosixPath(stem).stem if '/' in stem else stem] for stem in stems if stem in by_stem
                ]
        both = splits.pop('trainval', [])
        if 'train' not in splits and both:
            splits['train'] = both
        if splits.get('train'):
            return splits
    return {}


def look_for_labelme(folder: Folder, options: Options) -> Evidence:
    """Collect evidence for JSON files of labelme."""
    evidence = Evidence()
    files = list(folder.with_suffix('.json'))
    good = []
    for file in files[:_SAMPLE]:
        try:
            if parse_labelme(folder.root / file) is not None:
                good.append(file)
        except DataError:  # the evidence for COCO says what is wrong with the file
            continue
    if not good:
        return evidence
    evidence.add_for(f'JSON files of labelme such as {good[0]}')
    evidence.found = files
    return evidence


def read_labelme_data(files: list[str], folder: Folder, options: Options) -> Data:
    """Read a data set of labelme; raises DataError if most images are missing."""
    contents, of_file, lost = _match(
        files, folder, parse_labelme, lambda content: str(content.get('imagePath') or ''), 'JSON files', options
    )
    labels = Counter(shape['label'] for content in contents.values() for shape in content['shapes'])
    classes = sorted(name for name in labels if name not in NO_CLASS)
    if not classes:
        raise DataError(f'The files of labelme in {folder.root} have no shape with a class.')
    files_of = FileOfImage({**of_file, **{image: None for image in folder.images if image not in of_file}})
    tables = {
        split: read_labelme(folder.root, {image: contents.get(image, dict(shapes=[])) for image in part}, classes)
        for split, part in files_of.by_split().items()
    }
    background = len(files_of.files) - len(of_file)
    notes = [
        f'labelme: {len(of_file)} images with a file of shapes, {background} without, classes {first_names(classes)}'
    ]
    return _describe(tables, [*notes, *lost], folder, options)


def _match(
    files: Sequence[str],
    folder: Folder,
    parse: Callable[[Path], Content | None],
    name_of: Callable[[Content], str],
    what: str,
    options: Options,
) -> tuple[dict[str, Content], dict[str, str], list[str]]:
    """Parse files of annotations, and find the image of each.

    Returns:
        Content by image; file by image; and a line about the files that are left out, if there are any.

    Raises:
        DataError: Images are missing, and ``--skip-missing`` is not given; or most are.
    """
    images, missing = Images(folder), []
    contents, of_file = {}, {}
    for file in files:
        content = parse(folder.root / file)
        if content is None:
            continue
        image = images.find(file, name_of(content))
        if image is None:
            missing.append(file)
        else:
            contents[image], of_file[image] = content, file
    if not missing:
        return contents, of_file, []
    most = 2 * len(missing) > len(files)
    if most or not options.skip_missing:
        raise DataError(
            f'{len(missing)} of {len(files)} {what} have no image (first: {missing[0]}).',
            'Put the images into the folder.'
            if most
            else 'Add the images, or train on the others with --skip-missing.',
        )
    return contents, of_file, [f'left out: {len(missing)} files whose image is missing (first: {missing[0]})']


def _describe(tables: Mapping[str, CocoTable], notes: list[str], folder: Folder, options: Options) -> Data:
    """Go on as with COCO files."""
    unused = Counter()
    for table in tables.values():
        unused.update(table.unused)
    notes += [f'not used: {count} × {reason}' for reason, count in unused.items()]
    if not any(table.annotations for table in tables.values()):
        raise DataError(f'{folder.root} has no objects.')
    parts = {split: Part(folder.root, table.content, folder.root, changed=True) for split, table in tables.items()}
    notes += drop_unannotated(parts)
    return describe_instances(parts, notes, folder, options)
