"""Sizes and kinds of image files, from their headers."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmstvit.fileio import image_size, open_image
from mmstvit.rules.headers import thin_out

_MOST_IMAGES = 1000
# Mode of Pillow -> note. The pipelines read every image as 8-bit blue, green and red.
_MODES = {
    '1': 'black and white',
    'L': 'gray: read as three equal channels',
    'LA': 'gray with alpha: alpha is not read',
    'P': 'with a palette: read as colors',
    'RGBA': 'with alpha: alpha is not read',
    'CMYK': 'CMYK: read as colors',
    'I;16': '16-bit: read as 8 bits, see docs/own_data.md',
    'I;16B': '16-bit: read as 8 bits, see docs/own_data.md',
    'I': '16-bit: read as 8 bits, see docs/own_data.md',
    'F': 'of floating-point numbers: see docs/own_data.md',
}


def look_at_images(paths: Sequence[Path]) -> tuple[list[tuple[int, int]], list[str]]:
    """Read the headers of images, of very many a part.

    Returns:
        (width, height) of each image, as it is shown: after its EXIF orientation; and a line for each kind of image
        that a pipeline does not read as it is.
    """
    sizes, kinds = [], Counter()
    for path in thin_out(paths, _MOST_IMAGES):
        try:
            with open_image(path) as image:
                stored, mode = image.size, image.mode
        except (OSError, SyntaxError, ValueError):  # unreadable: verify_dataset.py says why
            continue
        size = image_size(path) or stored
        if size != stored:
            kinds['turned by its EXIF orientation: read as it is shown'] += 1
        if mode in _MODES:
            kinds[_MODES[mode]] += 1
        sizes.append(size)
    return sizes, [f'{count} of {len(sizes)} images {kind}' for kind, count in kinds.items()]
