"""Read untrusted checkpoints without executing code, compare them with models, write files atomically, list images."""

from .comparing import OTHER_CONFIG, LoadReport, compare, load_weights, unwrap
from .configs import check_config, parse_config
from .files import open_file, open_new, partial_path, read_file
from .image_files import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    ImageError,
    check_header,
    check_pixels,
    decodable,
    has_pages,
    image_size,
    limited_images,
    mark_results,
    open_image,
    read_tiff_tags,
    walk_folder,
)
from .loading import is_local, open_checkpoint, resumable_checkpoints, safe_loading
from .reading import find_format, find_placeholder, read_checkpoint
from .weights import Checkpoint, add_dot, describe_content, find_nonfinite
from .writing import check_target, flush, plain_data, plain_meta, serialize, write_all, write_atomically

__all__ = [
    'IMAGE_SUFFIXES',
    'OTHER_CONFIG',
    'VIDEO_SUFFIXES',
    'Checkpoint',
    'ImageError',
    'LoadReport',
    'add_dot',
    'check_config',
    'check_header',
    'check_pixels',
    'check_target',
    'compare',
    'decodable',
    'describe_content',
    'find_format',
    'find_nonfinite',
    'find_placeholder',
    'flush',
    'has_pages',
    'image_size',
    'is_local',
    'limited_images',
    'load_weights',
    'mark_results',
    'open_checkpoint',
    'open_file',
    'open_image',
    'open_new',
    'parse_config',
    'partial_path',
    'plain_data',
    'plain_meta',
    'read_checkpoint',
    'read_file',
    'read_tiff_tags',
    'resumable_checkpoints',
    'safe_loading',
    'serialize',
    'unwrap',
    'walk_folder',
    'write_all',
    'write_atomically',
]
