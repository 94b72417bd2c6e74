"""Ask the rules about a config, and build its datasets for the runner."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from mmengine.config import Config
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from torch.utils.data import Dataset

from .building import assemble, complete
from .decoding import check_files
from .facts import DatasetFacts, Facts, find_keys, gather, in_scope
from .findings import Finding, Report, keep_causes
from .heads import labels_of

Rule = Callable[[Facts], Iterator[Finding]]


def check(cfg: Config, splits: Sequence[str], rules: Sequence[Rule], num_workers: int = 0) -> Report:
    """Ask rules about a config.

    Args:
        cfg: The config.
        splits: Of ``'train'``, ``'val'`` and ``'test'``.
        rules: The rules, in the order of the report.
        num_workers: Number of processes for rules that decode; 0 works in this one.
    """
    return ask(gather(cfg, find_keys(cfg, splits), num_workers), rules)


def ask(facts: Facts, rules: Sequence[Rule]) -> Report:
    """Ask rules about facts."""
    facts.decodes = check_files in rules
    with in_scope(facts.cfg):
        findings = [finding for rule in rules for finding in rule(facts)]
    used = [*map(describe, facts.datasets)]
    used += [f'{key.partition("_")[0]}: {key} has the same data as {first}' for key, first in facts.same.items()]
    return Report(used, keep_causes(findings))


def describe(data: DatasetFacts) -> str:
    """Write in one line what is used of a dataset."""
    return f'{data.split}: {_describe(data)}'


def _describe(data: DatasetFacts) -> str:
    dataset = data.dataset
    if data.annotations is not None:
        return f'{data.annotations.summary()} of {data.annotations.path}'
    if data.content is not None or dataset is None:
        return f'{data.key} was not counted'
    source = dataset.ann_file or next(filter(None, dataset.data_prefix.values()), data.key)
    text = f'{len(dataset)} images of {source}'
    infos = dataset.data_list
    objects = sum(len(info.get('instances', ())) for info in infos)
    if objects:
        return f'{objects} annotations in {text}'
    classes = data.classes
    if not classes:
        return text
    counts = Counter(label for info in infos for label in labels_of(info))
    names = [f'{name} {counts[label]}' if counts else name for label, name in enumerate(map(str, classes))]
    if len(names) > 12:
        names = [*names[:11], f'… {names[-1]}']
    return f'{text}, {len(classes)} classes: {", ".join(names)}'


def hand_over(facts: Facts) -> dict[str, Dataset]:
    """Complete the datasets of each split for the runner, which then does not build them again.

    A dataset wrapper that takes configs alone is left to the runner.

    Raises:
        DataError: A dataset has no samples.
    """
    built = {data.key: data for data in facts.datasets}
    datasets = {}
    with in_scope(facts.cfg):
        for data in facts.datasets:
            if data.dataset is not None:
                complete(data.dataset, data.content, data.cfg, data.key)
            data.content = None  # its entries are in the dataset
            vars(data).pop('annotations', None)
        for split, keys in facts.keys.items():
            leaves = [built[key].dataset if key in built else None for key in keys]
            if not any(leaf is not None for leaf in leaves):
                continue
            node = assemble(facts.cfg[f'{split}_dataloader'].dataset, iter(leaves))
            with contextlib.suppress(TypeError):
                datasets[split] = node if isinstance(node, Dataset) else MMENGINE_DATASETS.build(node)
            if hasattr(datasets.get(split), 'full_init'):
                datasets[split].full_init()
    return datasets
