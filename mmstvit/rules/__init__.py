"""Rules: do a config, its data and its model fit together?

A rule is a function ``rule(facts) -> Iterator[Finding]`` in a module of this room. train.py and test.py ask the rules
of :data:`CHEAP` before they build the model; verify_dataset.py asks those of :data:`THOROUGH` too. Rule modules import
mmdet, mmseg, mmpretrain and pycocotools inside functions only: a config needs one of them.
"""

from . import (
    annotations,
    channels,
    classes,
    decoding,
    evaluation,
    files,
    heads,
    keys,
    loaders,
    map_labels,
    schedule,
    usable,
)
from .facts import DatasetFacts, Facts
from .files import check_data
from .findings import Finding, refuse
from .kinds import FAULT, KINDS, WARNING, check_kinds
from .report import Report, Rule, check, ignore_kinds

# No decoding of all files, at most a look at names and headers. The order is that of the report.
CHEAP: tuple[Rule, ...] = (
    keys.check_keys,
    classes.check_class_strings,
    classes.check_known_names,
    classes.check_class_folders,
    usable.datasets_that_cannot_be_built,
    annotations.check_format,
    annotations.check_categories,
    classes.check_splits_agree,
    heads.check_heads,
    heads.check_labels,
    heads.check_topk,
    classes.check_palettes,
    annotations.check_masks,
    annotations.check_rle_sizes,
    annotations.check_mask_heads,
    annotations.check_boxes,
    annotations.check_polygons,
    annotations.check_evaluated,
    files.check_missing_files,
    files.check_duplicates,
    files.check_splits,
    files.check_copies,
    classes.check_suffixes,
    channels.check_channels,
    channels.check_bits,
    map_labels.check_map_sizes,
    map_labels.check_label_sample,
    map_labels.check_ignore_index,
    loaders.check_batch_sizes,
    loaders.check_slide,
    loaders.check_batch_norm,
    schedule.check_schedule,
    evaluation.check_annotation_files,
    evaluation.check_unannotated,
    evaluation.check_max_per_img,
    usable.datasets_without_annotations,
)
# Read and decode every file, in addition.
THOROUGH: tuple[Rule, ...] = (
    decoding.check_verifiable,
    annotations.find_dropped,
    decoding.check_files,
    decoding.check_look_alikes,
)

__all__ = [
    'CHEAP',
    'FAULT',
    'KINDS',
    'THOROUGH',
    'WARNING',
    'DatasetFacts',
    'Facts',
    'Finding',
    'Report',
    'Rule',
    'check',
    'check_data',
    'check_kinds',
    'ignore_kinds',
    'refuse',
]
