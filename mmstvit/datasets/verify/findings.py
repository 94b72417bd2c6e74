"""Findings of verify_dataset, their kinds and remedies, and the report."""

from collections.abc import Iterator
from dataclasses import dataclass, field

_REPAIR = 'Repair the file or remove it from the data.'
_LABELS = 'Make the labels, metainfo.classes and num_classes agree'
_IDS = 'Give each entry an id of its own.'
_BOXES = 'Correct the annotation; bbox is [x, y, width, height] in pixels.'
_MASKS = 'Correct the annotation; segmentation is a list of polygons [x1, y1, x2, y2, …] or RLE (size and counts).'

# Faults: an error in training, or a silent loss of accuracy. Kind → remedy.
FAULTS = {
    'unreadable image': f'{_REPAIR} To train without such files: --cfg-options data_faults.unreadable=skip',
    'unreadable segmentation map': f'{_REPAIR} To train without such files: --cfg-options data_faults.unreadable=skip',
    'wrong image size': 'Correct width and height in the annotations, or save the image in the annotated orientation.',
    'wrong segmentation map size': 'Make the map again for its image.',
    'invalid segmentation map': 'Save the labels as an image of one channel; a palette is allowed.',
    'label out of range': f'{_LABELS}; for maps see also reduce_zero_label and ignore_index.',
    'invalid box': _BOXES,
    'box outside image': _BOXES,
    'no mask': 'Add the masks, or train a detector without masks.',
    'invalid mask': _MASKS,
    'empty mask': _MASKS,
    'mask outside image': _MASKS,
    'unknown category': 'Add the category to categories, or correct category_id.',
    'unknown image id': 'Add the image to images, or remove the annotation.',
    'no matching category': 'Set metainfo=dict(classes=(...)) to the names in the file, in their order.',
    'order of categories': 'List metainfo.classes in the order of categories in the file.',
    'duplicate image id': _IDS,
    'duplicate annotation id': _IDS,
    'duplicate category': _IDS,
    'duplicate file': 'List each file once.',
    'invalid annotation file': 'Use a JSON file in the COCO format for object detection (instances).',
    'invalid image entry': 'Add the missing fields.',
    'invalid annotation': 'Correct or add the fields; MMDetection needs them.',
    'invalid category': 'Add the missing fields.',
    'number of classes': f'{_LABELS}, in all heads of the model.',
    'unusable dataset': '',  # the message has it
}
# Warnings: possibly intended. Kind → remedy.
WARNINGS = {
    'empty box': 'MMDetection drops these objects without harm; correct them if there are many.',
    'no annotation': 'Annotate the objects, if any; filter_cfg=dict(filter_empty_gt=True) drops such images.',
    'unused category': 'If the model should learn the category, add it to metainfo.classes and set num_classes.',
    'class without category': 'Remove the class from metainfo.classes, or correct its name.',
    'class without samples': 'Add samples of the class, or remove it.',
    'nothing labeled': 'If the image has labels, correct the map or reduce_zero_label.',
    'same content': 'Remove one of the files.',
    'same content in two splits': 'Remove it from one of the splits: metrics on training images are too high.',
    'unused file': 'To use the file, add it to the annotations, or save it in a format that the dataset reads.',
    'not verified': 'Check these samples by other means.',
}


@dataclass(frozen=True)
class Finding:
    """A fault or a warning about a file or an annotation.

    Args:
        kind: A key of ``FAULTS`` or ``WARNINGS``; the report is grouped by it.
        path: The file.
        message: What is wrong.
    """

    kind: str
    path: str
    message: str

    def __post_init__(self) -> None:
        if self.kind not in FAULTS | WARNINGS:
            raise ValueError(f'unknown kind of finding {self.kind!r}')


@dataclass
class Split:
    """Contents of a split, and its findings.

    Args:
        datasets: A line for each data set.
        images: Number of images.
        annotations: Number of boxes, labels or maps.
        findings: Faults and warnings.
    """

    datasets: list[str] = field(default_factory=list)
    images: int = 0
    annotations: int = 0
    findings: list[Finding] = field(default_factory=list)


@dataclass
class Report:
    """The splits by name, and the findings between splits."""

    splits: dict[str, Split] = field(default_factory=dict)
    between: list[Finding] = field(default_factory=list)

    @property
    def faults(self) -> list[Finding]:
        """All faults."""
        return [finding for finding in self._findings() if finding.kind in FAULTS]

    @property
    def warnings(self) -> list[Finding]:
        """All warnings."""
        return [finding for finding in self._findings() if finding.kind in WARNINGS]

    def _findings(self) -> list[Finding]:
        return [finding for split in self.splits.values() for finding in split.findings] + self.between

    def lines(self, shown: int) -> Iterator[str]:
        """Yield the report as text, with the first ``shown`` findings of each kind."""
        for name, split in self.splits.items():
            yield from (f'{name}: {line}' for line in split.datasets)
            yield from _group_lines(split.findings, shown)
        if self.between:
            yield 'between splits:'
            yield from _group_lines(self.between, shown)
        yield f'{_count(len(self.faults), "fault")}, {_count(len(self.warnings), "warning")}'

    def to_dict(self) -> dict:
        """Return the whole report, for JSON."""
        return {
            'splits': {
                name: {
                    'datasets': split.datasets,
                    'images': split.images,
                    'annotations': split.annotations,
                    'findings': _group(split.findings),
                }
                for name, split in self.splits.items()
            },
            'between_splits': _group(self.between),
            'faults': len(self.faults),
            'warnings': len(self.warnings),
        }


def _group(findings: list[Finding]) -> list[dict]:
    """Group findings by kind: faults before warnings, the most frequent kind first."""
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.kind, []).append(finding)
    return [
        {
            'kind': kind,
            'severity': 'fault' if kind in FAULTS else 'warning',
            'count': len(found),
            'remedy': FAULTS.get(kind) or WARNINGS.get(kind, ''),
            'places': [{'path': finding.path, 'message': finding.message} for finding in found],
        }
        for kind, found in sorted(kinds.items(), key=lambda item: (item[0] in WARNINGS, -len(item[1])))
    ]


def _group_lines(findings: list[Finding], shown: int) -> Iterator[str]:
    for group in _group(findings):
        yield f'  {"FAULT" if group["severity"] == "fault" else "warning"}  {group["kind"]}: {group["count"]}'
        for place in group['places'][:shown]:
            yield f'    {place["path"]}: {place["message"]}'
        if group['count'] > shown:
            yield f'    … and {group["count"] - shown} more'
        if group['remedy']:
            yield f'    Remedy: {group["remedy"]}'


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'
