"""Look at all files of a config's data sets, in parallel."""

import contextlib
import copy
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor

from mmengine import fileio
from mmengine.config import Config
from mmengine.registry import DefaultScope
from tqdm import tqdm

from ..wrapper import leaf_configs
from .dataset import IMAGE_SUFFIXES, Content, collect
from .faults import Fault, Report, Split
from .sample import Sample, check_sample, use_one_thread

# Of the model's heads those that classify what the dataset labels; proposals are of no class.
_HEADS = ('bbox_head', 'mask_head', 'decode_head', 'auxiliary_head', 'head', 'data_preprocessor')
CHUNK = 16


def verify(cfg: Config, splits: Sequence[str], num_workers: int) -> Report:
    """Look at the data of a config.

    Args:
        cfg: The config.
        splits: Of ``'train'``, ``'val'``, ``'test'``; it has a dataloader for each.
        num_workers: How many processes; 0 works in this one.
    """
    report = Report()
    contents: dict[str, list[Content]] = {}
    seen: dict[str, str] = {}
    model = cfg.get('model') or {}
    num_classes = dict(find_num_classes(model, 'model'))
    ignore_index = _ignore_index(model)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        for split in splits:
            report.splits[split] = Split()
            contents[split] = []
            root = f'{split}_dataloader.dataset'
            for key, leaf in leaf_configs(root, cfg[f'{split}_dataloader'].dataset):
                identity = _identity(leaf)
                if identity in seen:
                    report.splits[split].about.append(f'{key}: the same data as {seen[identity]}')
                    continue
                seen[identity] = key
                with contextlib.redirect_stdout(io.StringIO()):  # pycocotools announces each of its steps
                    content = collect(leaf, key, num_classes, ignore_index, annotated=split != 'test')
                contents[split].append(content)
    total = sum(len(content.samples) for parts in contents.values() for content in parts)
    first: dict[bytes, tuple[str, str]] = {}  # content → path and split
    with tqdm(total=total, unit='image', disable=None) as progress, _mapper(num_workers) as run:
        for split, parts in contents.items():
            for content in parts:
                found = report.splits[split]
                found.about.append(content.about)
                found.images += len(content.samples)
                found.annotations += content.annotations
                found.faults += content.faults
                for sample, (faults, digest) in zip(content.samples, run(content.samples), strict=True):
                    found.faults += faults
                    if digest is not None:
                        _compare(sample.image, split, first.setdefault(digest, (sample.image, split)), report)
                    progress.update()
    _check_unused(contents, report)
    return report


def _identity(leaf: Mapping) -> str:
    """A dataset's config without what does not change the data."""
    leaf = copy.deepcopy(dict(leaf))
    for name in ('pipeline', 'test_mode', 'lazy_init', 'serialize_data'):
        leaf.pop(name, None)
    return repr(sorted((name, repr(value)) for name, value in leaf.items()))


@contextlib.contextmanager
def _mapper(num_workers: int) -> Iterator[Callable[[Iterable[Sample]], Iterable]]:
    """A function from samples to their results, in order."""
    if num_workers == 0:
        yield lambda samples: map(check_sample, samples)
        return
    with ProcessPoolExecutor(num_workers, initializer=use_one_thread) as pool:
        try:
            yield lambda samples: pool.map(check_sample, samples, chunksize=CHUNK)
        finally:
            pool.shutdown(cancel_futures=True)  # interrupted, it would go on to the end


def find_num_classes(node: object, key: str, inside: bool = False) -> Iterator[tuple[str, int]]:
    """``num_classes`` of a model's heads, by dotted key."""
    if isinstance(node, (list, tuple)):
        for i, part in enumerate(node):
            yield from find_num_classes(part, f'{key}.{i}', inside)
    elif isinstance(node, Mapping):
        if inside and isinstance(node.get('num_classes'), int):
            yield f'{key}.num_classes', node['num_classes']
        for name, part in node.items():
            if name != 'rpn_head':
                yield from find_num_classes(part, f'{key}.{name}', inside or name in _HEADS)


def _ignore_index(model: Mapping) -> int:
    """The label of the pixels that a segmentor does not learn."""
    head = model.get('decode_head') or {}
    head = head[-1] if isinstance(head, (list, tuple)) else head
    return head.get('ignore_index', 255)


def _compare(path: str, split: str, first: tuple[str, str], report: Report) -> None:
    """Warn of an image with the content of an earlier one; the same file twice in a split is told elsewhere."""
    other, other_split = first
    if split != other_split:
        message = f'the same image as {other}: it is in {other_split} and {split}'
        report.between.append(Fault('same content in two splits', path, message, warning=True))
    elif os.path.normpath(path) != os.path.normpath(other):
        report.splits[split].faults.append(Fault('same content', path, f'the same image as {other}', warning=True))


def _check_unused(contents: Mapping[str, Sequence[Content]], report: Report) -> None:
    """Warn of images and maps that are in the folders of the data and that no split uses."""
    used = set()
    for parts in contents.values():
        for content in parts:
            for sample in content.samples:
                used |= {os.path.normpath(path) for path in (sample.image, sample.seg_map) if path is not None}
    told = set()
    for split, parts in contents.items():
        for content in parts:
            for folder in content.folders:
                if '://' in folder or folder in told or not os.path.isdir(folder):
                    continue
                told.add(folder)
                for name in sorted(fileio.list_dir_or_file(folder, list_dir=False, recursive=True)):
                    path = os.path.normpath(os.path.join(folder, name))
                    if path.lower().endswith(IMAGE_SUFFIXES) and path not in used:
                        used.add(path)
                        message = 'it is in the folder, but no split uses it'
                        report.splits[split].faults.append(Fault('unused file', path, message, True))
