"""Build the content of a COCO annotation file, image by image."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmstvit.errors import DataError
from mmstvit.fileio import image_size


class CocoTable:
    """Content of a COCO annotation file.

    Args:
        root: Folder of the data set.
        classes: Names of the classes; their category ids are 1, 2, …

    Attributes:
        unused: Number of annotations that were not used, by reason.
    """

    def __init__(self, root: Path, classes: Sequence[str]) -> None:
        self.root = root
        self.categories = [dict(id=i, name=name) for i, name in enumerate(classes, 1)]
        self.images: list[dict] = []
        self.annotations: list[dict] = []
        self.unused: Counter[str] = Counter()

    @property
    def content(self) -> dict[str, list[dict]]:
        """The content of the file."""
        return dict(images=self.images, annotations=self.annotations, categories=self.categories)

    def add_image(self, name: str) -> tuple[int, int]:
        """Add an image; objects are added to the last one.

        Args:
            name: Path below the root.

        Returns:
            Width and height, as pipelines see the image.

        Raises:
            DataError: The image cannot be read.
        """
        size = image_size(self.root / name)
        if size is None:
            raise DataError(f'{self.root / name} cannot be read as an image.', 'Repair or remove the file.')
        self.images.append(dict(id=len(self.images) + 1, file_name=name, width=size[0], height=size[1]))
        return size

    def add_object(
        self,
        label: int,
        box: Sequence[float] | None = None,
        polygons: Sequence[Sequence[float]] = (),
        crowd: bool = False,
    ) -> None:
        """Add an object of the last image.

        Args:
            label: Number of the class, from 0.
            box: x, y, width and height in pixels; None takes that of the polygons.
            polygons: Polygons x1, y1, x2, y2, … in pixels; none for a box alone.
            crowd: The object counts neither in training nor in evaluation.
        """
        area = 0.0
        if box is None:
            xs = [x for polygon in polygons for x in polygon[0::2]]
            ys = [y for polygon in polygons for y in polygon[1::2]]
            box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
            area = sum(map(polygon_area, polygons))
        self.annotations.append(
            dict(
                id=len(self.annotations) + 1,
                image_id=self.images[-1]['id'],
                category_id=label + 1,
                bbox=list(box),
                area=area or box[2] * box[3],
                iscrowd=int(crowd),
                segmentation=[list(polygon) for polygon in polygons],
            )
        )


def polygon_area(polygon: Sequence[float]) -> float:
    """Return the area of a polygon x1, y1, x2, y2, … by the shoelace formula."""
    xs, ys = polygon[0::2], polygon[1::2]
    pairs = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
    return abs(sum(x1 * y2 - x2 * y1 for x1, y1, x2, y2 in pairs)) / 2
