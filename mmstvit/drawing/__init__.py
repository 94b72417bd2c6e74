"""Draw boxes, masks, maps and their names on images, and arrange pictures on sheets."""

from .colors import Color, class_colors
from .placement import draw_labels
from .predictions import Objects, draw_objects, draw_sample, read_classes, read_map, read_objects
from .shapes import (
    draw_boundaries,
    draw_boxes,
    draw_heat,
    draw_map,
    draw_masks,
    draw_overlay,
    fill_means,
    resize,
    to_rgb,
)
from .sheets import Panel, contact_sheet, draw_legend

__all__ = [
    'Color',
    'Objects',
    'Panel',
    'class_colors',
    'contact_sheet',
    'draw_boundaries',
    'draw_boxes',
    'draw_heat',
    'draw_labels',
    'draw_legend',
    'draw_map',
    'draw_masks',
    'draw_objects',
    'draw_overlay',
    'draw_sample',
    'fill_means',
    'read_classes',
    'read_map',
    'read_objects',
    'resize',
    'to_rgb',
]
