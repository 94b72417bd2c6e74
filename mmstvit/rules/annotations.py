"""Annotations: those that cannot be read or learned, and in COCO files format, categories, masks and boxes."""

import dataclasses
import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from mmstvit.datasets.coco import CROWD, first_names, write_counts
from mmstvit.datasets.importers.coco_table import extent

from .coco_values import ROUNDING, are_polygons, is_inside, mask_area, rle_areas
from .facts import SIZES, DatasetFacts, Facts
from .findings import Finding
from .kinds import FAULT, WARNING

SAMPLE = 10_000  # annotations whose polygons are compared with their boxes


def check_builds(facts: Facts) -> Iterator[Finding]:
    """Refuse datasets that cannot be built, are empty, or whose annotation file is not JSON."""
    for data in facts.datasets:
        if data.error is not None:
            problem = data.error.problem.removeprefix(data.key).strip(': .')
            yield data.finding('unusable dataset', [problem], remedy=data.error.remedy)


def check_format(facts: Facts) -> Iterator[Finding]:
    """Refuse annotation files that MMDetection cannot read; sizes that differ from the files matter for masks alone."""
    for data in facts.datasets:
        for defect in [*data.defects, *_compare_sizes(data)]:
            boxes_alone = defect.kind == SIZES and not facts.wants_masks(data)
            yield dataclasses.replace(defect, severity=WARNING) if boxes_alone else defect


def _compare_sizes(data: DatasetFacts) -> Iterator[Finding]:
    """Compare the sizes in other annotations than those of COCO with the decoded files."""
    sized = [info for info in data.infos if info.get('img_path') in data.decoded and {'height', 'width'} <= {*info}]
    wrong = []
    for info in sized:
        file = data.decoded[info['img_path']]
        if file.digest and file.shape != (info['height'], info['width']):
            size, own = f'{info["width"]}×{info["height"]}', f'{file.shape[1]}×{file.shape[0]}'
            wrong.append(f'{info["img_path"]}: {size}, the file is {own}')
    if wrong:
        yield data.finding(SIZES, wrong, total=len(sized))


def check_categories(facts: Facts) -> Iterator[Finding]:
    """Refuse class names that the annotation file does not have, or not in their order.

    MMDetection numbers labels in the order of the file, and takes names from ``metainfo.classes``. A name that the file
    does not have shifts the labels of all after it; at the end of the list it breaks evaluation alone.
    """
    for data, annotations in facts.of_coco():
        classes, names = list(data.classes or ()), list(annotations.names.values())
        known = [name for name in names if name in classes]
        absent = [name for name in classes if name not in names]
        unused = [name for name in names if name not in classes]
        near = {name: other for name in absent if (other := nearest(name, unused))}
        shifted = next((i for i, name in enumerate(known) if name != classes[i]), None)
        own = 'metainfo.classes' if 'classes' in (data.cfg.get('metainfo') or {}) else 'no metainfo.classes and uses'
        values = [f'{data.key} has {own} {first_names(absent or classes)}', f'{annotations.path}: {first_names(names)}']
        if shifted is not None:
            values.append(f'label {shifted} is {known[shifted]!r} in the file, {classes[shifted]!r} in {own}')
        remedy = ' '.join(f'Did you mean {other!r} for {name!r}?' for name, other in [*near.items()][:3])
        remedy = remedy or f'Set {data.key}.metainfo=dict(classes=({first_names(names, 20)}{"," * (len(names) == 1)})).'
        if absent or shifted is not None:
            certain = near or not known or shifted is not None or data.split != 'train'
            explains = ('unused category',) if certain else ()
            explains += () if known else ('unusable dataset', 'classes and heads disagree')
            options = dict(remedy=remedy, severity='' if certain else WARNING, explains=explains)
            yield data.finding('categories and classes differ', values, **options)
        lost = {key for key, name in annotations.names.items() if known and name in {*unused} - {*near.values()}}
        counts = Counter(e['category_id'] for e in annotations.entries if e['category_id'] in lost) if lost else {}
        if counts:
            found = [f'{annotations.names[key]!r}, {count} annotations' for key, count in counts.items()]
            yield data.finding('unused category', found, annotations.path, count=sum(counts.values()))


def nearest(name: str, names: Sequence[str]) -> str | None:
    """Return the name that is nearest to a misspelt one; None if none is near."""
    lower = {other.lower(): other for other in reversed(names)}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.7)
    return lower[close[0]] if close else None


def check_masks(facts: Facts) -> Iterator[Finding]:
    """Refuse objects without a mask, or with RLE of another size, where masks are wanted: a worker would fail."""
    for data, annotations in facts.of_coco():
        if facts.wants_masks(data):
            bare = [e for e in annotations.choose(annotations.having('', CROWD)) if not e.get('segmentation')]
            yield from _some(data, 'no mask', bare, annotations.learned_entries)
            sizes = {key: [image['height'], image['width']] for key, image in annotations.images.items()}
            coded = [e for e in annotations.entries if type(e.get('segmentation')) is dict and e['segmentation']]
            wrong = [entry for entry in coded if entry['segmentation']['size'] != sizes[entry['image_id']]]
            yield from _some(data, 'RLE of another size', wrong, len(coded))


def check_mask_heads(facts: Facts) -> Iterator[Finding]:
    """Refuse a model with a mask head whose pipeline loads no masks, and the metric ``segm`` of a model without."""
    model = facts.cfg.get('model') or {}
    if facts.scope == 'mmdet' and (model.get('roi_head') or {}).get('mask_head'):
        for data in facts.of_split('train'):
            if data.annotated and not data.with_mask:
                yield data.finding('no mask', ['model.roi_head.mask_head learns masks, the pipeline loads none'])
    elif facts.scope == 'mmdet' and 'mask' not in str(model).lower():
        for split in facts.keys:
            for key, node in facts.evaluators(split):
                if 'segm' in (node.get('metric') or ()):
                    remedy = f'Set --cfg-options {key}.metric=bbox'
                    values = ["metric has 'segm', but the model predicts no masks"]
                    yield Finding('no mask', f'{key}.metric', values, remedy=remedy, split=split)


def check_mask_content(facts: Facts) -> Iterator[Finding]:
    """Find masks that have no area, or extend beyond their image."""
    for data, annotations in facts.of_coco() if facts.complete else ():
        sides = {key: (image['width'], image['height']) for key, image in annotations.images.items()}
        chosen = [e for e in annotations.choose(annotations.having('', CROWD)) if e.get('segmentation')]
        coded = [entry for entry in chosen if isinstance(entry['segmentation'], dict)]
        areas = rle_areas([entry['segmentation'] for entry in coded])
        wrong = [entry for entry, area in zip(coded, areas, strict=True) if not area]
        for entry in chosen:
            mask = entry['segmentation']
            if isinstance(mask, list) and not (mask_area(mask) and is_inside(extent(mask), *sides[entry['image_id']])):
                wrong.append(entry)
        yield from _some(data, 'empty mask or outside image', wrong, len(chosen), 'bbox')


def check_boxes(facts: Facts) -> Iterator[Finding]:
    """Find boxes that extend beyond their images by more than rounding does, and boxes below 1 pixel."""
    for data, annotations in facts.of_coco():
        boxes, sizes = annotations.boxes, annotations.sizes
        outside, far = find_outside(boxes, sizes)
        options = dict(severity=FAULT, explains=('boxes and polygons disagree',)) if far else {}
        yield from _some(data, 'boxes outside images', annotations.choose(outside), len(boxes), 'bbox', **options)
    for data in facts.datasets:
        objects = [(info, part['bbox']) for info in data.infos for part in info.get('instances', ()) if 'width' in info]
        corners = np.array([box for _, box in objects if len(box) == 4], float).reshape(-1, 4)
        if not len(corners) == len(objects) > 0:
            continue
        boxes = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
        outside, far = find_outside(boxes, np.array([(info['width'], info['height']) for info, _ in objects], float))
        small = (boxes[:, 2:] < 1).any(1)  # MMDetection drops those of COCO files
        for kind, rows, severe in (('boxes outside images', outside, far), ('invalid box', small, True)):
            found = [f'{objects[row][0].get("img_path")}: {objects[row][1]}' for row in np.flatnonzero(rows)]
            if found:
                severity = FAULT if severe else ''
                yield data.finding(kind, found, data.dataset.ann_file, total=len(objects), severity=severity)


def find_outside(boxes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return (N,), True for boxes that extend beyond their image; and True if many extend far: another format."""
    beyond = np.maximum(-boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - sizes)
    far = ((beyond > ROUNDING) & (beyond >= 0.1 * sizes)).any(1).sum()
    return (beyond > ROUNDING).any(1), bool(far and far >= 0.1 * len(beyond))


def check_polygons(facts: Facts) -> Iterator[Finding]:
    """Find boxes that disagree with their own polygons, among some."""
    for data, annotations in facts.of_coco():
        sample = annotations.entries[:: max(1, len(annotations.entries) // SAMPLE)]
        checked = [e for e in sample if e.get('segmentation') and isinstance(e['segmentation'], list)]
        pairs = [(entry, entry['bbox'], extent(entry['segmentation'])) for entry in checked]
        wrong = [(e, (x, y, w, h), own) for e, (x, y, w, h), own in pairs if not _agree((x, y, x + w, y + h), own)]
        corners = sum(_agree(box, own) for _, box, own in wrong)
        remedy = 'The boxes are [x1, y1, x2, y2]: write [x, y, width, height].' if 2 * corners > len(wrong) else ''
        entries = [entry for entry, *_ in wrong]
        yield from _some(data, 'boxes and polygons disagree', entries, len(checked), 'bbox', remedy=remedy)


def _agree(box: Sequence[float], other: Sequence[float]) -> bool:
    """Return True if the sides of two rectangles differ by 3 pixels at most, or 5 % of the larger side."""
    allowed = max(3, 0.05 * max(other[2] - other[0], other[3] - other[1]))
    return all(abs(a - b) <= allowed for a, b in zip(box, other, strict=True))


def find_dropped(facts: Facts) -> Iterator[Finding]:
    """Name objects that training drops, which matters most if evaluation counts them, and images without objects."""
    for data, annotations in facts.of_coco():
        if facts.complete or data.split != 'train':
            dropped = annotations.choose(annotations.never_learned)
            yield from _some(data, 'dropped annotations', dropped, annotations.learned_entries, 'bbox', 'area')
        if facts.complete and annotations.entries:
            images = annotations.images.values()
            counts = np.bincount(annotations.rows, minlength=len(images)).tolist()
            empty = [image['file_name'] for image, count in zip(images, counts, strict=True) if not count]
            if empty:
                yield data.finding('no annotation', empty, annotations.path, total=len(images))


def check_usable(facts: Facts) -> Iterator[Finding]:
    """Refuse datasets for training and validation without an object to learn from; another rule looks at maps."""
    for data in facts.datasets:
        if not data.annotated:
            continue
        annotations = data.annotations
        if annotations is not None and not annotations.used:
            problem = f'{annotations.path} has {len(annotations.images)} images and no annotation'
            if total := len(annotations.entries):
                dropped = write_counts(annotations.dropped)
                problem = f'none of the {total} annotations in {annotations.path} is used: {dropped}'
            yield data.finding('unusable dataset', [problem])
        objects = [info['instances'] for info in data.infos if 'instances' in info]
        if objects and not any(map(_is_usable, chain.from_iterable(objects))):
            yield data.finding('unusable dataset', [f'none of its {len(objects)} images has a usable object'])


def _is_usable(instance: Mapping) -> bool:
    """Return True if MMDetection learns from an object: it is not ignored and has a valid mask or none at all."""
    mask = instance.get('mask')
    return not instance.get('ignore_flag') and (not isinstance(mask, list) or are_polygons(mask))


def _some(
    data: DatasetFacts, kind: str, entries: list[Mapping], total: int, *fields: str, **others: object
) -> Iterator[Finding]:
    """Yield a finding about annotations, if there are any, with the values of ``fields``."""
    values = []
    for entry in entries:
        written = ''.join(f', {name} {entry.get(name)}' for name in fields)
        values.append(f'{data.annotations.images[entry["image_id"]]["file_name"]}: annotation {entry["id"]!r}{written}')
    if values:
        yield data.finding(kind, values, data.annotations.path, total=total, **others)
