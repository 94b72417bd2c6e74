"""Annotations of images, as every importer reads them, and the content of a COCO annotation file made of them."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import mul
from pathlib import Path

from mmstvit.errors import DataError
from mmstvit.fileio import image_size

_ROUNDING = 2  # pixels


@dataclass(frozen=True)
class ImportedObject:
    """An object of an image.

    Args:
        label: Name of its class, or its number from 0.
        box: Left, top, width and height; None takes that of the polygons.
        polygons: Polygons x1, y1, x2, y2, …; none for a box alone.
        crowd: It counts neither in training nor in evaluation.
        is_rectangle: The polygons are upright rectangles that were drawn as boxes, not outlines.
    """

    label: str | int
    box: Sequence[float] | None = None
    polygons: Sequence[Sequence[float]] = ()
    crowd: bool = False
    is_rectangle: bool = False


@dataclass(frozen=True)
class ImageAnnotations:
    """Content of an annotation file about one image.

    Args:
        objects: The objects, in pixels.
        image: Name of the image in the file; may be empty, or a path of another computer.
        fractions: The numbers are fractions of the image instead of pixels.
        unused: Number of annotations that are not used, by reason.
        size: Width and height of the image that was annotated, if the file says it.
    """

    objects: Sequence[ImportedObject] = ()
    image: str = ''
    fractions: bool = False
    unused: Counter[str] = field(default_factory=Counter)
    size: tuple[float, float] | None = None


@contextlib.contextmanager
def parsing(path: Path, kind: str) -> Iterator[None]:
    """Make a DataError, which names the file, of whatever a parser raises inside.

    Parsers do not document their errors: PyYAML raises KeyError, AttributeError and IndexError for tags in a file of
    a stranger, XML LookupError for an encoding.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise DataError(f'{path} is not a sound {kind}: {reason}.', 'Correct, repair or remove the file.') from error


def to_coco(root: Path, annotations: Mapping[str, ImageAnnotations], classes: Sequence[str]) -> dict[str, list[dict]]:
    """Make the content of a COCO annotation file; every number stays as it is in the source.

    Args:
        root: Folder of the data set.
        annotations: Image, relative to the root -> its annotations.
        classes: Names of the classes; their category ids are 1, 2, …

    Raises:
        DataError: An image cannot be read, or has another size than the one that was annotated.
    """
    images, objects, resized = [], [], []
    labels = {name: i for i, name in enumerate(classes)}
    for name, annotation in annotations.items():
        size = image_size(root / name)
        if size is None:
            raise DataError(f'{root / name} cannot be read as an image.', 'Repair or remove the file.')
        if annotation.size and _is_of_another_size(annotation, size):
            own = '×'.join(f'{side:g}' for side in annotation.size)
            resized.append(f'{name} has {size[0]}×{size[1]} pixels, its annotations are for {own}')
        images.append(dict(id=len(images) + 1, file_name=name, width=size[0], height=size[1]))
        scale = size if annotation.fractions else (1, 1)
        for item in annotation.objects:
            polygons = [[value * scale[i % 2] for i, value in enumerate(polygon)] for polygon in item.polygons]
            area = sum(map(polygon_area, polygons))
            if item.box is not None:
                box = [value * scale[i % 2] for i, value in enumerate(item.box)]
            else:
                box = bounding_box(polygons)
            objects.append(
                dict(
                    id=len(objects) + 1,
                    image_id=len(images),
                    category_id=labels.get(item.label, item.label) + 1,
                    bbox=box,
                    area=area or box[2] * box[3],
                    iscrowd=int(item.crowd),
                    segmentation=polygons,
                )
            )
    if resized:
        raise DataError(
            f'{len(resized)} of {len(images)} images have another size than the annotated one (first: {resized[0]}).',
            'Use the annotated images, or scale the annotations. If the size in the files is wrong, correct it.',
        )
    return dict(images=images, annotations=objects, categories=[dict(id=i + 1, name=n) for i, n in enumerate(classes)])


def _is_of_another_size(annotation: ImageAnnotations, size: tuple[int, int]) -> bool:
    """Return True if an image has another size than its annotations say, and they lie inside that size."""
    boxes = [item.box or bounding_box(item.polygons) for item in annotation.objects]
    width, height = annotation.size
    inside = all(x + w <= width + _ROUNDING and y + h <= height + _ROUNDING for x, y, w, h in boxes)
    return bool(boxes) and inside and max(abs(width - size[0]), abs(height - size[1])) > _ROUNDING


def bounding_box(polygons: Sequence[Sequence[float]]) -> list[float]:
    """Return the box of polygons: left, top, width, height."""
    left, top, right, bottom = extent(polygons)
    return [left, top, right - left, bottom - top]


def extent(polygons: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """Return the bounding rectangle of polygons: left, top, right, bottom."""
    xs = [x for polygon in polygons for x in polygon[0::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def polygon_area(polygon: Sequence[float]) -> float:
    """Return the area of a polygon x1, y1, x2, y2, … by the shoelace formula."""
    xs, ys = polygon[0::2], polygon[1::2]
    return abs(sum(map(mul, xs, [*ys[1:], ys[0]])) - sum(map(mul, ys, [*xs[1:], xs[0]]))) / 2
