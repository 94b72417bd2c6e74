"""Split images without a COCO file into training and validation."""

from collections.abc import Sequence
from pathlib import Path

from mmstvit.rules.coco_split import split_by_image


def split_files(paths: Sequence[Path], fraction: float, labels: Sequence[str] = ()) -> tuple[list[int], list[int]]:
    """Split images as :func:`split_by_image` does; equal files are on one side.

    Args:
        paths: The images.
        fraction: Part of the images for validation, between 0 and 1.
        labels: Class of each image; every class is on both sides.

    Returns:
        Indices of the images for training, and for validation.

    Raises:
        DataError: There are fewer than two different images.
    """
    content = dict(
        images=[dict(id=i, file_name=str(path)) for i, path in enumerate(paths)],
        annotations=[dict(image_id=i, category_id=label) for i, label in enumerate(labels)],
    )
    train, val = ([image['id'] for image in part['images']] for part in split_by_image(content, '', fraction))
    return train, val
