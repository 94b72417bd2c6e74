"""Segmentation maps: the values in them against the labels that the dataset and the model know."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from mmstvit.datasets.images import Reader, UnreadableError, find_readers
from mmstvit.datasets.label_maps import Labels, find_ignore_index, find_labels, write_ranges

from .facts import DatasetFacts, Facts
from .findings import FAULT, WARNING, Finding, shorten

SAMPLE = 12  # maps of a dataset that are decoded before training, evenly spaced
SEARCHED = 200  # maps that are searched for a second class before none is said to occur


@dataclass
class Histogram:
    """Values in segmentation maps.

    Args:
        pixels: Number of pixels of each value.
        first: The first file with each value.
        pictures: Files of several channels, with their number.
        maps: Number of maps with one channel.
    """

    pixels: Counter[int] = field(default_factory=Counter)
    first: dict[int, str] = field(default_factory=dict)
    files: Counter[int] = field(default_factory=Counter)
    pictures: dict[str, int] = field(default_factory=dict)
    maps: int = 0

    def add(self, path: str, labels: np.ndarray) -> None:
        """Add a map as it was decoded."""
        if labels.ndim != 2:
            self.pictures[path] = labels.shape[-1]
            return
        self.maps += 1
        for value, count in zip(*np.unique(labels, return_counts=True), strict=True):
            value = int(value)
            self.pixels[value] += int(count)
            self.files[value] += 1
            self.first.setdefault(value, path)


def check_label_sample(facts: Facts) -> Iterator[Finding]:
    """Decode a dozen segmentation maps of each dataset, and judge the values in them."""
    for data in facts.datasets:
        labels = data.dataset and find_labels(data.dataset, find_ignore_index(facts.cfg.model))
        reader = labels and next((r for r in find_readers(data.dataset.pipeline) if r.key == 'seg_map_path'), None)
        paths = _map_paths(data) if reader else []
        if not paths:
            continue
        histogram, looked_at = Histogram(), 0
        for path in _spread(paths, SAMPLE, SEARCHED):
            if looked_at >= SAMPLE and len(histogram.pixels.keys() & labels.learned.keys()) > 1:
                break
            looked_at += 1
            _read(histogram, reader, path)
        yield from judge(histogram, labels, data, looked_at == len(paths))


def check_ignore_index(facts: Facts) -> Iterator[Finding]:
    """Refuse heads and evaluators that ignore different labels: the metric would count what the model ignores."""
    if facts.cfg.get('default_scope') != 'mmseg':
        return
    expected = find_ignore_index(facts.cfg.model)
    for section in ('model.auxiliary_head', 'val_evaluator', 'test_evaluator'):
        node = facts.cfg.model.get('auxiliary_head') if section.startswith('model') else facts.cfg.get(section)
        for i, part in enumerate(node if isinstance(node, (list, tuple)) else [node]):
            value = part.get('ignore_index', 255) if isinstance(part, Mapping) else expected
            if value != expected:
                key = f'{section}.{i}' if isinstance(node, (list, tuple)) else section
                message = f'model.decode_head ignores label {expected}, but {key}.ignore_index is {value}.'
                remedy = f'Set --cfg-options {key}.ignore_index={expected}'
                yield Finding('ignore_index differs', FAULT, message, remedy, f'{key}.ignore_index')


def _spread(paths: list[str], first: int, most: int) -> Iterator[str]:
    """Yield a few evenly spaced paths, then more of them, without repetition."""
    seen = set()
    for number in (first, most):
        for index in np.linspace(0, len(paths) - 1, min(number, len(paths))).astype(int).tolist():
            if index not in seen:
                seen.add(index)
                yield paths[index]


def _map_paths(data: DatasetFacts) -> list[str]:
    return [info['seg_map_path'] for info in getattr(data.dataset, 'data_list', []) if info.get('seg_map_path')]


def _read(histogram: Histogram, reader: Reader, path: str) -> None:
    try:
        histogram.add(path, reader.read(path).squeeze())
    except UnreadableError:  # another rule names it
        return


def judge(histogram: Histogram, labels: Labels, data: DatasetFacts, complete: bool) -> Iterator[Finding]:
    """Judge the values in the maps of a dataset.

    Args:
        histogram: The values.
        labels: The labels of the dataset.
        data: The dataset.
        complete: All maps of the dataset were read, so that a class that does not occur is not there.
    """
    total = histogram.maps + len(histogram.pictures)
    if histogram.pictures:
        path, channels = next(iter(histogram.pictures.items()))
        yield Finding(
            'picture of labels',
            FAULT,
            f'{path} has {channels} channels, expected 1 (labels): it seems to be a picture of the labels '
            f'({len(histogram.pictures)} of {total} maps).',
            'Replace each color by the number of its class, and save one channel; a palette is allowed.',
            data.key,
            len(histogram.pictures),
            total,
            shorten(list(histogram.pictures)),
            data.split,
            ('invalid segmentation map', 'unusable dataset'),
        )
    if not histogram.maps:
        return
    wrong = sorted(histogram.pixels.keys() - labels.allowed)
    learned = [value for value in labels.learned if value in histogram.pixels]
    if wrong:
        yield _explain_values(histogram, labels, data, wrong)
    elif len(learned) < 2 <= len(labels.learned):
        yield _explain_single(histogram, labels, data, complete)
    elif labels.reduced and 0 in histogram.pixels and max(labels.learned) not in histogram.pixels:
        share = _share(histogram, [0])
        message = (
            f'reduce_zero_label=True ignores label 0, {share} of the pixels, and label {max(labels.learned)} '
            f'({labels.learned[max(labels.learned)]!r}) does not occur in {histogram.maps} maps.'
        )
        remedy = f'If label 0 is the first class, set {data.key}.reduce_zero_label=False.'
        yield Finding('reduce_zero_label', WARNING, message, remedy, data.key, split=data.split)
    if complete and not wrong:
        absent = [
            f'{name!r} (label {value})' for value, name in labels.learned.items() if value not in histogram.pixels
        ]
        if absent and len(learned) > 1:
            message = f'{_list(absent)} {"does" if len(absent) == 1 else "do"} not occur in the {histogram.maps} maps.'
            yield Finding(
                'class without samples',
                WARNING,
                message,
                'Add samples of the class, or remove it.',
                data.key,
                len(absent),
                len(labels.learned),
                split=data.split,
            )
        ignored = [value for value in labels.ignored if value in histogram.pixels]
        if ignored and learned and histogram.pixels.total() < 2 * sum(histogram.pixels[value] for value in ignored):
            message = f'{_share(histogram, ignored)} of the pixels are ignored (labels {_list(sorted(ignored))}).'
            remedy = 'If they have labels, correct the maps, reduce_zero_label or ignore_index.'
            yield Finding('most pixels are ignored', WARNING, message, remedy, data.key, split=data.split)


def _explain_values(histogram: Histogram, labels: Labels, data: DatasetFacts, wrong: list[int]) -> Finding:
    """Explain values that are no labels, and guess their meaning."""
    values, count = sorted(histogram.pixels), labels.count
    shown = [
        f'{value} ({_share(histogram, [value])} of the pixels, first in {histogram.first[value]})' for value in wrong
    ]
    number = sum(1 for value in wrong)
    message = (
        f'label {shown[0]} is not allowed; allowed are {labels.describe()}. {histogram.maps} maps have the values '
        f'{write_ranges(values)}.'
    )
    top = max(labels.learned)
    if _looks_gray(values, count):
        remedy = (
            f'The maps look like black and white pictures: replace {_list(values)} by the labels '
            f'{_list(range(min(len(values), count)))}.'
        )
    elif 0 not in values and wrong == [top + 1] and not labels.reduced:
        remedy = f'The labels begin at 1: set {data.key}.reduce_zero_label=True in each split.'
    elif wrong == [top + 1] and not labels.reduced:
        remedy = (
            f'If label {top + 1} is void (unlabeled), set ignore_index={top + 1} in model.decode_head and '
            f'model.auxiliary_head and in the evaluators (IoUMetric), or replace it by 255 in the maps; if it is a '
            f'class, add it to metainfo.classes and set num_classes={count + 1}.'
        )
    else:
        remedy = (
            'Make the labels in the maps, metainfo.classes and num_classes agree; see also reduce_zero_label and '
            'ignore_index.'
        )
    return Finding(
        'label out of range',
        FAULT,
        message,
        remedy,
        histogram.first[wrong[0]],
        number,
        len(values),
        shorten(shown),
        data.split,
        ('unusable dataset',),
    )


def _explain_single(histogram: Histogram, labels: Labels, data: DatasetFacts, complete: bool) -> Finding:
    """Explain maps with one class or none: every model reaches a perfect score on them."""
    values = sorted(histogram.pixels)
    learned = [f'{labels.learned[value]!r} (label {value})' for value in values if value in labels.learned]
    ignored = [value for value in values if value in labels.ignored]
    message = (
        f'the {histogram.maps} maps have the values {_list(values)}: of {len(labels.learned)} classes '
        f'{"only " + learned[0] if learned else "none"} occurs'
        f'{f", and {_list(ignored)} ({_share(histogram, ignored)} of the pixels) is ignored" if ignored else ""} '
        f'(reduce_zero_label={labels.reduced}).'
    )
    if _looks_gray(values, len(labels.learned)):
        remedy = f'The maps look like black and white pictures: replace {_list(values)} by {_list(range(len(values)))}.'
    elif labels.reduced and 0 in values:
        remedy = f'If label 0 is the first class, set {data.key}.reduce_zero_label=False.'
    else:
        remedy = 'Correct the labels in the maps, reduce_zero_label or ignore_index.'
    kind, severity = 'only one class in the maps', FAULT if complete else WARNING
    return Finding(kind, severity, message, remedy, data.key, split=data.split, explains=('unusable dataset',))


def _looks_gray(values: list[int], count: int) -> bool:
    """Return True for values that are spread over the range of a gray image: 0 and 255; 0, 127 and 254."""
    return 1 < len(values) <= max(count, 2) + 1 and values[-1] >= 254 and values[0] == 0 and values[1] >= count


def _share(histogram: Histogram, values: Iterable[int]) -> str:
    return f'{sum(histogram.pixels[value] for value in values) / histogram.pixels.total():.1%}'


def _list(values: Iterable[object], shown: int = 8) -> str:
    values = list(values)
    return ', '.join(map(str, values[:shown])) + (', …' if len(values) > shown else '')
