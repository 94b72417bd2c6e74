"""Segmentation maps: the values in them against the labels that the dataset and the model know."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mmstvit.datasets.images import Reader, UnreadableError
from mmstvit.datasets.segmentation_labels import (
    Labels,
    Values,
    count_values,
    find_ignore_index,
    find_labels,
    write_ranges,
)
from mmstvit.nodes import find_parts

from .facts import DatasetFacts, Facts
from .findings import Finding
from .headers import thin_out
from .kinds import KINDS, WARNING

SAMPLE = 12  # maps of a dataset that are decoded before training, evenly spaced
SEARCHED = 200  # maps that are searched for a second class before none is said to occur


@dataclass
class Histogram:
    """Values in the segmentation maps of a dataset.

    Args:
        labels: Labels that the dataset and the model know.
        pixels: Number of pixels of each value.
        maps: Values of each map.
        pictures: Number of channels of each file that has several.
        complete: True if all maps were read: a class that does not occur is not there.
    """

    labels: Labels
    pixels: Counter[int] = field(default_factory=Counter)
    maps: dict[str, frozenset[int]] = field(default_factory=dict)
    pictures: dict[str, int] = field(default_factory=dict)
    complete: bool = True

    def add(self, path: str, values: Values) -> None:
        """Add a map."""
        if 'channels' in values:
            self.pictures[path] = values['channels']
            return
        self.pixels.update(values)
        self.maps[path] = frozenset(values)

    @property
    def learned(self) -> list[str]:
        """Names of the classes that occur."""
        return [name for label, name in self.labels.learned.items() if label in self.pixels]

    def share(self, values: Iterable[int]) -> str:
        """Write the share of the pixels that have some values."""
        return f'{sum(self.pixels[value] for value in values) / self.pixels.total():.1%}'


def check_map_sizes(facts: Facts) -> Iterator[Finding]:
    """Refuse segmentation maps of another size than their images; without decoding, from the headers of some."""
    for data in facts.datasets:
        infos = data.infos if data.decoded else [header.info for header in data.headers]
        wrong = []
        for info in infos if data.map_reader else ():
            if path := info.get('seg_map_path'):
                own, size = _size(data, data.map_reader, path), _size(data, data.image_reader, info['img_path'])
                if own and size and own != size:
                    wrong.append(f'{path} is {own[0]}×{own[1]}, its image {size[0]}×{size[1]}')
        if wrong:
            yield data.finding('wrong segmentation map size', wrong, total=len(data.maps) if data.decoded else None)


def _size(data: DatasetFacts, reader: Reader, path: str) -> tuple[int, int] | None:
    """Return (width, height) of a file that was decoded, or else from its header; None if it cannot be read."""
    if path in data.decoded:
        return data.decoded[path].shape[::-1] if data.decoded[path].digest else None
    return reader.size(path)


def check_map_labels(facts: Facts) -> Iterator[Finding]:
    """Judge the values in segmentation maps: the cause of what is wrong, or what is unusual."""
    histograms = [(data, found) for data in facts.datasets if (found := _count_labels(facts, data))]
    together = {name for _, histogram in histograms for name in histogram.learned}
    for data, histogram in histograms:
        if histogram.pictures:
            found = [f'{path} has {channels} channels' for path, channels in histogram.pictures.items()]
            yield data.finding('picture of labels', found, total=len(found) + len(histogram.maps))
        if not histogram.maps:
            continue
        if histogram.pixels.keys() - histogram.labels.allowed:
            yield _explain_unknown(histogram, data)
        elif len(histogram.learned) < 2 <= len(histogram.labels.learned):
            yield _explain_single(histogram, data, len(together) < 2)
        else:
            yield from _find_unusual(histogram, data)


def _count_labels(facts: Facts, data: DatasetFacts) -> Histogram | None:
    """Count the values in all maps that were decoded, or in some; None for datasets without label maps."""
    labels = data.dataset is not None and find_labels(data.dataset, find_ignore_index(facts.cfg.model))
    if not labels or not data.map_reader or not data.maps:
        return None
    histogram, count = Histogram(labels), len(data.maps)
    order = dict.fromkeys([*thin_out(data.maps, SAMPLE), *thin_out(data.maps, SEARCHED), *data.maps])
    for number, path in enumerate(order, 1):
        try:
            values = data.decoded[path].values if data.decoded else count_values(data.map_reader.read(path))
        except UnreadableError:  # GuardedDataset names it
            continue
        if values:
            histogram.add(path, values)
        enough = (number >= SAMPLE and len(histogram.learned) > 1) or (number >= SEARCHED and histogram.learned)
        if enough and not data.decoded and number < count:
            histogram.complete = False
            break
    return histogram


def _explain_unknown(histogram: Histogram, data: DatasetFacts) -> Finding:
    """Explain values that are no labels, and guess their meaning."""
    labels = histogram.labels
    wrong = sorted(histogram.pixels.keys() - labels.allowed)
    files = {path: sorted(found - labels.allowed) for path, found in histogram.maps.items() if found - labels.allowed}
    seen = f'label {write_ranges(wrong)}, {histogram.share(wrong)} of the pixels; allowed are {labels.describe()}'
    found = [f'{path}: {write_ranges(values)}' for path, values in files.items()]
    options = dict(total=len(histogram.maps), count=len(found), remedy=_find_remedy(histogram, data))
    return data.finding('label out of range', [seen, *found], **options)


def _find_remedy(histogram: Histogram, data: DatasetFacts) -> str:
    """Guess the meaning of the values; returns what to do, empty if that is unknown."""
    labels, values = histogram.labels, sorted(histogram.pixels)
    after = max(labels.learned, default=-1) + 1
    few = 1 < len(values) <= labels.count + 1
    if few and values[0] == 0 and values[1] >= labels.count and values[-1] >= 254:  # 0 and 255; 0, 127 and 254
        void = ' and 255 for pixels without a label' if len(values) > labels.count else ''
        wanted = write_ranges(range(labels.count)) + void
        return f'The maps look like black and white pictures: replace {write_ranges(values)} by {wanted}.'
    if {*values} - labels.allowed == {after}:
        if values[0] > 0 and not labels.reduced:
            return f'The labels begin at 1: set {data.key}.reduce_zero_label=True, in each split.'
        return (
            f'If label {after} is void (unlabeled), replace it by 255 in the maps, or set ignore_index={after} in '
            f'model.decode_head, model.auxiliary_head and the evaluators (IoUMetric); if it is a class, add it to '
            f'metainfo.classes and set num_classes={labels.count + 1}.'
        )
    hidden = labels.reduced and 0 in values and len(histogram.learned) < 2
    return f'If label 0 is the first class, set {data.key}.reduce_zero_label=False.' if hidden else ''


def _explain_single(histogram: Histogram, data: DatasetFacts, alone: bool) -> Finding:
    """Explain maps with one class or none: every model reaches a perfect score on them.

    Args:
        histogram: The values in the maps.
        data: The dataset.
        alone: The maps of all other datasets have no other class.
    """
    labels = histogram.labels
    ignored = sorted(histogram.pixels.keys() & labels.ignored)
    occurring = [value for value in labels.learned if value in histogram.pixels]
    only = ', '.join(f'only {labels.learned[value]!r} (label {value})' for value in occurring)
    found = [f'of {labels.count} classes {only or "none"} occurs in {len(histogram.maps)} maps']
    if ignored:
        reduced = ', reduce_zero_label=True' if labels.reduced else ''
        found.append(f'label {write_ranges(ignored)} is ignored, {histogram.share(ignored)} of the pixels{reduced}')
    remedy = _find_remedy(histogram, data) or KINDS['only one class in the maps'].remedy
    if histogram.complete and not only and data.annotated:
        return data.finding('unusable dataset', found, remedy=remedy)
    # Images of the background alone are a part of some data; ignored pixels beside one class are a mistake.
    certain = histogram.complete and data.split == 'train' and (alone or ignored)
    return data.finding('only one class in the maps', found, remedy=remedy, severity='' if certain else WARNING)


def _find_unusual(histogram: Histogram, data: DatasetFacts) -> Iterator[Finding]:
    """Warn of a class that reduce_zero_label hides, classes that do not occur, and maps without labels."""
    labels = histogram.labels
    hidden = labels.reduced and f'{histogram.share([0])} of the pixels' if 0 in histogram.pixels else ''
    if hidden:
        remark = f'label 0 is ignored (reduce_zero_label=True), {hidden} in {len(histogram.maps)} maps'
        data.remarks.append(remark)
    absent = [label for label in labels.learned if label not in histogram.pixels]
    names = [f'{labels.learned[label]!r} (label {label})' for label in absent]
    if hidden and absent == [max(labels.learned)]:
        yield data.finding('reduce_zero_label', [hidden, *names])
    elif absent and histogram.complete:
        yield data.finding('class without samples', names, total=labels.count)
    ignored = sorted(histogram.pixels.keys() & labels.ignored)
    most = sum(histogram.pixels[value] for value in ignored) > histogram.pixels.total() / 2
    empty = [path for path, values in histogram.maps.items() if values <= labels.ignored] if histogram.complete else []
    if most or empty:
        values = [f'label {write_ranges(ignored)}, {histogram.share(ignored)} of all pixels', *empty]
        yield data.finding('most pixels are ignored', values, count=len(empty))


def check_ignore_index(facts: Facts) -> Iterator[Finding]:
    """Refuse heads and evaluators that ignore different labels: the metric would count what the model ignores."""
    if facts.scope != 'mmseg':
        return
    expected = find_ignore_index(facts.cfg.model)
    heads = find_parts(facts.cfg.model.get('auxiliary_head'), 'model.auxiliary_head')
    for key, part in [*heads, *facts.evaluators('val'), *facts.evaluators('test')]:
        value = part.get('ignore_index', 255)
        if value != expected:
            values, remedy = [f'{value}, decode_head {expected}'], f'Set --cfg-options {key}.ignore_index={expected}'
            yield Finding('ignore_index differs', f'{key}.ignore_index', values, remedy=remedy)
