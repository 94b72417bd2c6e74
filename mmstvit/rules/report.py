"""Ask rules about a config and report what they find."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from logging import Logger

from mmengine.config import Config

from mmstvit.datasets.json_files import paused_garbage_collection
from mmstvit.errors import UserError, one_line

from . import annotations, channels, classes, evaluation, files, heads, keys, loaders, map_labels
from .facts import DatasetFacts, Facts, gather, in_scope
from .findings import Finding
from .kinds import FAULT, WARNING, check_kinds

Rule = Callable[[Facts], Iterator[Finding]]

# The order is that of the report: causes before consequences.
RULES: tuple[Rule, ...] = (
    *(keys.check_keys, classes.check_class_strings, classes.check_class_folders, heads.check_lists),
    *(classes.check_xml_names, annotations.check_builds, annotations.check_format, annotations.check_categories),
    *(classes.check_splits_agree, heads.check_heads, heads.check_labels, heads.check_topk),
    *(annotations.check_masks, annotations.check_mask_heads, annotations.check_boxes, annotations.check_polygons),
    *(annotations.check_mask_content, annotations.find_dropped, files.check_missing_files, files.check_unreadable),
    *(files.check_same_content, files.check_splits, channels.check_pipeline, channels.check_bits, channels.check_pages),
    *(map_labels.check_map_sizes, map_labels.check_map_labels, map_labels.check_ignore_index),
    *(loaders.check_batch_sizes, loaders.check_slide, loaders.check_schedule),
    *(evaluation.check_annotation_files, evaluation.check_unannotated, evaluation.check_max_per_img),
    *(annotations.check_usable, files.check_unused, files.check_verifiable),
)


@dataclass
class Report:
    """Findings, and a line for each dataset.

    Args:
        used: Lines such as ``'train: 227 of 230 annotations in 80 of 80 images (dropped: 3 area 0)'``.
        findings: The findings whose cause is not another finding; see :func:`keep_causes`.
        waived: Findings of kinds that the user ignores.
    """

    used: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    waived: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.used = [one_line(line) for line in self.used]

    @property
    def faults(self) -> list[Finding]:
        """The faults, which training refuses."""
        return [finding for finding in self.findings if finding.severity == FAULT]

    @property
    def warnings(self) -> list[Finding]:
        """The warnings."""
        return [finding for finding in self.findings if finding.severity == WARNING]

    def lines(self, shown: int) -> Iterator[str]:
        """Yield the report as text, with the first ``shown`` examples of each finding; faults stand first."""
        yield from self.used
        for finding in [*self.faults, *self.warnings]:
            yield from _listing(finding, shown)
        yield from self.waived_lines()
        yield f'{_count(len(self.faults), "fault")}, {_count(len(self.warnings), "warning")}'

    def log(self, logger: Logger) -> None:
        """Log a line for each dataset, each finding that the user ignores, and each warning."""
        for line in self.used:
            logger.info(line)
        for line in [*self.waived_lines(), *(f'{warning.line} {warning.remedy}' for warning in self.warnings)]:
            logger.warning(line)

    def waived_lines(self) -> Iterator[str]:
        """Yield a line for each finding that the user ignores."""
        yield from (f'ignored ({finding.kind}): {finding.line}' for finding in self.waived)

    def to_dict(self) -> dict:
        """Return the whole report, for JSON."""
        findings = [{**asdict(finding), 'message': finding.message} for finding in [*self.faults, *self.warnings]]
        return dict(used=self.used, findings=findings, faults=len(self.faults), warnings=len(self.warnings))


def check(cfg: Config, splits: Sequence[str], complete: bool = False, num_workers: int = 0) -> Report:
    """Gather the facts about a config and ask all rules about them; the facts, with all samples, are then freed.

    Kinds in ``rules=dict(ignore=[…])`` of the config are waived.

    Args:
        cfg: The user's config.
        splits: Of ``'train'``, ``'val'`` and ``'test'``.
        complete: Read and decode every file.
        num_workers: Number of processes that decode; 0 works in this one.

    Raises:
        UserError: ``rules`` of the config names an unknown kind, or has another option.
    """
    ignored = ignored_kinds(cfg)
    # Until the facts are freed a collection would look at all of them; decoding all files takes too long without one.
    with contextlib.nullcontext() if complete else paused_garbage_collection(), in_scope(cfg):
        used, findings = _ask(gather(cfg, splits, complete, num_workers))
    causes = keep_causes(findings)  # what follows from an ignored cause is ignored, too
    waived = [finding for finding in causes if finding.kind in ignored]
    return Report(used, [finding for finding in causes if finding.kind not in ignored], waived)


def _ask(facts: Facts) -> tuple[list[str], list[Finding]]:
    findings = [finding for rule in RULES for finding in rule(facts)]
    used = [f'{data.split}: {"; ".join([_count_used(data), *data.remarks])}' for data in facts.datasets]
    used += [f'{key.partition("_")[0]}: {key} has the same data as {first}' for key, first in facts.same.items()]
    return used, findings


def ignore_kinds(cfg: Config, kinds: Sequence[str] | None) -> None:
    """Add kinds to ``rules=dict(ignore=[…])`` of a config; raises UserError for a name that is not in the table."""
    if kinds:
        cfg.rules = dict(ignore=sorted({*ignored_kinds(cfg), *kinds}))
        ignored_kinds(cfg)


def ignored_kinds(cfg: Config) -> frozenset[str]:
    """Return the kinds that a config ignores; raises UserError for a name that is not in the table."""
    options = cfg.get('rules') or {}
    ignored = options.get('ignore') or [] if isinstance(options, Mapping) else None
    if not isinstance(ignored, (list, tuple)) or set(options) - {'ignore'}:
        raise UserError(f'rules of the config is {options!r}.', "Set rules=dict(ignore=['KIND', …]).")
    check_kinds(ignored)
    return frozenset(ignored)


def keep_causes(findings: Sequence[Finding]) -> list[Finding]:
    """Leave out the findings that another one explains."""
    return [finding for finding in findings if not any(_explains(cause, finding) for cause in findings)]


def _explains(cause: Finding, finding: Finding) -> bool:
    same = not cause.split or not finding.split or cause.split == finding.split
    hides = cause.severity == FAULT or finding.severity == WARNING
    return cause is not finding and finding.kind in cause.explains and same and hides


def _count_used(data: DatasetFacts) -> str:
    """Write in one line what is used of a dataset."""
    dataset = data.dataset
    if data.annotations is not None:
        return f'{data.annotations.summary()} of {data.annotations.path}'
    if data.content is not None or dataset is None or data.error is not None:
        return f'{data.key} was not counted'
    source = dataset.ann_file or next(filter(None, dataset.data_prefix.values()), data.key)
    text = f'{len(dataset)} images of {source}'
    infos = dataset.data_list
    objects = sum(len(info.get('instances', ())) for info in infos)
    if objects:
        return f'{objects} annotations in {text}'
    if not data.classes:
        return text
    counts = Counter(label for info in infos for label in heads.labels_of(info))
    names = [f'{name} {counts[label]}' if counts else name for label, name in enumerate(map(str, data.classes))]
    shown = names if len(names) <= 12 else [*names[:11], f'… {names[-1]}']
    return f'{text}, {len(names)} classes: {", ".join(shown)}'


def _listing(finding: Finding, shown: int) -> Iterator[str]:
    """Yield the lines of a finding in a report, with its first ``shown`` examples."""
    label = 'FAULT' if finding.severity == FAULT else 'warning'
    split = f' ({finding.split})' if finding.split else ''
    yield f'  {label}  {finding.kind}{split}: {finding.count}'
    yield f'    {one_line(finding.where)}: {finding.meaning}'
    yield from (f'      {one_line(value)}' for value in finding.values[:shown])
    if finding.count > shown and finding.values:
        yield f'      … and {finding.count - shown} more'
    yield f'    Remedy: {finding.remedy}'


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'
