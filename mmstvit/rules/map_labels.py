"""Segmentation maps: the values in them against the labels that the dataset and the model know."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mmstvit.datasets.images import UnreadableError, find_map_reader
from mmstvit.datasets.segmentation_labels import Labels, Values, count_values, find_ignore_index, find_labels
from mmstvit.nodes import find_parts

from .facts import DatasetFacts, Facts
from .findings import Finding
from .headers import choose_spread
from .kinds import WARNING

SAMPLE = 12  # maps of a dataset that are decoded before training, evenly spaced
SEARCHED = 200  # maps that are searched for a second class before none is said to occur


@dataclass
class Histogram:
    """Values in the segmentation maps of a dataset.

    Args:
        pixels: Number of pixels of each value.
        maps: Values of each map.
        pictures: Number of channels of each file that has several.
    """

    pixels: Counter[int] = field(default_factory=Counter)
    maps: dict[str, frozenset[int]] = field(default_factory=dict)
    pictures: dict[str, int] = field(default_factory=dict)

    def add(self, path: str, values: Values) -> None:
        """Add a map."""
        if 'channels' in values:
            self.pictures[path] = values['channels']
            return
        self.pixels.update(values)
        self.maps[path] = frozenset(values)

    def share(self, values: Iterable[int]) -> str:
        """Write the share of the pixels that have some values."""
        return f'{sum(self.pixels[value] for value in values) / self.pixels.total():.1%}'


def check_map_sizes(facts: Facts) -> Iterator[Finding]:
    """Refuse segmentation maps of another size than their images, from the headers of some."""
    for data in facts.datasets if not facts.decodes else ():
        reader = None if data.dataset is None else find_map_reader(data.dataset.pipeline)
        for header in data.headers if reader else ():
            path = header.info.get('seg_map_path')
            size = data.image_reader.size(header.path)
            other = reader.size(path) if path else None
            if size and other and size != other:
                message = f'{path} is {other[0]}×{other[1]}, its image {size[0]}×{size[1]}.'
                yield data.finding('wrong segmentation map size', message, where=path)
                break


def check_label_sample(facts: Facts) -> Iterator[Finding]:
    """Decode a dozen segmentation maps of each dataset, and judge the values in them."""
    if facts.decodes:  # all maps, in another rule
        return
    for data in facts.datasets:
        labels = data.dataset is not None and find_labels(data.dataset, find_ignore_index(facts.cfg.model))
        reader = labels and find_map_reader(data.dataset.pipeline)
        paths = data.maps if reader else []
        histogram, count = Histogram(), 0
        spread = dict.fromkeys([*choose_spread(paths, SAMPLE), *choose_spread(paths, SEARCHED)])
        for count, path in enumerate(spread, 1):
            try:
                histogram.add(path, count_values(reader.read(path)))
            except UnreadableError:  # GuardedDataset names it
                continue
            if count >= SAMPLE and len(histogram.pixels.keys() & labels.learned.keys()) > 1:
                break
        yield from judge_labels(facts, data, histogram, complete=count == len(paths))


def judge_labels(facts: Facts, data: DatasetFacts, histogram: Histogram, complete: bool) -> Iterator[Finding]:
    """Judge the values in the maps of a dataset: the cause of what is wrong, or what is unusual.

    Args:
        facts: The facts.
        data: The dataset.
        histogram: Values in its maps.
        complete: True if all its maps were read: a class that does not occur is not there.
    """
    labels = find_labels(data.dataset, find_ignore_index(facts.cfg.model))
    if labels is None:
        return
    if histogram.pictures:
        yield _explain_pictures(histogram, data)
    learned = histogram.pixels.keys() & labels.learned.keys()
    if not histogram.maps:
        return
    if histogram.pixels.keys() - labels.allowed:
        yield _explain_unknown(histogram, labels, data)
    elif len(learned) < 2 <= len(labels.learned):
        yield _explain_single(histogram, labels, data, complete)
    else:
        yield from _find_unusual(histogram, labels, data, complete)


def _explain_pictures(histogram: Histogram, data: DatasetFacts) -> Finding:
    path, channels = next(iter(histogram.pictures.items()))
    pictures, total = list(histogram.pictures), len(histogram.pictures) + len(histogram.maps)
    message = (
        f'files have more than 1 channel, expected labels: {path} has {channels} channels. A picture of the labels?'
    )
    return data.some('picture of labels', pictures, total, message)


def _explain_unknown(histogram: Histogram, labels: Labels, data: DatasetFacts) -> Finding:
    """Explain values that are no labels, and guess their meaning."""
    values, after = sorted(histogram.pixels), max(labels.learned, default=-1) + 1
    wrong = [value for value in values if value not in labels.allowed]
    files = {path: sorted(found - labels.allowed) for path, found in histogram.maps.items() if found - labels.allowed}
    path, found = next(iter(files.items()))
    message = (
        f'{path} has the label {_list(found)}; allowed are {labels.describe()}. Other labels are in {len(files)} of '
        f'{len(histogram.maps)} maps: {_list(wrong)} ({histogram.share(wrong)} of the pixels).'
    )
    if _is_gray(values, labels):
        remedy = _gray_remedy(values, labels)
    elif values[0] > 0 and wrong == [after] and not labels.reduced:
        remedy = f'The labels begin at 1: set {data.key}.reduce_zero_label=True, in each split.'
    elif wrong == [after]:
        remedy = (
            f'If label {after} is void (unlabeled), replace it by 255 in the maps, or set ignore_index={after} in '
            f'model.decode_head, model.auxiliary_head and the evaluators (IoUMetric); if it is a class, add it to '
            f'metainfo.classes and set num_classes={labels.count + 1}.'
        )
    else:
        remedy = 'Make the maps, metainfo.classes and num_classes agree; see also reduce_zero_label and ignore_index.'
    examples, count = tuple(f'{path}: {_list(found)}' for path, found in files.items()), len(files)
    total = len(histogram.maps)
    return data.finding('label out of range', message, remedy, count=count, total=total, examples=examples)


def _explain_single(histogram: Histogram, labels: Labels, data: DatasetFacts, complete: bool) -> Finding:
    """Explain maps with one class or none: every model reaches a perfect score on them."""
    values = sorted(histogram.pixels)
    learned = [f'only {labels.learned[value]!r} (label {value})' for value in values if value in labels.learned]
    ignored = [value for value in values if value in labels.ignored]
    message = f'of {labels.count} classes {learned[0] if learned else "none"} occurs in {len(histogram.maps)} maps'
    if ignored:
        message += f'; label {_list(ignored)} ({histogram.share(ignored)} of the pixels) is ignored'
    message += ' (reduce_zero_label=True).' if labels.reduced else '.'
    if _is_gray(values, labels):
        remedy = _gray_remedy(values, labels)
    elif labels.reduced and 0 in values:
        remedy = f'If label 0 is the first class, set {data.key}.reduce_zero_label=False.'
    else:
        remedy = 'Correct the labels in the maps, reduce_zero_label or ignore_index.'
    severity = '' if complete and data.split == 'train' else WARNING
    explains = ('unusable dataset',) if learned else ()
    return data.finding('only one class in the maps', message, remedy, explains=explains, severity=severity)


def _find_unusual(histogram: Histogram, labels: Labels, data: DatasetFacts, complete: bool) -> Iterator[Finding]:
    """Warn of a class that reduce_zero_label hides, classes that do not occur, and maps without labels."""
    last = max(labels.learned)
    absent = [label for label in labels.learned if label not in histogram.pixels]
    if labels.reduced and 0 in histogram.pixels and absent == [last]:
        message = (
            f'reduce_zero_label=True ignores label 0, {histogram.share([0])} of the pixels, and label {last} '
            f'({labels.learned[last]!r}) does not occur in {len(histogram.maps)} maps.'
        )
        remedy = f'If label 0 is the first class, set {data.key}.reduce_zero_label=False.'
        yield data.finding('reduce_zero_label', message, remedy)
    elif absent and complete:
        names = [f'{labels.learned[label]!r} (label {label})' for label in absent]
        message = f'classes do not occur in {len(histogram.maps)} maps: {_list(names)}.'
        yield data.some('class without samples', names, labels.count, message)
    ignored = sorted(histogram.pixels.keys() & labels.ignored)
    if sum(histogram.pixels[value] for value in ignored) > histogram.pixels.total() / 2:
        message = f'{histogram.share(ignored)} of the pixels are ignored (label {_list(ignored)}).'
        yield data.finding('most pixels are ignored', message)
    empty = [path for path, values in histogram.maps.items() if values <= labels.ignored]
    if empty and complete:
        message = f'maps have no pixel that is not ignored, for example {empty[0]}.'
        yield data.some('nothing labeled', empty, len(histogram.maps), message)


def _is_gray(values: list[int], labels: Labels) -> bool:
    """Return True for values that are spread over the range of a gray image: 0 and 255; 0, 127 and 254."""
    few = 1 < len(values) <= labels.count + 1
    return few and values[0] == 0 and values[1] >= labels.count and values[-1] >= 254


def _gray_remedy(values: list[int], labels: Labels) -> str:
    wanted = _list(range(labels.count)) + (' and 255 for pixels without a label' if len(values) > labels.count else '')
    return f'The maps look like black and white pictures: replace {_list(values)} by {wanted}.'


def _list(values: Iterable[object], shown: int = 8) -> str:
    values = list(values)
    return ', '.join(map(str, values[:shown])) + (', …' if len(values) > shown else '')


def check_ignore_index(facts: Facts) -> Iterator[Finding]:
    """Refuse heads and evaluators that ignore different labels: the metric would count what the model ignores."""
    if facts.cfg.get('default_scope') != 'mmseg':
        return
    expected = find_ignore_index(facts.cfg.model)
    heads = find_parts(facts.cfg.model.get('auxiliary_head'), 'model.auxiliary_head')
    for key, part in [*heads, *facts.evaluators('val'), *facts.evaluators('test')]:
        value = part.get('ignore_index', 255)
        if value != expected:
            message = f'model.decode_head ignores label {expected}, but {key}.ignore_index is {value}.'
            remedy = f'Set --cfg-options {key}.ignore_index={expected}'
            yield Finding('ignore_index differs', message, remedy, f'{key}.ignore_index')
