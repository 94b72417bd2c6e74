"""The options of a new config, and the data that it is for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Options:
    """Options of ``tools/new_config.py``; see its help.

    Args:
        data: Folder or annotation file.
        out: The config to write; None names it after the model and the data.
        model: Family, size, or both.
        task: ``'instances'``, ``'segments'`` or ``'classes'``; None recognizes it.
        epochs: Length of the training run; None chooses it.
        batch_size: Images per iteration; None chooses it.
        weights: Checkpoint of the backbone.
        val: Fraction of the images for validation, or the annotation file or folder for it.
        images: Folder of the images of an annotation file, or of label maps that have several.
        classes: Names in the order of the labels, ``VALUE=NAME`` pairs, or a file of them.
        ignore: Values of label maps that are not learned.
        map_suffix: End of the names of label maps.
        shapes: ``'boxes'`` with keypoints or ``'polygons'``: what YOLO's lines have; None decides by their numbers.
        maps: Folder of the label maps, if images have several; the folders in its place for other splits belong to it.
        skip_missing: Train without images that are missing.
        skip_stray: Leave out images beside the folders of classes.
        fix: Repair annotations, in a copy beside the config.
    """

    data: Path
    out: Path | None = None
    model: str | None = None
    task: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    weights: str | None = None
    val: str | None = None
    images: Path | None = None
    classes: list[str] = field(default_factory=list)
    ignore: list[str] = field(default_factory=list)
    map_suffix: str | None = None
    shapes: str | None = None
    maps: Path | None = None
    skip_missing: bool = False
    skip_stray: bool = False
    fix: bool = False

    @property
    def val_fraction(self) -> float | None:
        """The fraction of the images that validation gets; None if ``val`` names a file or folder."""
        if self.val is None:
            return 0.2
        try:
            return float(self.val)
        except ValueError:
            return None


@dataclass
class Data:
    """A data set, as the config describes it.

    Args:
        task: ``'instances'``, ``'segments'`` or ``'classes'``.
        root: Folder of the data.
        classes: Names, in the order of the labels.
        datasets: Split -> config of its dataset without type and pipeline. A path that begins with ``NEXT_TO_CONFIG``
            is in the folder of the config.
        counts: Split -> number of images.
        images: The images, all or a sample.
        sizes: Their (width, height), as far as the annotations have them; empty reads them from the files.
        notes: What was found, line by line.
        comment: What the classes come from, for the config.
        palette: Colors (red, green, blue) of the classes; empty chooses them.
        with_mask: Instances have masks.
        empty: Number of training images without objects.
        most_objects: Number of objects in the image that has most.
        files: Name -> content of a file that is written beside the config; made when it is written.
    """

    task: str
    root: Path
    classes: list[str]
    datasets: dict[str, dict]
    counts: dict[str, int]
    images: list[Path]
    sizes: list[tuple[int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    comment: str = ''
    palette: list[tuple[int, int, int]] = field(default_factory=list)
    with_mask: bool = True
    empty: int = 0
    most_objects: int = 0
    files: dict[str, Callable[[], bytes]] = field(default_factory=dict)


NEXT_TO_CONFIG = '<next to the config>/'


def first_names(names: Sequence[str], shown: int = 12) -> str:
    """Join the first of many names."""
    return ', '.join(names[:shown]) + (f', … ({len(names)} in all)' if len(names) > shown else '')
