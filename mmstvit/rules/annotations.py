"""COCO annotation files: categories and class names, ids, masks and boxes."""

import dataclasses
import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from mmstvit.datasets.coco import CROWD, Annotations, first_names

from .coco_values import ROUNDING, extent, is_inside, mask_area, run_lengths
from .facts import SIZES, DatasetFacts, Facts
from .findings import Finding
from .kinds import BOXES_ONLY, FAULT, WARNING

# Reasons for which MMDetection drops an object that CocoMetric counts.
_NEVER_LEARNED = ('area 0', 'box below 1 pixel', 'outside the image')
SAMPLE = 10_000  # annotations whose polygons are compared with their boxes


def check_format(facts: Facts) -> Iterator[Finding]:
    """Refuse annotation files that MMDetection cannot read; sizes that differ from the files matter for masks alone."""
    for data in facts.datasets:
        for defect in data.defects:
            boxes_alone = defect.kind == SIZES and not facts.wants_masks(data)
            yield dataclasses.replace(defect, severity=WARNING) if boxes_alone else defect
        sized = [info for info in data.infos if info.get('img_path') in data.decoded and {'height', 'width'} <= {*info}]
        shapes = {info['img_path']: (info['height'], info['width']) for info in sized}
        wrong = [
            path for path, shape in shapes.items() if data.decoded[path].digest and data.decoded[path].shape != shape
        ]
        if wrong:
            found = [
                '{}: {}×{}, the file is {}×{}'.format(p, *shapes[p][::-1], *data.decoded[p].shape[::-1]) for p in wrong
            ]
            message = f'images are not of the annotated size, as {found[0]}.'
            severity = '' if data.with_mask else WARNING
            yield data.finding(SIZES, message, found=found, total=len(shapes), severity=severity)


def check_categories(facts: Facts) -> Iterator[Finding]:
    """Refuse class names that the annotation file does not have, or not in their order."""
    for data, annotations in facts.of_coco():
        if data.classes:
            yield from _compare_names(data, annotations)


def _compare_names(data: DatasetFacts, annotations: Annotations) -> Iterator[Finding]:
    """Compare ``metainfo.classes`` with the categories.

    MMDetection numbers labels in the order of the file, and takes names from ``metainfo.classes``. A name that the file
    does not have shifts the labels of all after it; at the end of the list it breaks evaluation alone.
    """
    classes, path, names = list(data.classes), annotations.path, list(annotations.names.values())
    known = [name for name in names if name in classes]
    absent = [name for name in classes if name not in names]
    unused = [name for name in names if name not in classes]
    near = {name: near for name in absent if (near := nearest(name, unused))}
    remedy = ' '.join(f'Did you mean {other!r} for {name!r}?' for name, other in [*near.items()][:3])
    remedy = remedy or f'Set {data.key}.metainfo=dict(classes=({first_names(names, 20)}{"," * (len(names) == 1)})).'
    own = 'classes' in (data.cfg.get('metainfo') or {})
    wanted = f'metainfo.classes of {data.key} has' if own else f'{data.key} has no metainfo.classes and uses'
    lacks = f'{wanted} {first_names(absent)}, which {path} does not have'
    if not known:
        message = f'{wanted} {first_names(classes)}, but the categories in {path} are {first_names(names)}.'
        yield data.finding('no matching category', message, remedy)
    elif absent and (near or known != classes[: len(known)] or data.split != 'train'):
        message = f'{lacks}; its categories are {first_names(names)}.'
        explains = ('unused category', 'class names of the splits differ')
        yield data.finding('class without category', message, remedy, explains=explains)
    elif known != classes[: len(known)]:
        label = next(i for i, name in enumerate(known) if name != classes[i])
        message = f'label {label} is {known[label]!r} in {path}, but {classes[label]!r} in {data.key}.metainfo.classes.'
        yield data.finding('order of categories', message, remedy)
    elif absent:
        yield data.finding('class without category', f'{lacks}.', remedy, severity=WARNING)
    unused = {key: n for key, n in annotations.names.items() if known and n in unused and n not in near.values()}
    counts = Counter(entry['category_id'] for entry in annotations.entries) if unused else {}
    for key, name in unused.items():
        if counts[key]:
            message = f'{name!r} in {path} is not in metainfo.classes: its {counts[key]} annotations are dropped.'
            yield data.finding('unused category', message, count=counts[key])


def nearest(name: str, names: list[str]) -> str | None:
    """Return the name that is nearest to a misspelt one; None if none is near."""
    lower = {other.lower(): other for other in reversed(names)}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.7)
    return lower[close[0]] if close else None


def check_masks(facts: Facts) -> Iterator[Finding]:
    """Refuse objects without a mask, or with RLE of another size, where masks are wanted: a worker would fail."""
    for data, annotations in facts.of_coco():
        if not facts.wants_masks(data):
            continue
        total = annotations.learned_entries
        bare = [e for e in annotations.choose(annotations.having('', CROWD)) if not e.get('segmentation')]
        if bare:
            wanted = '(with_mask=True)' if data.with_mask else "(metric 'segm')"
            message = f'annotations have no mask (segmentation is empty), but the config wants masks {wanted}.'
            some = '' if len(bare) == total else ', remove these annotations'
            remedy = f'Add the masks{some}, or train a detector of boxes alone, such as {BOXES_ONLY}.'
            yield _some(data, 'no mask', bare, total, message, remedy=remedy)
        entries = [e for e in annotations.entries if type(e.get('segmentation')) is dict and e['segmentation']]
        if wrong := [entry for entry in entries if _differs(annotations, entry)]:
            message = 'RLE masks are not of the size [height, width] of their images.'
            yield _some(data, 'RLE of another size', wrong, len(entries), message, 'segmentation')


def _differs(annotations: Annotations, entry: Mapping) -> bool:
    image, mask = annotations.images[entry['image_id']], entry['segmentation']
    size, runs = [image['height'], image['width']], mask['counts']
    return mask['size'] != size or (isinstance(runs, list) and sum(runs) != size[0] * size[1])


def check_mask_content(facts: Facts) -> Iterator[Finding]:
    """Find masks that cannot be decoded, have no area, or extend beyond their image."""
    for data, annotations in facts.of_coco() if facts.complete else ():
        chosen = [e for e in annotations.choose(annotations.having('', CROWD)) if e.get('segmentation')]
        polygons = [entry for entry in chosen if isinstance(entry['segmentation'], list)]
        bad = [e for e in chosen if isinstance(e['segmentation'], dict) and not _is_decodable(e['segmentation'])]
        if bad:
            message = 'masks have counts that are not run lengths of their size.'
            yield _some(data, 'invalid mask', bad, len(chosen), message, severity=FAULT)
        elif empty := [entry for entry in chosen if not mask_area(entry['segmentation'])]:
            yield _some(data, 'empty mask', empty, len(chosen), 'masks have no area.')
        sides = {key: (image['width'], image['height']) for key, image in annotations.images.items()}
        outside = [e for e in polygons if not is_inside(extent(e['segmentation']), *sides[e['image_id']])]
        if outside:
            message = 'masks extend beyond the image by more than 2 pixels.'
            yield _some(data, 'masks outside images', outside, len(chosen), message, 'bbox')


def _is_decodable(mask: Mapping) -> bool:
    counts, (height, width) = run_lengths(mask), mask['size']
    return counts is not None and min(counts, default=0) >= 0 and sum(counts) == height * width


def check_mask_heads(facts: Facts) -> Iterator[Finding]:
    """Refuse a model with a mask head whose pipeline loads no masks, and the metric ``segm`` of a model without."""
    if facts.scope != 'mmdet':
        return
    model = facts.cfg.get('model') or {}
    if (model.get('roi_head') or {}).get('mask_head'):
        for data in facts.of_split('train'):
            if data.annotated and not data.with_mask:
                message = f'model.roi_head.mask_head learns masks, but the pipeline of {data.key} does not load them.'
                remedy = f'Set with_mask=True of LoadAnnotations, or train a detector of boxes alone: {BOXES_ONLY}.'
                yield data.finding('no mask', message, remedy)
    elif 'mask' not in str(model).lower():
        for split in facts.keys:
            for key, node in facts.evaluators(split):
                if 'segm' in (node.get('metric') or ()):
                    message = f"{key}.metric has 'segm', but the model predicts no masks."
                    yield Finding('no mask', message, f'Set --cfg-options {key}.metric=bbox', key, split=split)


def check_boxes(facts: Facts) -> Iterator[Finding]:
    """Find boxes that extend beyond their images by more than rounding does."""
    for data in facts.datasets:
        boxes, sizes, names = _boxes(data)
        beyond = np.maximum(-boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - sizes)
        wrong = np.flatnonzero((beyond > ROUNDING).any(1)).tolist()
        if wrong:
            # A few, or by a few pixels, are mistakes of annotators; many that extend far are another format.
            far = ((beyond > ROUNDING) & (beyond >= 0.1 * sizes)).any(1).sum() >= 0.1 * len(beyond)
            options = dict(severity=FAULT, explains=('boxes and polygons disagree',)) if far else {}
            found = [f'{names(row)}: bbox [{", ".join(map("{:g}".format, boxes[row]))}]' for row in wrong]
            message = 'boxes extend beyond the image by more than 2 pixels.'
            where = data.dataset.ann_file
            yield data.finding('boxes outside images', message, '', where, found, len(boxes), **options)
        small = np.flatnonzero((boxes[:, 2:] < 1).any(1)).tolist() if data.annotations is None else []
        if small:  # those of COCO files are dropped
            found = [f'{names(row)}: bbox [{", ".join(map("{:g}".format, boxes[row]))}]' for row in small]
            message = 'boxes are less than 1 pixel wide or high.'
            yield data.finding('invalid box', message, '', data.dataset.ann_file, found, len(boxes))


def _boxes(data: DatasetFacts) -> tuple[np.ndarray, np.ndarray, Callable[[int], str]]:
    """Return boxes (N, 4) x, y, width, height, sizes (N, 2) of their images, and what to call the box of a row."""
    if data.annotations is not None:
        return data.annotations.boxes, data.annotations.sizes, lambda row: _name(data, data.annotations.entries[row])
    objects = [
        (info, part['bbox']) for info in data.infos if {'height', 'width'} <= info.keys() for part in _instances(info)
    ]
    corners = np.array([box for _, box in objects], float).reshape(-1, 4)
    sizes = np.array([(info['width'], info['height']) for info, _ in objects], float).reshape(-1, 2)
    boxes = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
    return boxes, sizes, lambda row: str(objects[row][0].get('img_path'))


def _instances(info: Mapping) -> list[Mapping]:
    return [part for part in info.get('instances', ()) if len(part.get('bbox', ())) == 4]


def check_polygons(facts: Facts) -> Iterator[Finding]:
    """Find boxes that disagree with their own polygons, among some."""
    for data, annotations in facts.of_coco():
        sample = annotations.entries[:: max(1, len(annotations.entries) // SAMPLE)]
        checked = [e for e in sample if e.get('segmentation') and isinstance(e['segmentation'], list)]
        wrong = [entry for entry in checked if _disagree(entry)]
        if wrong:
            corners = sum(_agree(entry['bbox'], extent(entry['segmentation'])) for entry in wrong)
            hint = ' As [x1, y1, x2, y2] they agree.' * (corners > len(wrong) / 2)
            message = f'annotations have a bbox that differs from their own polygons.{hint}'
            yield _some(data, 'boxes and polygons disagree', wrong, len(checked), message, 'bbox')


def _disagree(entry: Mapping) -> bool:
    x, y, width, height = entry['bbox']
    return not _agree((x, y, x + width, y + height), extent(entry['segmentation']))


def _agree(box: tuple | list, other: tuple) -> bool:
    """Return True if the sides of two rectangles differ by 3 pixels at most, or 5 % of the larger side."""
    allowed = max(3, 0.05 * max(other[2] - other[0], other[3] - other[1]))
    return all(abs(a - b) <= allowed for a, b in zip(box, other, strict=True))


def find_dropped(facts: Facts) -> Iterator[Finding]:
    """Name annotations that training drops, which matters if evaluation counts them, and images without objects."""
    for data, annotations in facts.of_coco():
        dropped = annotations.choose(annotations.having(*_NEVER_LEARNED))
        counted = [entry for entry in dropped if not entry.get('iscrowd')] if data.split != 'train' else []
        if counted:
            recall = 1 - len(counted) / annotations.learned_entries
            message = f'objects that evaluation counts are dropped in training: recall is {recall:.3f} at most.'
            kind = 'evaluated but never learned'
            yield _some(data, kind, counted, annotations.learned_entries, message, 'bbox', 'area')
        total, images = len(annotations.entries), annotations.images
        if not facts.complete or not total:
            continue
        if dropped := annotations.choose(annotations.having(*_NEVER_LEARNED, 'ignore=1')):
            message = 'annotations are dropped by MMDetection.'
            yield _some(data, 'dropped annotations', dropped, total, message, 'bbox', 'area')
        counts = np.bincount(annotations.rows, minlength=len(images)).tolist()
        empty = [image['file_name'] for image, count in zip(images.values(), counts, strict=True) if not count]
        if empty:
            yield data.finding('no annotation', 'images have no annotation.', '', annotations.path, empty, len(images))


def _some(
    data: DatasetFacts, kind: str, entries: list, total: int, message: str, *fields: str, **others: object
) -> Finding:
    """Make a finding about some annotations; examples have the values of ``fields``."""
    found = []
    for entry in entries:
        values = [f'{name} {entry.get(name)}' for name in fields if name != 'segmentation']
        values += [f'size {entry[name]["size"]}' for name in fields if name == 'segmentation']
        found.append(f'{_name(data, entry)}: {", ".join(values)}' if values else _name(data, entry))
    return data.finding(kind, message, where=data.annotations.path, found=found, total=total, **others)


def _name(data: DatasetFacts, entry: Mapping) -> str:
    return f'{data.annotations.images[entry["image_id"]]["file_name"]}: annotation {entry["id"]!r}'
