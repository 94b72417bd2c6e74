"""Instances: COCO annotation files, and tables that were read from other formats, as a data set."""

import contextlib
import difflib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from mmstvit.datasets.coco import summarize
from mmstvit.datasets.json_files import read_json
from mmstvit.datasets.splitting import split_content
from mmstvit.errors import DataError
from mmstvit.fileio import open_file
from mmstvit.rules.annotations import find_outside
from mmstvit.rules.coco_format import find_defects, repair
from mmstvit.rules.image_folder import ImageFolder
from mmstvit.rules.kinds import FAULT, KINDS

from .evidence import Evidence
from .folder import ALL, Folder, assign_splits, find_split, relative, split_of_folder
from .options import NEXT_TO_CONFIG, Data, Options, first_names

# Names of COCO's other annotations of the same images.
_OTHER_TASKS = ('captions', 'image_info', 'panoptic', 'person_keypoints', 'stuff')
_NAME_ONE = 'Name the annotation file to train on: new_config.py FILE.json [--val FILE.json]'
_KEYS = (b'"images"', b'"categories"', b'"annotations"')
_MOST_NAMES = 1000  # of images, among which one like a missing one is looked for
_MOST_BROKEN = 50  # JSON files of which each is parsed to see whether it is sound


@dataclass
class Part:
    """A split of a data set in COCO format.

    Args:
        file: The annotation file, or the folder that was read from another format.
        content: Its content.
        images: Folder of its images.
        changed: The content is not that of a file.
    """

    file: Path
    content: dict
    images: Path | None = None
    changed: bool = False

    def __str__(self) -> str:
        return str(self.file)

    def replace(self, **lists: Sequence) -> None:
        """Replace lists of the content."""
        self.content, self.changed = {**self.content, **lists}, True

    def path(self, image: Mapping) -> Path:
        """Return the path of an image."""
        return self.images / image['file_name']


def look_for_coco(folder: Folder, options: Options) -> Evidence:
    """Collect evidence for annotation files in COCO format."""
    evidence = Evidence()
    files = [PurePosixPath(path) for path in folder.with_suffix('.json')]
    if any('instances' in file.name for file in files):
        files = [file for file in files if not file.name.startswith(_OTHER_TASKS)]
    found: dict[str, list[Part]] = {}
    for file in files:
        try:
            content = _read_coco(folder.root / file, parse_all=len(files) <= _MOST_BROKEN)
        except DataError as error:
            evidence.add_against(error.problem, error.remedy)
            continue
        if content is not None and _has_labels_only(content):
            evidence.used.add(str(file))
            evidence.refuse(
                f'{file} has a class for each image (image_id, category_id), and no boxes or masks',
                'docs/own_data.md, "Tables", makes a table of it.',
            )
        elif content is not None:
            split = ALL if len(files) == 1 else find_split(str(file))
            found.setdefault(split, []).append(Part(folder.root / file, content))
            evidence.used.add(str(file))
            evidence.reasons.append(f'{file} has {len(content["images"])} images in COCO format')
    evidence.found = found
    return evidence


def _has_labels_only(content: Mapping) -> bool:
    """Return True if the annotations are classes of images, without boxes and masks."""
    items = content.get('annotations')
    items = items if isinstance(items, list) else []
    shapes = ('bbox', 'keypoints', 'segmentation')
    return bool(items) and all(
        isinstance(item, dict) and 'category_id' in item and not any(map(item.get, shapes)) for item in items
    )


def _read_coco(path: Path, parse_all: bool = True) -> dict | None:
    """Read a COCO annotation file; None for another JSON file. A test set may have no annotations.

    Raises:
        DataError: The file is not JSON.
    """
    with open_file(path) as file:
        head = file.read(1 << 16)
        file.seek(max(0, path.stat().st_size - (1 << 16)))
        if not any(key in head + file.read() for key in _KEYS):
            if parse_all:
                read_json(path)  # raises, if it is cut off or something else
            return None  # labelme writes a file for each image
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in ('images', 'categories')):
        return None
    first = next(iter(content.get('annotations') or []), None)
    return None if isinstance(first, dict) and 'segments_info' in first else content  # panoptic


def read_coco(found: Mapping[str, list[Part]], folder: Folder, options: Options) -> Data:
    """Read a data set in COCO format.

    Args:
        found: Annotation files by split.
        folder: The folder that has the images.
        options: Options of the command.

    Raises:
        DataError: The annotations are ambiguous, images are missing, or ``--fix`` is needed and not given.
    """
    parts, notes = _choose_parts(found, folder, options)
    for part in parts.values():
        if part.images is None:
            notes += _locate(part, folder, options)
    return describe_instances(parts, notes, folder, options)


def _locate(part: Part, folder: Folder, options: Options) -> list[str]:
    """Complete the names of the images of a part and find their folder; returns lines about both."""
    notes = _complete_names(part)
    part.images, lines = _find_images(part, folder, options)
    return notes + lines


def _complete_names(part: Part) -> list[str]:
    """Take the names of images from ``coco_url`` where ``file_name`` is missing, as in LVIS."""
    lines = []
    images = part.content['images']
    if images and all(isinstance(i, dict) and 'file_name' not in i and i.get('coco_url') for i in images):
        named = [{**image, 'file_name': '/'.join(image['coco_url'].split('/')[-2:])} for image in images]
        part.replace(images=named)
        lines.append('names of images: the last two parts of coco_url, as in LVIS')
    first = next(iter(part.content['annotations']), None)
    if isinstance(first, dict) and 'keypoints' in first:
        lines.append('boxes and masks are used; keypoints are not used')
    return lines


def describe_instances(parts: dict[str, Part], notes: list[str], folder: Folder, options: Options) -> Data:
    """Repair or refuse, split, and describe a data set of instances.

    Args:
        parts: The splits, with the folders of their images.
        notes: What was found, line by line.
        folder: The folder.
        options: Options of the command.

    Raises:
        DataError: See :func:`read_coco`.
    """
    _refuse_fractions(parts)
    notes += _repair(parts, options)
    _refuse_outside(parts)
    for split, part in parts.items():
        notes += _leave_out_missing(split, part, options)
    classes, unused = _find_classes(parts)
    notes += unused
    if 'val' not in parts:
        parts, line = _split(parts, options)
        notes.append(line)
    notes += _align_categories(parts, classes)
    with_mask, lines = _find_masks(parts, options)
    notes += lines
    objects = {split: Counter(a['image_id'] for a in part.content['annotations']) for split, part in parts.items()}
    if not objects['train']:
        raise DataError(f'{parts["train"]} has no objects to train on{" after the repairs" if options.fix else ""}.')
    most = max((max(counts.values(), default=0) for counts in objects.values()), default=0)
    names = {category['id']: category['name'] for category in parts['train'].content['categories']}
    by_class = Counter(names[a['category_id']] for a in parts['train'].content['annotations'])
    for split, counts in objects.items():
        total = len(parts[split].content['images'])
        empty = f', {total - len(counts)} of which have no object' if total > len(counts) else ''
        notes.append(f'{split}: {counts.total()} objects in {total} images{empty}')
    notes.append('objects in train: ' + first_names([f'{by_class[name]} {name}' for name in classes]))
    if unseen := [name for name in classes if not by_class[name]]:
        question = 'do the numbers of the classes begin at 1, or is a name too many?'
        notes.append(f'warning: train has no object of {first_names(unseen)}: {question}')
    return Data(
        task='instances',
        root=folder.root,
        classes=classes,
        datasets={split: _dataset(split, part, folder) for split, part in parts.items()},
        counts={split: len(counts) for split, counts in objects.items()},
        sizes=[(image['width'], image['height']) for part in parts.values() for image in part.content['images']],
        images=[part.path(image) for part in parts.values() for image in part.content['images']],
        notes=notes,
        comment='In the order of "categories" in the annotation files.',
        with_mask=with_mask,
        empty=len(parts['train'].content['images']) - len(objects['train']),
        most_objects=most,
        files={f'{split}.json': partial(_serialize, part.content) for split, part in parts.items() if part.changed},
    )


def _serialize(content: dict) -> bytes:
    return json.dumps(content).encode()


def _dataset(split: str, part: Part, folder: Folder) -> dict:
    """Describe the dataset of a part, without type and pipeline."""
    file = f'{NEXT_TO_CONFIG}{split}.json' if part.changed else relative(part.file, folder.root)
    images = relative(part.images, folder.root)
    return dict(ann_file=file, data_prefix=dict(img=f'{images}/' if images else ''))


def _choose_parts(found: dict[str, list[Part]], folder: Folder, options: Options) -> tuple[dict[str, Part], list[str]]:
    """Choose one part for each split; without names of splits, all is for training."""
    notes = []
    if options.val_fraction is None:
        found = {**found, 'val': [_read_val(options)]}
    elif options.val is not None and 'val' in found:
        notes.append(f'not used: {found["val"][0]}, which --val replaces')
        found = {split: found[split] for split in found if split != 'val'}
    notes += [f'COCO annotations: {relative(part.file, folder.root)}' for several in found.values() for part in several]
    joined = {
        split: several[0] if len(several) == 1 else _join(several, split, folder, options, notes)
        for split, several in found.items()
    }
    parts = assign_splits(joined, 'annotation file', _NAME_ONE)
    notes += drop_unannotated(parts)
    for part in parts.values():
        part.content.setdefault('annotations', [])
    if not parts['train'].content['annotations']:
        raise DataError(f'{parts["train"].file} has no annotations to train on.', _NAME_ONE)
    return parts, notes


def _join(several: Sequence[Part], split: str, folder: Folder, options: Options, notes: list[str]) -> Part:
    """Join annotation files about different images, as several tasks or people export them; classes by name.

    Raises:
        DataError: Two files have the same image, or one has a defect.
    """
    content: dict[str, list[dict]] = dict(images=[], annotations=[], categories=[])
    file_of: dict[str, Path] = {}
    numbers: dict[str, int] = {}
    for part in several:
        part.content.setdefault('annotations', [])
        notes += _locate(part, folder, options)
        _refuse_fractions({split: part})
        repairs = _repair({split: part}, options)  # warnings come once more, for all
        notes += repairs if options.fix else []
        names = {category['id']: category['name'] for category in part.content['categories']}
        for category in part.content['categories']:
            if category['name'] not in numbers:
                numbers[category['name']] = len(numbers) + 1
                content['categories'].append({**category, 'id': len(numbers)})
        ids = {}
        for image in part.content['images']:
            path = relative(part.path(image), folder.root)
            if file_of.setdefault(path, part.file) != part.file:
                raise DataError(f'{file_of[path]} and {part.file} both have the image {path}.', _NAME_ONE)
            ids[image['id']] = len(content['images']) + 1
            content['images'].append({**image, 'id': ids[image['id']], 'file_name': path})
        content['annotations'] += [
            {
                **item,
                'image_id': ids[item['image_id']],
                'category_id': numbers[names[item['category_id']]],
                'id': number,
            }
            for number, item in enumerate(part.content['annotations'], len(content['annotations']) + 1)
        ]
    if split == ALL:
        notes.append('for training are the images of all these files, which do not say train, val or test')
    return Part(folder.root, content, folder.root, changed=True)


def drop_unannotated(parts: dict[str, Part]) -> list[str]:
    """Remove parts for validation and test that have no annotations; returns a line about each."""
    empty = [split for split in ('val', 'test') if split in parts and not parts[split].content.get('annotations')]
    counts = {split: len(parts.pop(split).content['images']) for split in empty}
    return [f'{split}: {count} images without annotations, for predict.py only' for split, count in counts.items()]


def _read_val(options: Options) -> Part:
    path = Path(os.path.abspath(options.val))
    content = _read_coco(path) if path.is_file() else None
    if content is None:
        raise DataError(
            f'--val {options.val} is not a COCO annotation file.', 'Name one, or a fraction of the images such as 0.2.'
        )
    return Part(path, content)


def _find_images(part: Part, folder: Folder, options: Options) -> tuple[Path, list[str]]:
    """Find the folder from which the file names of a part lead to images; returns also lines about it.

    Names of images in several folders get the folders, if all are found.
    """
    images = part.content['images']
    if lost := [image for image in images if not (isinstance(image, Mapping) and image.get('file_name'))]:
        seen = f'the keys {first_names([*lost[0]])}' if isinstance(lost[0], Mapping) else repr(lost[0])
        raise DataError(
            f'{len(lost)} of the {len(images)} images in {part.file} have no file_name, but {seen}.',
            'In COCO format file_name is the name of the image file: rename the key, or add it.',
        )
    names = [str(image['file_name']).replace('\\', '/') for image in images]
    parent = part.file.parent
    outer = [parent.parent] if parent.name.lower().startswith(('ann', 'json', 'label')) else []
    split = find_split(f'{parent.name}/{part.file.name}')
    own = [] if part.file.is_relative_to(folder.root) else [parent]  # of --val
    for root in [options.images] if options.images else [*own, folder.root, *outer]:
        tree = folder if root == folder.root else Folder.scan(Path(os.path.abspath(root)))
        near = relative(parent, tree.root)
        of_split = {image for image in tree.images if split_of_folder(image.rpartition('/')[0]) in (ALL, split)}
        found = [tree.find_image(name, near, of_split) or tree.find_image(name, near) for name in names]
        tops = Counter(_top(image, name) for image, name in zip(found, names, strict=True) if image is not None)
        if tops.total() == len(names):
            break
    if not tops:
        here = [PurePosixPath(image).name for image in folder.images[:_MOST_NAMES]]
        near = difflib.get_close_matches(PurePosixPath(names[0]).name, here, 1, 0.5) if names else []
        raise DataError(
            f'None of the {len(names)} images in {part.file} was found below {folder.root} (first: {names[0]}).'
            if names
            else f'{part.file} lists no images.',
            'Name their folder: --images FOLDER' + (f'; or correct the names: {near[0]} is here.' if near else ''),
        )
    ((top, _),) = tops.most_common(1)
    whole = all(f'/{image}'.endswith(f'/{name}') for image, name in zip(found, names, strict=True))
    if len(tops) == 1 or not whole:
        return tree.root / top, []
    named = [{**image, 'file_name': path} for image, path in zip(images, found, strict=True)]
    part.replace(images=named)
    return tree.root, [f'images of {part.file.name} are in {len(tops)} folders: {first_names(sorted(tops), 3)}']


def _top(image: str, name: str) -> str:
    """Return the folder from which a name leads to an image; of a name with other folders, that of the image."""
    same = f'/{image}'.endswith(f'/{name}')
    return image[: -len(name)].rstrip('/') if same else image.rpartition('/')[0]


def _refuse_fractions(parts: Mapping[str, Part]) -> None:
    """Refuse boxes in fractions of the image, as some exporters write them; raises DataError."""
    for part in parts.values():
        boxes = [item.get('bbox') for item in part.content['annotations'] if isinstance(item, dict)]
        boxes = [
            box for box in boxes if isinstance(box, list) and box and all(isinstance(x, (int, float)) for x in box)
        ]
        if boxes and any(map(any, boxes)) and all(max(box) <= 1 for box in boxes):
            raise DataError(
                f'All {len(boxes)} boxes of {part} are between 0 and 1, such as {boxes[0]}: fractions of the image.',
                'COCO has pixels: export absolute coordinates, or multiply by width and height of the image.',
            )


def _refuse_outside(parts: Mapping[str, Part]) -> None:
    """Refuse boxes of which many extend far beyond their images; raises DataError."""
    for part in parts.values():
        found = summarize(part.content)
        outside, far = find_outside(found.boxes, found.sizes)
        if far:
            first = found.choose(outside)[0]
            image = found.images[first['image_id']]
            raise DataError(
                f'{outside.sum()} of {len(outside)} boxes of {part} extend beyond their images (first: bbox '
                f'{first["bbox"]} of {image["file_name"]} with {image["width"]}×{image["height"]} pixels).',
                KINDS['boxes outside images'].remedy,
            )


def _repair(parts: Mapping[str, Part], options: Options) -> list[str]:
    """Refuse defects of the format, or repair them if ``--fix``; returns what was changed, and the warnings."""
    lines = []
    for split, part in parts.items():
        if options.fix:
            part.content, changes = repair(part.content, part.images)
            part.changed |= bool(changes)
            lines += [f'repaired in {split}: {change}' for change in changes]
        find = partial(find_defects, image_folder=part.images, evaluated=split != 'train' or 'val' not in parts)
        findings = find(part.content)
        if faults := [finding for finding in findings if finding.severity == FAULT]:
            helps = False
            with contextlib.suppress(DataError):  # beyond repair
                left = find(repair(part.content, part.images)[0])
                helps = sum(finding.severity == FAULT for finding in left) < len(faults)
            known = [f'  {fault.message} {"" if "--fix" in fault.remedy else fault.remedy}' for fault in faults]
            remedy = 'Correct the file, or repair a copy of it with --fix.' if helps else 'Correct the file.'
            raise DataError('\n'.join([f'{part.file} has defects:', *known, '']), remedy)
        lines += [f'warning: {split}: {finding.message} {finding.remedy}' for finding in findings]
    return lines


def _leave_out_missing(split: str, part: Part, options: Options) -> list[str]:
    """Leave out images that do not exist, if ``--skip-missing``; raises DataError as :func:`describe_missing`."""
    folder = ImageFolder(part.images)
    images = part.content['images']
    lost = {image['id']: image['file_name'] for image in images if not folder.has(image['file_name'])}
    if not lost:
        return []
    lines = describe_missing([*lost.values()], len(images), f'images of {part.file}', part.images, options)
    part.replace(
        images=[image for image in images if image['id'] not in lost],
        annotations=[entry for entry in part.content['annotations'] if entry['image_id'] not in lost],
    )
    return [f'{split}: {line}' for line in lines]


def describe_missing(missing: Sequence[str], total: int, what: str, place: Path, options: Options) -> list[str]:
    """Return a line about images that are missing and left out.

    Raises:
        DataError: ``--skip-missing`` is not given, or most of them are missing.
    """
    if not missing:
        return []
    most = 2 * len(missing) > total
    if most or not options.skip_missing:
        raise DataError(
            f'{len(missing)} of the {total} {what} are not in {place}, or several have one name (first: {missing[0]}).',
            'Add the images, or name their folder with --images FOLDER if it is an annotation file in COCO format'
            + ('.' if most else '; or train on the others with --skip-missing.'),
        )
    return [f'left out {len(missing)} {what}, which are missing (first: {missing[0]})']


def _find_classes(parts: Mapping[str, Part]) -> tuple[list[str], list[str]]:
    """Find the classes in the order of the training file; returns also a line for each category that is not a class.

    Roboflow's files begin with a category that has no objects and is the group (``supercategory``) of the others.
    """
    categories = parts['train'].content['categories']
    groups = {category.get('supercategory') for category in categories}
    used = {
        names.get(annotation['category_id'])
        for part in parts.values()
        for names in [{category['id']: category['name'] for category in part.content['categories']}]
        for annotation in part.content['annotations']
    }
    roots = [c['name'] for c in categories if c['name'] not in used and c['name'] in groups - {c.get('supercategory')}]
    classes = [category['name'] for category in categories if category['name'] not in roots]
    foreign = sorted(used - set(classes) - {None})
    if foreign:
        raise DataError(
            f'Objects of {", ".join(foreign)} are in val or test, but {parts["train"].file} has no such category.',
            'Correct the categories: all files need the same ones.',
        )
    if not classes:
        raise DataError(f'{parts["train"].file} has no category with a name.')
    return classes, [f'not a class: {root}, the group of other categories, without objects' for root in roots]


def _align_categories(parts: Mapping[str, Part], classes: Sequence[str]) -> list[str]:
    """Give every file the same categories in the same order: MMDetection counts labels by the order in the file."""
    lines = []
    for split, part in parts.items():
        categories = {category['name']: category for category in part.content['categories']}
        if [name for name in categories if name in classes] == list(classes):
            continue
        free = max((category['id'] for category in categories.values()), default=0)
        aligned = [categories.get(name) or dict(id=free + i, name=name) for i, name in enumerate(classes, 1)]
        part.replace(categories=aligned)
        lines.append(f'{split}: categories {", ".join(categories)} → {", ".join(classes)}, as in train, in a copy')
    return lines


def _split(parts: Mapping[str, Part], options: Options) -> tuple[dict[str, Part], str]:
    """Take images for validation out of those for training."""
    train = parts['train']
    *contents, split = split_content(train.content, train.images, options.val_fraction)
    both = (Part(train.file, content, train.images, changed=True) for content in contents)
    return {**parts, **dict(zip(('train', 'val'), both, strict=True))}, split.describe()


def _find_masks(parts: Mapping[str, Part], options: Options) -> tuple[bool, list[str]]:
    """Return True if all objects have masks that say more than their boxes; and a line about masks that are not used.

    Raises:
        DataError: Some objects have masks, and ``--model`` does not ask for boxes.
    """
    annotations = [annotation for part in parts.values() for annotation in part.content['annotations']]
    masks = sum(bool(annotation.get('segmentation')) for annotation in annotations)
    asked = options.model or ''
    empty = [item for item in annotations if not item.get('segmentation') and not all(item['bbox'][2:])]
    if masks and empty:
        raise DataError(
            f'{len(empty)} of {len(annotations)} objects are empty, with neither mask nor box.', '--fix removes them.'
        )
    if masks not in (0, len(annotations)) and not asked.startswith('faster'):
        raise DataError(
            f'{len(annotations) - masks} of {len(annotations)} objects have a box but no mask.',
            'Add the masks, or train a detector of boxes: --model faster-rcnn',
        )
    if masks == len(annotations) and 'mask-rcnn' not in asked and all(map(_is_box, annotations)):
        return False, ['all masks are the rectangles of their boxes: boxes are learned (masks: --model mask-rcnn)']
    return masks == len(annotations), []


def _is_box(annotation: Mapping) -> bool:
    """Return True if the mask is the rectangle of the box, up to half a pixel."""
    polygons = annotation['segmentation']
    if not isinstance(polygons, list) or len(polygons) != 1 or len(polygons[0]) not in (8, 10):
        return False
    left, top, width, height = annotation['bbox']
    corners = {
        tuple(
            next((end for end in (start, start + size) if abs(value - end) <= 0.5), None)
            for value, start, size in zip(point, (left, top), (width, height), strict=True)
        )
        for point in zip(polygons[0][::2], polygons[0][1::2], strict=True)
    }
    return corners == {(x, y) for x in (left, left + width) for y in (top, top + height)}
