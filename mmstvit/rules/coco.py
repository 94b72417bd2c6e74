"""COCO annotation files: categories and class names, ids, masks and boxes."""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping

from mmstvit.datasets.coco import Annotations, first_names
from mmstvit.dependencies import tool_command

from .facts import SIZES, DatasetFacts, Facts
from .findings import Finding, shorten
from .kinds import FAULT, WARNING
from .masks import ROUNDING, extent

BOXES_ONLY = 'configs/faster_rcnn/faster-rcnn_stvit-nano_fpn_scenes.py'
_SPLITS = 'class names of the splits differ'
# Reasons for which MMDetection drops an object that CocoMetric counts.
_NEVER_LEARNED = ('area 0', 'box below 1 pixel', 'outside the image')
SAMPLE = 10_000  # annotations whose polygons are compared with their boxes


def check_format(facts: Facts) -> Iterator[Finding]:
    """Refuse annotation files that MMDetection cannot read; sizes that differ from the files matter for masks alone."""
    for data in facts.datasets:
        for defect in data.defects:
            if defect.kind == SIZES and not wants_masks(facts, data):
                defect = dataclasses.replace(defect, severity=WARNING)
            yield defect


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
    classes, path = list(data.classes), annotations.path
    names = list(annotations.names.values())
    known = [name for name in names if name in classes]
    absent = [name for name in classes if name not in names]
    unused = [name for name in names if name not in classes]
    near = {name: near for name in absent if (near := nearest(name, unused))}
    hint = ''.join(f' Did you mean {other!r} for {name!r}?' for name, other in [*near.items()][:3])
    own = 'classes' in (data.cfg.get('metainfo') or {})
    write = f'Set {data.key}.metainfo=dict(classes=({first_names(names, 20)}{"," if len(names) == 1 else ""})).'

    def finding(kind: str, message: str, *explains: str, severity: str = '') -> Finding:
        remedy = (hint or f' {write}').lstrip()
        return Finding(kind, message, remedy, data.key, split=data.split, explains=explains, severity=severity)

    wanted = f'metainfo.classes of {data.key} has' if own else f'{data.key} has no metainfo.classes and uses'
    if not known:
        message = f'{wanted} {first_names(classes)}, but the categories in {path} are {first_names(names)}.'
        explains = ('unusable dataset', 'dropped annotations', 'classes and heads disagree', _SPLITS)
        yield finding('no matching category', message, *explains)
    elif absent and (near or known != classes[: len(known)] or data.split != 'train'):
        message = f'{wanted} {first_names(absent)}, which {path} does not have; its categories are {first_names(names)}'
        yield finding('class without category', f'{message}.', 'unused category', _SPLITS)
    elif known != classes[: len(known)]:
        label = next(i for i, name in enumerate(known) if name != classes[i])
        message = f'label {label} is {known[label]!r} in {path}, but {classes[label]!r} in {data.key}.metainfo.classes.'
        yield finding('order of categories', message, _SPLITS)
    elif absent:
        message = f'{wanted} {first_names(absent)}, which {path} does not have.'
        yield finding('class without category', message, severity=WARNING)
    for key, name in annotations.names.items():
        count = annotations.per_category[key]
        if known and name in unused and name not in near.values() and count:
            message = f'{name!r} in {path} is not in metainfo.classes: its {count} annotations are dropped.'
            remedy = 'If the model should learn it, add it to metainfo.classes and set num_classes.'
            yield Finding('unused category', message, remedy, data.key, count, split=data.split)


def nearest(name: str, names: list[str]) -> str | None:
    """Return the name that is nearest to a misspelt one; None if none is near."""
    lower = {other.lower(): other for other in reversed(names)}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.7)
    return lower[close[0]] if close else None


def check_masks(facts: Facts) -> Iterator[Finding]:
    """Refuse objects without a mask where the pipeline loads masks, which ends in a KeyError of a worker."""
    for data, annotations in facts.of_coco():
        if not wants_masks(facts, data):
            continue
        entries = [e for e in annotations.entries if e['category_id'] in annotations.learned]
        bare = [e for e in entries if not e.get('segmentation') and annotations.drop_reason(e) in ('', 'crowd')]
        if not bare:
            continue
        message = f'{_count(len(bare), len(entries))} have no mask (segmentation is empty), but the config wants masks'
        message += ' (with_mask=True).' if data.with_mask else " (metric 'segm')."
        some = '' if len(bare) == len(entries) else ', remove these annotations'
        remedy = f'Add the masks{some}, or train a detector of boxes alone, such as {BOXES_ONLY}.'
        examples = shorten([_name(annotations, entry) for entry in bare])
        yield Finding('no mask', message, remedy, annotations.path, len(bare), len(entries), examples, data.split)


def check_rle_sizes(facts: Facts) -> Iterator[Finding]:
    """Refuse RLE masks of another size than their image, which end in an error of a worker."""
    for data, annotations in facts.of_coco():
        masks = [(e, e['segmentation']) for e in annotations.entries if isinstance(e.get('segmentation'), dict)]
        wrong = [(e, mask) for e, mask in masks if mask and _differs(annotations, e, mask)]
        if wrong and wants_masks(facts, data):
            message = f'{len(wrong)} of {len(masks)} RLE masks are not of the size [height, width] of their images.'
            remedy = 'Encode the masks at the size of their images, or correct width and height of the images.'
            examples = shorten([f'{_name(annotations, e)}: size {mask["size"]}' for e, mask in wrong])
            yield Finding(
                'RLE of another size', message, remedy, annotations.path, len(wrong), len(masks), examples,
                data.split, ('invalid mask',),
            )  # fmt: skip


def _differs(annotations: Annotations, entry: Mapping, mask: Mapping) -> bool:
    image = annotations.images.get(entry['image_id'])
    size = image and [image['height'], image['width']]
    runs = mask['counts']
    return size is not None and (mask['size'] != size or (isinstance(runs, list) and sum(runs) != size[0] * size[1]))


def check_mask_heads(facts: Facts) -> Iterator[Finding]:
    """Refuse a model with a mask head whose pipeline loads no masks, and the metric ``segm`` of a model without."""
    if facts.cfg.get('default_scope') != 'mmdet':
        return
    model = facts.cfg.get('model') or {}
    if (model.get('roi_head') or {}).get('mask_head'):
        for data in facts.of_split('train'):
            if data.annotated and not data.with_mask:
                message = f'model.roi_head.mask_head learns masks, but the pipeline of {data.key} does not load them.'
                remedy = f'Set with_mask=True of LoadAnnotations, or train a detector of boxes alone: {BOXES_ONLY}.'
                yield Finding('no mask', message, remedy, data.key, split='train')
    elif 'mask' not in str(model).lower():
        for split in facts.keys:
            for key, node in facts.evaluators(split):
                if 'segm' in (node.get('metric') or ()):
                    message = f"{key}.metric has 'segm', but the model predicts no masks."
                    yield Finding('no mask', message, f'Set --cfg-options {key}.metric=bbox', key, split=split)


def wants_masks(facts: Facts, data: DatasetFacts) -> bool:
    """Return True if the pipeline loads masks, or an evaluator of the split compares them."""
    return data.with_mask or any('segm' in (node.get('metric') or ()) for _, node in facts.evaluators(data.split))


def check_boxes(facts: Facts) -> Iterator[Finding]:
    """Find boxes that extend beyond their images, or disagree with their own polygons."""
    for data, annotations in facts.of_coco():
        outside = [*_find_outside(annotations)]
        total = len(annotations.entries)
        if outside:
            # A few, or by a few pixels, are mistakes of annotators; many that extend far are another format.
            far = sum(_extends_far(annotations, entry) for entry in outside)
            severity = FAULT if far >= 0.1 * total else WARNING
            message = f'{_count(len(outside), total)} have a bbox that extends beyond the image by more than 2 pixels'
            remedy = 'Correct the boxes; bbox is [x, y, width, height] in pixels, not [x1, y1, x2, y2] or fractions.'
            examples = shorten([f'{_name(annotations, e)}: bbox {e["bbox"]}' for e in outside])
            explains = ('box outside image', *['boxes and polygons disagree'] * (severity == FAULT))
            yield Finding(
                'boxes outside images', f'{message}.', remedy, annotations.path, len(outside), total, examples,
                data.split, explains, severity,
            )  # fmt: skip
        step = max(1, total // SAMPLE)
        checked = [e for e in annotations.entries[::step] if _is_polygons(e.get('segmentation'))]
        wrong = [e for e in checked if _disagree(e)]
        if wrong:
            corners = sum(_agree(e['bbox'], extent(e['segmentation'])) for e in wrong)
            hint = ' As [x1, y1, x2, y2] they agree.' if corners > len(wrong) / 2 else ''
            message = f'{_count(len(wrong), len(checked))} have a bbox that differs from their own polygons.{hint}'
            remedy = 'Make the boxes again from the polygons: [x, y, width, height] in pixels.'
            examples = shorten([f'{_name(annotations, e)}: bbox {e["bbox"]}' for e in wrong])
            yield Finding(
                'boxes and polygons disagree', message, remedy, annotations.path, len(wrong), len(checked),
                examples, data.split,
            )  # fmt: skip


def _find_outside(annotations: Annotations) -> Iterator[Mapping]:
    """Find annotations whose boxes extend beyond their images by more than rounding does."""
    images = annotations.images
    for entry in annotations.entries:
        image = images.get(entry['image_id'])
        x, y, width, height = entry['bbox']
        if image and (
            x < -ROUNDING
            or y < -ROUNDING
            or x + width > image['width'] + ROUNDING
            or y + height > image['height'] + ROUNDING
        ):
            yield entry


def _extends_far(annotations: Annotations, entry: Mapping) -> bool:
    """Return True if a box extends beyond its image by a tenth of the image or more."""
    image = annotations.images[entry['image_id']]
    x, y, width, height = entry['bbox']
    beyond = (
        max(-x, x + width - image['width']) / image['width'],
        max(-y, y + height - image['height']) / image['height'],
    )
    return max(beyond) >= 0.1


def _is_polygons(mask: object) -> bool:
    return isinstance(mask, list) and bool(mask) and isinstance(mask[0], list) and len(mask[0]) > 1


def _disagree(entry: Mapping) -> bool:
    x, y, width, height = entry['bbox']
    return not _agree((x, y, x + width, y + height), extent(entry['segmentation']))


def _agree(box: tuple | list, other: tuple) -> bool:
    """Return True if the sides of two rectangles differ by 3 pixels at most, or 5 % of the larger side."""
    allowed = max(3, 0.05 * max(other[2] - other[0], other[3] - other[1]))
    return all(abs(a - b) <= allowed for a, b in zip(box, other, strict=True))


def check_evaluated(facts: Facts) -> Iterator[Finding]:
    """Warn of objects that training drops and evaluation counts: detections of all others reach no AP of 1."""
    for data, annotations in facts.of_coco():
        if data.split == 'train' or not annotations.dropped:
            continue
        counted = [
            entry
            for entry in annotations.entries
            if not entry.get('iscrowd') and annotations.drop_reason(entry) in _NEVER_LEARNED
        ]
        if counted:
            total = sum(entry['category_id'] in annotations.learned for entry in annotations.entries)
            message = (
                f'evaluation counts {len(counted)} of {total} objects that training drops: a perfect detector has a '
                f'recall of {1 - len(counted) / total:.3f}.'
            )
            remedy = f'Remove them: {tool_command("new_config.py")} DATA --fix writes a repaired copy.'
            examples = shorten([f'{_name(annotations, e)}: bbox {e["bbox"]}, area {e["area"]}' for e in counted])
            yield Finding(
                'evaluated but never learned', message, remedy, annotations.path, len(counted), total, examples,
                data.split,
            )  # fmt: skip


def find_dropped(facts: Facts) -> Iterator[Finding]:
    """Name annotations that MMDetection drops, which is harmless if there are few, and images without annotations."""
    for data, annotations in facts.of_coco():
        total = len(annotations.entries)
        dropped = [(e, annotations.drop_reason(e)) for e in annotations.entries] if annotations.dropped else []
        dropped = [(e, r) for e, r in dropped if r and not r.startswith(('category', 'unknown', 'crowd'))]
        if dropped:
            message = f'MMDetection drops {_count(len(dropped), total)}.'
            remedy = 'Correct them if there are many.'
            examples = tuple(f'{_name(annotations, e)}: {r}, bbox {e["bbox"]}, area {e["area"]}' for e, r in dropped)
            yield Finding(
                'dropped annotations', message, remedy, annotations.path, len(dropped), total, examples,
                data.split,
            )  # fmt: skip
        empty = annotations.images.keys() - {e['image_id'] for e in annotations.entries}
        if empty and total:
            message = f'{len(empty)} of {len(annotations.images)} images have no annotation.'
            remedy = 'Annotate the objects, if any; filter_cfg=dict(filter_empty_gt=True) drops such images.'
            examples = tuple(i['file_name'] for key, i in annotations.images.items() if key in empty)
            yield Finding(
                'no annotation', message, remedy, annotations.path, len(empty), len(annotations.images),
                examples, data.split,
            )  # fmt: skip


def _count(number: int, total: int) -> str:
    return f'all {total} annotations' if number == total else f'{number} of {total} annotations'


def _name(annotations: Annotations, entry: Mapping) -> str:
    image = annotations.images.get(entry['image_id'])
    return f'{image["file_name"] if image else "?"}: annotation {entry["id"]!r}'
