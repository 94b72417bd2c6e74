"""Files of the data: paths in the config, missing, unreadable, equal and unused files, images in two splits."""

import filecmp
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

from mmengine.config import Config

from mmstvit.datasets.images import MISSING, find_readers, may_read_keys
from mmstvit.datasets.map_files import cuts, look_at
from mmstvit.datasets.splitting import group_copies, group_names
from mmstvit.datasets.wrappers import inner_datasets
from mmstvit.dependencies import tool_command
from mmstvit.fileio import IMAGE_SUFFIXES, is_local
from mmstvit.nodes import as_list, type_name

from .classes import with_class_folders
from .facts import DatasetFacts, Facts
from .findings import Finding, refuse
from .headers import thin_out
from .image_folder import ImageFolder
from .kinds import WARNING

_SAMPLE = 4  # files that are looked at
_MOST_PAIRS = 20  # files of one name in two splits that are compared
# Also images that are not decoded, but that people take for images.
_SUFFIXES = (*IMAGE_SUFFIXES, '.j2k', '.jxl')
# Folder of a data set -> how to get it.
DATA_REMEDIES = {
    'data/scenes': f'Generate it with: {tool_command("dataset_converters/scenes.py")}.',
    'data/coco': 'Download COCO 2017 and unpack it there as annotations/, train2017/ and val2017/.',
    'data/ade': 'Download ADE20K (SceneParsing) as MMSegmentation describes it.',
    'data/imagenet': 'Download ImageNet-1k as MMPreTrain describes it.',
}


def check_data(cfg: Config, *splits: str) -> None:
    """Check that the files and folders of the data sets of a config exist.

    Args:
        cfg: The config.
        splits: Of ``'train'``, ``'val'`` and ``'test'``; their dataloaders and evaluators are checked.

    Raises:
        DataError: Names the missing paths, the config keys that read them and how to get the data.
    """
    refuse([*find_missing_paths(cfg, splits)])


def find_missing_paths(cfg: Config, splits: Sequence[str]) -> Iterator[Finding]:
    """Find files and folders that the config names and that do not exist; each once."""
    seen = set()
    for split in splits:
        dataset, evaluator = (cfg.get(f'{split}_dataloader') or {}).get('dataset'), cfg.get(f'{split}_evaluator')
        readers = [*inner_datasets(dataset, f'{split}_dataloader.dataset')]
        readers += inner_datasets(evaluator, f'{split}_evaluator')
        for key, reader in readers:
            missing = ((name, path) for name, path in _data_paths(reader) if _is_missing(path))
            name, path = next(missing, (None, None))  # without its root, nothing else is there
            if path is None or path in seen:
                continue
            seen.add(path)
            known = [text for folder, text in DATA_REMEDIES.items() if f'{path}/'.startswith(f'{folder}/')]
            elsewhere = (
                f'If it is elsewhere, name it with --cfg-options {key}.{name}=… (and the same path in the other '
                f'dataloaders and evaluators that read it).'
            )
            state = 'is not a file or folder' if os.path.exists(path) else 'does not exist'
            values, remedy = [f'{path} {state}, but {key}.{name} reads it'], ' '.join([*known, elsewhere])
            yield Finding('missing files', path, values, remedy=remedy, split=split)


def _is_missing(path: str) -> bool:
    path = os.path.expanduser(path)
    return is_local(path) and not (os.path.isfile(path) or os.path.isdir(path))


def _data_paths(reader: Mapping) -> Iterator[tuple[str, str]]:
    """Yield the files and folders that a dataset or evaluator reads with their keys, joined as the libraries do."""
    backend = reader.get('backend_args') or {}
    if backend.get('backend', 'local') != 'local':
        return
    root = reader.get('data_root') or ''
    if root:
        yield 'data_root', root
    prefixes = reader.get('data_prefix')
    prefixes = list(prefixes.values()) if isinstance(prefixes, Mapping) else prefixes
    files = [('ann_file', file) for file in as_list(reader.get('ann_file'))]
    folders = [('data_prefix', folder) for part in as_list(prefixes) for folder in as_list(part)]
    # MMPreTrain's ImageNet reads the folder of the split when no prefix is given.
    if not any(folder for _, folder in folders) and type_name(reader) == 'ImageNet':
        folders.append(('split', reader.get('split')))
    for name, path in [*files, *folders]:
        if path:
            yield name, os.path.join(root, path)


def check_missing_files(facts: Facts) -> Iterator[Finding]:
    """Refuse datasets with missing image or map files. Each folder is listed once."""
    folder = ImageFolder('.')
    for data in facts.datasets:
        backends = [data.cfg.get('backend_args'), *(reader.backend_args for reader in find_readers(data.pipeline))]
        local = all((backend or {}).get('backend', 'local') == 'local' for backend in backends)
        for files in (data.files, data.maps) if local else ():
            missing = [path for path in files if not folder.has(path)]
            missing = [path for path in missing if is_local(path) and not os.path.isfile(path)]  # case may not matter
            if not missing or (len(missing) == len(files) and may_read_keys(data.pipeline)):
                continue
            # Evaluation skips no file.
            few = data.split == 'train' and 2 * len(missing) <= len(files)
            skipped = _skips_unreadable(facts, data) and len(missing) < len(files)
            severity = WARNING if few or skipped else ''
            missing = [f'{path} is not a file' if _is_special(path) else path for path in missing]
            yield data.finding('missing files', missing, total=len(files), severity=severity)


def _is_special(path: str) -> bool:
    """Return True for a folder, pipe or device in the place of a file."""
    return os.path.exists(path) and not os.path.isfile(path)


def _skips_unreadable(facts: Facts, data: DatasetFacts) -> bool:
    """Return True if the config says that training goes on with other samples in place of unreadable ones."""
    return data.split == 'train' and (facts.cfg.get('data_faults') or {}).get('unreadable') == 'skip'


def check_unreadable(facts: Facts) -> Iterator[Finding]:
    """Refuse images and maps that cannot be decoded, or have too many pixels; another rule finds missing files."""
    for data in facts.datasets:
        errors = {header.path: header.error for header in data.headers}
        errors |= {path: file.error for path, file in data.decoded.items()}
        errors = {path: error for path, error in errors.items() if error and error != MISSING}
        bad = [f'{path}: {error}' for path, error in errors.items() if not _is_special(path)]
        if bad:
            severity = WARNING if _skips_unreadable(facts, data) else ''
            yield data.finding('unreadable file', bad, total=len(data.files) + len(data.maps), severity=severity)


def check_same_content(facts: Facts) -> Iterator[Finding]:
    """Warn of files of a dataset that have the same content, or are listed twice."""
    for data in facts.datasets:
        counts = Counter(map(os.path.normpath, data.files)) if data.content is None else {}
        repeated = [path for path, count in counts.items() if count > 1]
        if repeated:  # those of COCO files are defects of their format
            yield data.finding('duplicate image', repeated, total=len(data.files), severity=WARNING)
        first: dict[bytes, str] = {}
        read = {path: data.decoded[path].digest for path in data.files if path in data.decoded}
        pairs = [(path, first.setdefault(digest, path)) for path, digest in read.items() if digest]
        if pairs := [(path, other) for path, other in pairs if path != other]:
            labels = _collect_labels(data)
            same = [
                f'{path}: the same image as {other}{", with other labels" * (labels[path] != labels[other])}'
                for path, other in pairs
            ]
            yield data.finding('same content', same, total=len(data.files))


def _collect_labels(data: DatasetFacts) -> dict[str, object]:
    """Return what the annotations say about each image: its class, its objects, or the content of its map."""
    if data.content is None:
        maps = {path: decoded.digest for path, decoded in data.decoded.items()}
        keys = ('gt_label', 'instances')
        return {info.get('img_path'): [*map(info.get, keys), maps.get(info.get('seg_map_path'))] for info in data.infos}
    if data.annotations is None:
        return dict.fromkeys(data.files)
    objects = defaultdict(set)
    for entry in data.annotations.entries:
        objects[entry['image_id']].add((entry['category_id'], *entry['bbox']))
    return dict(zip(data.files, map(objects.get, data.annotations.images), strict=True))


def check_splits(facts: Facts) -> Iterator[Finding]:
    """Warn of images in validation or test that are in training, too, or are copies of an image there."""
    kind, train = 'train images in another split', facts.of_split('train')
    for key, first in facts.same.items():
        if first in {data.key for data in train} and not key.startswith('train'):
            yield Finding(kind, key, [f'all of its images are those of {first}'], split=key.partition('_')[0])
    known = [path for data in train for path in data.files]
    for data in facts.datasets if known else ():
        files = data.files
        if data.split == 'train' or not files:
            continue
        if facts.complete and not any('://' in path for path in (known[0], files[0])):
            groups = group_copies([*known, *files]).of_image
        else:
            groups = group_names([*known, *files])
        trained = set(groups[: len(known)])
        shared = [path for path, group in zip(files, groups[len(known) :], strict=True) if group in trained]
        shared = shared or _find_equal(known, files)
        if shared:
            yield data.finding(kind, shared, total=len(files))


def _find_equal(known: Sequence[str], files: Sequence[str]) -> list[str]:
    """Return the files of names that other folders have, too; empty if one of those that are compared differs."""
    by_name = {os.path.basename(path): path for path in known}
    pairs = [(path, by_name[name]) for path in files if (name := os.path.basename(path)) in by_name]
    try:
        equal = all(filecmp.cmp(*both, shallow=False) for both in thin_out(pairs, _MOST_PAIRS))
    except OSError:  # not a file on this machine; another rule finds missing ones
        return []
    return [path for path, _ in pairs] if equal else []


def check_unused(facts: Facts) -> Iterator[Finding]:
    """Warn of images in the folders of the data that no split of the config uses; label maps of images are none.

    Before training these are images of datasets that read whole folders, which leave them out for their suffix.
    """
    splits = [split for split in ('train', 'val', 'test') if facts.cfg.get(f'{split}_dataloader')]
    known = facts.complete and {*splits} <= facts.keys.keys()
    datasets = [data for data in facts.datasets if known or _reads_folders(data)]
    used = {os.path.normpath(path) for data in datasets for path in (*data.files, *data.maps)}
    searched: set[str] = set()
    for data in datasets:
        folders = {os.path.dirname(os.path.normpath(path)) for path in data.files if '://' not in path} - searched
        searched |= folders
        beside = [os.path.join(folder, name) for folder in sorted(folders) for name in _list_images(folder)]
        unused = [path for path in beside if path not in used]
        maps = _find_maps(unused, used)
        if unused := [path for path in unused if path not in maps]:
            yield data.finding('unused file', unused, total=len(beside))


def _reads_folders(data: DatasetFacts) -> bool:
    """Return True for a dataset of MMPreTrain or MMSegmentation that reads all images of its folders."""
    reads = hasattr(data.dataset, 'img_suffix') and not data.dataset.ann_file
    return reads or with_class_folders(data) is not None


def _find_maps(paths: Sequence[str], images: Set[str]) -> set[str]:
    """Find the files that begin with the name of an image beside them, and that look like label maps."""
    stems = {os.path.splitext(path)[0] for path in images}
    by_end = defaultdict(list)
    for path in paths:
        folder, name = os.path.split(path)
        for start, end in cuts(name):
            if os.path.join(folder, start) in stems:
                by_end[end].append(path)
    return {
        path
        for group in by_end.values()
        if all((look := look_at(Path(path))) and look.is_map for path in thin_out(group, _SAMPLE))
        for path in group
    }


def _list_images(folder: str) -> list[str]:
    names = sorted(os.listdir(folder or '.')) if os.path.isdir(folder or '.') else []
    return [name for name in names if name.lower().endswith(_SUFFIXES) and not name.startswith('.')]


def check_verifiable(facts: Facts) -> Iterator[Finding]:
    """Find datasets whose samples cannot be verified: they do not inherit from MMEngine's, or have no files."""
    for data in facts.datasets if facts.complete else ():
        unknown = data.dataset is None and data.error is None
        if unknown or len(data.files) < len(data.infos):
            yield data.finding('not verified', [str(getattr(data.cfg['type'], '__name__', data.cfg['type']))])
