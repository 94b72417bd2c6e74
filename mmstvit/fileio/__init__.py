"""Read untrusted checkpoint files without executing them, compare them with a module, write files atomically."""

from .comparing import LoadReport, compare, load_weights, unwrap
from .loading import is_local, read_content, read_weights, safe_loading
from .reading import read_checkpoint
from .weights import Source, check_finite, describe, find_weights, resumable_checkpoints, strip_prefixes
from .writing import check_target, plain_data, plain_meta, serialize, write_atomically

__all__ = [
    'LoadReport',
    'Source',
    'check_finite',
    'check_target',
    'compare',
    'describe',
    'find_weights',
    'is_local',
    'load_weights',
    'plain_data',
    'plain_meta',
    'read_checkpoint',
    'read_content',
    'read_weights',
    'resumable_checkpoints',
    'safe_loading',
    'serialize',
    'strip_prefixes',
    'unwrap',
    'write_atomically',
]
