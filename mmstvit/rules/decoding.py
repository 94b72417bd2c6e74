"""Rules that read and decode every file, in parallel."""

import contextlib
import dataclasses
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from torch.hub import tqdm  # counts by itself where tqdm is not installed; of the libraries, MMDetection needs it

from mmstvit.datasets.images import MAP_READER, Reader, find_map_reader
from mmstvit.datasets.splitting import group_copies
from mmstvit.fileio.image_files import IMAGE_SUFFIXES, walk_folder

from .annotations import wants_masks
from .facts import DatasetFacts, Facts
from .files import copies_found, skips_unreadable
from .findings import Finding, Problem, join_problems
from .kinds import WARNING
from .map_labels import Histogram, judge_labels
from .samples import Sample, check_sample, use_one_thread

_FOLDERS = ('img', 'img_path', 'seg_map_path')
# Annotations that MMDetection drops: nothing learns from their masks.
_UNCHECKED = ('area 0', 'box below 1 pixel', 'ignore=1', 'unknown image_id')


def check_files(facts: Facts) -> Iterator[Finding]:
    """Read and decode all images and maps, and compare them with their annotations and with each other."""
    samples = {data.key: collect_samples(data) for data in facts.datasets}
    problems: dict[str, list[Problem]] = defaultdict(list)
    histograms: dict[str, Histogram] = defaultdict(Histogram)
    first: dict[bytes, tuple[str, str]] = {}  # digest of an image → split and path of the first with it
    total = sum(map(len, samples.values()))
    with tqdm(total=total, unit='image', disable=None) as progress, _mapper(facts.num_workers) as run:
        for data in facts.datasets:
            found = problems[data.split]
            for sample, result in zip(samples[data.key], run(samples[data.key]), strict=True):
                found += result.problems
                if result.digest is not None:
                    earlier = first.setdefault(result.digest, (data.split, sample.image))
                    found += _compare(data.split, sample.image, *earlier)
                if result.values is not None:
                    histograms[data.key].add(sample.seg_map, result.values)
                progress.update(1)
    for split, problem in _find_unused(facts, samples):
        problems[split].append(problem)
    for split, found in problems.items():
        for finding in join_problems(found, split):
            yield _relax(finding, facts)
    for data in facts.datasets:
        if data.key in histograms:
            yield from judge_labels(facts, data, histograms[data.key], complete=True)


def _relax(finding: Finding, facts: Facts) -> Finding:
    """Make a warning of a fault that does not matter to the config, as for the rules that train.py asks."""
    skipped = finding.kind.startswith('unreadable') and skips_unreadable(facts, finding.split)
    of_boxes = finding.kind == 'wrong image size' and not any(
        wants_masks(facts, data) for data in facts.of_split(finding.split)
    )
    return dataclasses.replace(finding, severity=WARNING) if skipped or of_boxes else finding


def check_look_alikes(facts: Facts) -> Iterator[Finding]:
    """Warn of images in validation or test that are equal to, or look like, an image in training."""
    train = [path for data in facts.of_split('train') for path in data.files]
    for data in facts.datasets:
        files = data.files if data.split != 'train' else []
        if not files or not train or any('://' in path for path in (train[0], files[0])):
            continue
        groups = group_copies([*train, *files]).of_image
        known, own = set(groups[: len(train)]), {os.path.normpath(path) for path in train}
        copies = [path for path, group in zip(files, groups[len(train) :], strict=True) if group in known]
        copies = [path for path in copies if os.path.normpath(path) not in own]
        if copies:
            yield copies_found(data, copies, len(files), 'equal or nearly equal in content, or by name')


def check_verifiable(facts: Facts) -> Iterator[Finding]:
    """Find datasets whose samples cannot be verified: they do not inherit from MMEngine's, or have no files."""
    for data in facts.datasets:
        name = getattr(data.cfg['type'], '__name__', data.cfg['type'])
        reason = ''
        if data.dataset is None:
            reason = 'it is not a subclass of mmengine.dataset.BaseDataset' if data.error is None else ''
        elif data.content is None and any(not isinstance(i.get('img_path'), str) for i in data.dataset.data_list):
            reason = 'its samples have no files of their own (img_path)'
        if reason:
            yield data.finding('not verified', f'{data.key} ({name}) is not verified: {reason}.')


@contextlib.contextmanager
def _mapper(num_workers: int) -> Iterator[Callable[[Iterable[Sample]], Iterable]]:
    """Yield a function from samples to their results, in order."""
    if num_workers == 0:
        yield lambda samples: map(check_sample, samples)
        return
    with ProcessPoolExecutor(num_workers, initializer=use_one_thread) as pool:
        try:
            yield lambda samples: pool.map(check_sample, samples, chunksize=16)
        finally:
            pool.shutdown(cancel_futures=True)  # otherwise an interrupt would wait for all samples


def collect_samples(data: DatasetFacts) -> list[Sample]:
    """Collect the images of a dataset with their annotations, also those that the dataset's own filtering drops."""
    if data.dataset is None:
        return []
    reader = data.image_reader
    if data.content is not None:
        return _collect_coco(data, reader)
    seg_reader = find_map_reader(data.dataset.pipeline) or MAP_READER
    samples = []
    for info in data.dataset.data_list:
        if not isinstance(info.get('img_path'), str):
            return []
        size = (info['height'], info['width']) if {'height', 'width'} <= set(info) else None
        objects = [_to_coco(instance) for instance in info.get('instances', ())]
        samples.append(Sample(info['img_path'], reader, size, objects, info.get('seg_map_path'), seg_reader))
    return samples


def _collect_coco(data: DatasetFacts, reader: Reader) -> list[Sample]:
    """Collect the samples of an annotation file; of one with defects, the images alone."""
    folder, annotations = data.dataset.data_prefix['img'], data.annotations
    if annotations is None:
        images = data.content.get('images') if isinstance(data.content, Mapping) else None
        names = [image.get('file_name') for image in images or () if isinstance(image, Mapping)]
        return [Sample(os.path.join(folder, name), reader) for name in names if isinstance(name, str)]
    by_image = defaultdict(list)
    for annotation in annotations.choose(~annotations.having(*_UNCHECKED)):
        by_image[annotation['image_id']].append(annotation)
    return [
        Sample(os.path.join(folder, image['file_name']), reader, (image['height'], image['width']), by_image[key])
        for key, image in annotations.images.items()
    ]


def _to_coco(instance: Mapping) -> dict:
    """Convert a parsed object to COCO's format."""
    x1, y1, x2, y2 = instance['bbox']
    return dict(bbox=[x1, y1, x2 - x1, y2 - y1], segmentation=instance.get('mask'))


def _compare(split: str, path: str, first_split: str, first_path: str) -> Iterator[Problem]:
    """Warn of an image with the content of an earlier one; a file that is listed twice is found elsewhere."""
    if os.path.normpath(path) == os.path.normpath(first_path):
        return
    if split != first_split:
        message = f'the same image as {first_path}, in {first_split} and {split}'
        yield Problem('same content in two splits', path, message)
    else:
        yield Problem('same content', path, f'the same image as {first_path}')


def _find_unused(facts: Facts, samples: Mapping[str, Sequence[Sample]]) -> Iterator[tuple[str, Problem]]:
    """Find images and maps in the folders of the data that no split uses."""
    used = {
        os.path.normpath(path)
        for found in samples.values()
        for sample in found
        for path in (sample.image, sample.seg_map)
        if path
    }
    searched = set()
    for data in facts.datasets:
        prefix = getattr(data.dataset, 'data_prefix', {})
        for folder in (prefix[name] for name in _FOLDERS if prefix.get(name)):
            if '://' in folder or folder in searched or not os.path.isdir(folder):
                continue
            searched.add(folder)
            for path in (os.path.normpath(root / name) for root, names in walk_folder(Path(folder)) for name in names):
                if path.lower().endswith(IMAGE_SUFFIXES) and path not in used:
                    used.add(path)
                    yield data.split, Problem('unused file', path, 'no split uses the file')
