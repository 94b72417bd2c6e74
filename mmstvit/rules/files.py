"""Files of the data: paths in the config, missing images, sizes in the annotations, images in two splits."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from mmengine.config import Config

from mmstvit.datasets.images import find_readers, may_read_keys
from mmstvit.datasets.wrappers import inner_datasets
from mmstvit.dependencies import tool_command
from mmstvit.fileio import is_local
from mmstvit.nodes import as_list, type_name

from .facts import DatasetFacts, Facts
from .findings import Finding, common_folder, refuse
from .kinds import KINDS, WARNING

_IN_TRAIN = 'train images in another split'

# Folder of a data set -> how to get it.
DATA_REMEDIES = {
    'data/scenes': f'Generate it with: {tool_command("dataset_converters/scenes.py")}',
    'data/coco': 'Download COCO 2017 and unpack it there as annotations/, train2017/ and val2017/',
    'data/ade': 'Download ADE20K (SceneParsing) as MMSegmentation describes it',
    'data/imagenet': 'Download ImageNet-1k as MMPreTrain describes it',
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
        for part in (f'{split}_dataloader.dataset', f'{split}_evaluator'):
            section, _, key = part.partition('.')
            node = cfg.get(section)
            node = node.get(key) if key and node is not None else node
            for key, reader in inner_datasets(node, part):
                missing = ((name, path) for name, path in _data_paths(reader) if _is_missing(path))
                name, path = next(missing, (None, None))  # without its root, nothing else is there
                if path is None or path in seen:
                    continue
                seen.add(path)
                remedy = (
                    f'{_data_remedy(path)}If it is elsewhere, name it with --cfg-options {key}.{name}=… (and the same '
                    f'path in the other dataloaders and evaluators that read it).'
                )
                state = 'is not a file or folder' if os.path.exists(path) else 'does not exist'
                message = f'{path} {state}, but {key}.{name} reads it.'
                yield Finding('missing data', message, remedy, path, split=split)


def _is_missing(path: str) -> bool:
    path = os.path.expanduser(path)
    return is_local(path) and not (os.path.isfile(path) or os.path.isdir(path))


def _data_remedy(path: str) -> str:
    for folder, remedy in DATA_REMEDIES.items():
        if path == folder or path.startswith(folder + '/'):
            return f'{remedy}. '
    return ''


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
    for data in facts.datasets:
        pipeline = getattr(data.dataset, 'pipeline', ())
        backends = [data.cfg.get('backend_args'), *(reader.backend_args for reader in find_readers(pipeline))]
        local = all((backend or {}).get('backend', 'local') == 'local' for backend in backends)
        for what, files in (('images', data.files), ('segmentation maps', data.maps)) if local else ():
            missing = _find_missing(files)
            if not missing or (len(missing) == len(files) and may_read_keys(pipeline)):
                continue
            folder = common_folder(missing)
            message = f'{what} of {data.key} do not exist in {folder or "their folders"}: {missing[0]}.'
            # Evaluation skips no file.
            few = data.split == 'train' and 2 * len(missing) <= len(files)
            skipped = skips_unreadable(facts, data.split) and len(missing) < len(files)
            remedy = KINDS['missing files'].remedy
            if few and not skipped:
                remedy += ' To train without them: --cfg-options data_faults.unreadable=skip'
            names = [path.removeprefix(folder) for path in missing]
            severity = WARNING if few or skipped else ''
            yield data.some('missing files', names, len(files), message, remedy=remedy, severity=severity)


def skips_unreadable(facts: Facts, split: str) -> bool:
    """Return True if the config says that training goes on with other samples in place of unreadable ones."""
    return split == 'train' and (facts.cfg.get('data_faults') or {}).get('unreadable') == 'skip'


def _find_missing(files: Sequence[str]) -> list[str]:
    """Return the files that do not exist, from listings of their folders."""
    listings: dict[str, set[str]] = {}
    missing = []
    for path in files:
        folder, name = os.path.split(path)
        if folder not in listings:
            listings[folder] = set(os.listdir(folder or '.')) if os.path.isdir(folder or '.') else set()
        if name not in listings[folder] and _is_missing(path):  # a file system may ignore case
            missing.append(path)
    return missing


def check_duplicates(facts: Facts) -> Iterator[Finding]:
    """Warn of images that a list of files has more than once; those of COCO files are defects of their format."""
    for data in facts.datasets:
        files = data.files if data.content is None else []
        repeated = [path for path, count in Counter(map(os.path.normpath, files)).items() if count > 1]
        if repeated:
            message = 'images are listed more than once.'
            yield data.some('duplicate file', repeated, len(files), message, severity=WARNING)


def check_copies(facts: Facts) -> Iterator[Finding]:
    """Warn of augmented copies, as Roboflow exports them, of one photograph in training and in another split."""
    if facts.decodes:  # looks at the content, too, in another rule
        return
    train = {_photograph(path) for data in facts.of_split('train') for path in data.files} - {None}
    for data in facts.datasets if train else ():
        files = data.files if data.split != 'train' else []
        shared = [path for path in files if _photograph(path) in train]
        if shared:
            yield copies_found(data, shared, len(files), 'the name before .rf. is equal')


def copies_found(data: DatasetFacts, shared: Sequence[str], total: int, how: str) -> Finding:
    """Return the finding for images of a split that have a copy in training."""
    message = f'images of {data.key} have a copy in train ({how}): the metric is too high.'
    return data.some('copies in two splits', shared, total, message)


def _photograph(path: str) -> str | None:
    """Return the part of the name that augmented copies of Roboflow share; None for other names."""
    start, mark, _ = os.path.basename(path).partition('.rf.')
    return start if mark else None


def check_splits(facts: Facts) -> Iterator[Finding]:
    """Warn of images that are in training and in validation or test: their metrics are too high."""
    train = {os.path.normpath(path) for data in facts.of_split('train') for path in data.files}
    keys = {data.key for data in facts.of_split('train')}
    for key, first in facts.same.items():
        if first in keys and not key.startswith('train'):
            message = f'{key} has the same data as {first}: the metric is that of the training images.'
            yield Finding(_IN_TRAIN, message, where=key, split=key.partition('_')[0])
    for data in facts.datasets:
        files = [os.path.normpath(path) for path in data.files] if data.split != 'train' else []
        if shared := [path for path in files if path in train]:
            message = f'images of {data.key} are in train, too: the metric is too high.'
            yield data.some(_IN_TRAIN, shared, len(files), message)
