"""Verify all files of a config's data sets, in parallel."""

import contextlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor

from mmengine import fileio
from mmengine.config import Config
from mmengine.registry import DefaultScope
from tqdm import tqdm

from ..wrappers import inner_datasets
from .dataset import Content, Labels, collect
from .findings import Finding, Report, Split
from .sample import Sample, check_sample, use_one_thread

# Heads that classify the labels of the dataset; the region proposals of rpn_head have no class.
_HEADS = {'bbox_head', 'mask_head', 'decode_head', 'auxiliary_head', 'head', 'data_preprocessor'}
_IMAGE_SUFFIXES = ('.bmp', '.gif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')


def verify(cfg: Config, splits: Sequence[str], num_workers: int) -> Report:
    """Verify the data sets of a config.

    Args:
        cfg: The config.
        splits: Splits to verify, of ``'train'``, ``'val'`` and ``'test'``; the config has a dataloader for each.
        num_workers: Number of processes; 0 works in this one.
    """
    report = Report({split: Split() for split in splits})
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        contents = _collect_all(cfg, report)
    total = sum(len(content.samples) for _, content in contents)
    first: dict[bytes, tuple[str, str]] = {}  # digest of an image → split and path of the first with it
    with tqdm(total=total, unit='image', disable=None) as progress, _mapper(num_workers) as run:
        for name, content in contents:
            split = report.splits[name]
            split.images += len(content.samples)
            split.annotations += content.annotations
            split.findings += content.findings
            for sample, (findings, digest) in zip(content.samples, run(content.samples), strict=True):
                split.findings += findings
                if digest is not None:
                    _compare(name, sample.image, *first.setdefault(digest, (name, sample.image)), report)
                progress.update()
    _check_unused(contents, report)
    return report


def _collect_all(cfg: Config, report: Report) -> list[tuple[str, Content]]:
    """Collect the content of each data set with its split; one that occurs again is only named in the report."""
    model = cfg.get('model') or {}
    labels = Labels(dict(find_num_classes(model)), _ignore_index(model))
    contents = []
    seen: dict[str, str] = {}
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        for name, split in report.splits.items():
            root = f'{name}_dataloader.dataset'
            for key, inner in inner_datasets(cfg[f'{name}_dataloader'].dataset, root):
                first = seen.setdefault(_identity(inner), key)
                if first != key:
                    split.datasets.append(f'{key}: the same data as {first}')
                    continue
                content = collect(inner, key, labels, annotated=name != 'test')
                split.datasets.append(content.title)
                contents.append((name, content))
    return contents


def _identity(cfg: Mapping) -> str:
    """Write a dataset's config without the options that do not change its data."""
    ignored = ('pipeline', 'test_mode', 'lazy_init', 'serialize_data')
    return repr(sorted((name, repr(value)) for name, value in cfg.items() if name not in ignored))


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


def find_num_classes(node: object, key: str = 'model', in_head: bool = False) -> Iterator[tuple[str, int]]:
    """Find ``num_classes`` of a model config's heads, by dotted key."""
    if isinstance(node, (list, tuple)):
        for i, part in enumerate(node):
            yield from find_num_classes(part, f'{key}.{i}', in_head)
    elif isinstance(node, Mapping):
        if in_head and isinstance(node.get('num_classes'), int):
            yield f'{key}.num_classes', node['num_classes']
        for name, part in node.items():
            if name != 'rpn_head':
                yield from find_num_classes(part, f'{key}.{name}', in_head or name in _HEADS)


def _ignore_index(model: Mapping) -> int:
    """Return the label that a segmentor ignores."""
    head = model.get('decode_head') or {}
    head = head[-1] if isinstance(head, (list, tuple)) else head
    return head.get('ignore_index', 255)


def _compare(split: str, path: str, first_split: str, first_path: str, report: Report) -> None:
    """Warn of an image with the content of an earlier one; a file that is listed twice is found elsewhere."""
    if split != first_split:
        message = f'the same image as {first_path}, in {first_split} and {split}'
        report.between.append(Finding('same content in two splits', path, message))
    elif os.path.normpath(path) != os.path.normpath(first_path):
        report.splits[split].findings.append(Finding('same content', path, f'the same image as {first_path}'))


def _check_unused(contents: Sequence[tuple[str, Content]], report: Report) -> None:
    """Warn of images and maps in the folders of the data that no split uses."""
    samples = [sample for _, content in contents for sample in content.samples]
    used = {os.path.normpath(path) for sample in samples for path in (sample.image, sample.seg_map) if path}
    searched = set()
    for split, content in contents:
        for folder in content.folders:
            if '://' in folder or folder in searched or not os.path.isdir(folder):
                continue
            searched.add(folder)
            for name in sorted(fileio.list_dir_or_file(folder, list_dir=False, recursive=True)):
                path = os.path.normpath(os.path.join(folder, name))
                if path.lower().endswith(_IMAGE_SUFFIXES) and path not in used:
                    used.add(path)
                    report.splits[split].findings.append(Finding('unused file', path, 'no split uses the file'))
