"""Rules: do a config, its data and its model fit together?

A rule is a function ``rule(facts) -> Iterator[Finding]`` in a module of this room. train.py and test.py ask the rules
of :data:`CHEAP` before they build the model; verify_dataset.py asks those of :data:`THOROUGH` too. Rule modules import
mmdet, mmseg, mmpretrain and pycocotools inside functions only: a config needs one of them.
"""

# fmt: off
from .annotations import (
    check_boxes,
    check_categories,
    check_evaluated,
    check_format,
    check_mask_heads,
    check_masks,
    check_polygons,
    check_rle_sizes,
    find_dropped,
)
from .channels import check_bits, check_channels
from .classes import (
    check_class_folders,
    check_class_strings,
    check_known_names,
    check_palettes,
    check_splits_agree,
    check_suffixes,
    check_xml_names,
)

# fmt: on
from .decoding import check_files, check_look_alikes, check_verifiable
from .evaluation import check_annotation_files, check_max_per_img, check_unannotated
from .facts import DatasetFacts, Facts
from .files import check_copies, check_data, check_duplicates, check_missing_files, check_splits
from .findings import Finding, refuse
from .heads import check_heads, check_labels, check_lists, check_topk
from .keys import check_keys
from .kinds import FAULT, KINDS, WARNING, check_kinds
from .loaders import check_batch_norm, check_batch_sizes, check_slide
from .map_labels import check_ignore_index, check_label_sample, check_map_sizes
from .report import Report, Rule, check, ignore_kinds
from .schedule import check_schedule
from .usable import datasets_that_cannot_be_built, datasets_without_annotations

# No decoding of all files, at most a look at names and headers. The order is that of the report.
CHEAP: tuple[Rule, ...] = (
    *(check_keys, check_class_strings, check_known_names, check_class_folders, check_lists, check_xml_names),
    *(datasets_that_cannot_be_built, check_format, check_categories, check_splits_agree, check_heads, check_labels),
    *(check_topk, check_palettes, check_masks, check_rle_sizes, check_mask_heads, check_boxes, check_polygons),
    *(check_evaluated, check_missing_files, check_duplicates, check_splits, check_copies, check_suffixes),
    *(check_channels, check_bits, check_map_sizes, check_label_sample, check_ignore_index, check_batch_sizes),
    *(check_slide, check_batch_norm, check_schedule, check_annotation_files, check_unannotated, check_max_per_img),
    datasets_without_annotations,
)
# Read and decode every file, in addition.
THOROUGH: tuple[Rule, ...] = (check_verifiable, find_dropped, check_files, check_look_alikes)

# fmt: off
__all__ = [
    'CHEAP', 'FAULT', 'KINDS', 'THOROUGH', 'WARNING', 'DatasetFacts', 'Facts', 'Finding', 'Report', 'Rule', 'check',
    'check_data', 'check_kinds', 'ignore_kinds', 'refuse',
]
# fmt: on
