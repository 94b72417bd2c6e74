"""Values of label maps, and the labels that they become."""

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from mmengine.utils import track_iter_progress

from mmstvit.datasets.images import MAP_READER, UnreadableError
from mmstvit.errors import DataError
from mmstvit.fileio import open_image
from mmstvit.rules.headers import read_headers, thin_out

from .class_names import Color, Entry
from .options import first_names

IGNORED = 255  # the label that MMSegmentation does not learn
_MOST_MAPS = 2000  # of a larger set, so many are read
_MOST_VALUES = 256
_LOOKED_AT = 24
_SEVERAL = 2  # times as many colors as values in one of their channels
_PHOTOMETRIC = 262  # tag of TIFF
_FEW = 8  # values of thin lines, of which people draw a few
_LOSSY = ('.jpg', '.jpeg', '.jfif', '.webp')
_NAME_THEM = (
    'Name them with --classes NAME NAME … in the order of the values, --classes VALUE=NAME VALUE=NAME …, or --classes '
    'FILE; leave values out with --ignore VALUE. If the values number objects, export these in COCO format.'
)
_NAME_COLORS = "Name them with --classes '#rrggbb=NAME' … or --classes FILE; leave colors out with --ignore '#rrggbb'."
Value = int | Color


@dataclass
class Values:
    """The values in label maps.

    Args:
        pixels: Value -> number of pixels. Colors (red, green, blue) of which all are gray count as integers.
        flat: The files have one channel.
        maps: Number of maps that were read.
        total: Number of all maps.
        white: Number of maps that have 0 and 255 alone.
        ones: Number of maps that have 0 and 1 alone.
        palette: Value -> its color in the palettes of the files.
        contradiction: A value that has two colors, in the words of a message; empty without one.
    """

    pixels: Counter = field(default_factory=Counter)
    flat: bool = True
    maps: int = 0
    total: int = 0
    white: int = 0
    ones: int = 0
    palette: dict[int, Color] = field(default_factory=dict)
    contradiction: str = ''

    @property
    def remedy(self) -> str:
        """Remedy for values without a name."""
        if not self.colored:
            return _NAME_THEM
        channels = [sorted({value[i] for value in self.pixels if isinstance(value, tuple)}) for i in range(3)]
        few = min(range(3), key=lambda i: len(channels[i]) if len(channels[i]) > 1 else 256)
        if len(self.pixels) > _SEVERAL * len(channels[few]):
            listed = first_names([*map(str, channels[few])])
            return (
                f'If the {("red", "green", "blue")[few]} channel has the classes ({listed}), save it as a gray PNG '
                f'file; else: {_NAME_COLORS}'
            )
        return _NAME_COLORS

    @property
    def colored(self) -> bool:
        """True if values are colors."""
        return any(isinstance(value, tuple) for value in self.pixels)

    def describe(self, values: Sequence[Value] | None = None, shown: int = 12) -> str:
        """Write values with their share of the pixels."""
        values = sorted(self.pixels) if values is None else list(values)
        total = sum(self.pixels.values())
        text = ', '.join(f'{write(value)} ({self.pixels[value] / total:.2%})' for value in values[:shown])
        return text + (f' and {len(values) - shown} more' if len(values) > shown else '')


@dataclass(frozen=True)
class Table:
    """The meaning of the values in label maps.

    Args:
        classes: Names in the order of the labels.
        labels: Value in the files -> label.
        converts: The files do not have the labels: copies are needed.
        palette: Colors of the classes, if a file gives them.
    """

    classes: list[str]
    labels: dict[Value, int]
    converts: bool
    palette: list[Color] = field(default_factory=list)

    @property
    def comment(self) -> str:
        """Comment of the config on the classes."""
        ignored = [write(value) for value, label in self.labels.items() if label == IGNORED and value != IGNORED]
        if not self.converts:
            return 'In the order of the values 0, 1, ….'
        return (
            f'The copies of the label maps have them as 0, 1, …{"; ignored: " + ", ".join(ignored) if ignored else ""}.'
        )


def write(value: Value) -> str:
    """Write a value as ``--classes`` and ``--ignore`` read it."""
    return '#' + bytes(value).hex() if isinstance(value, tuple) else str(value)


def _read(path: Path) -> tuple[np.ndarray, bool]:
    """Read a label map.

    Returns:
        (H, W) integers, for colors red·2¹⁶ + green·2⁸ + blue; and True if the file has one channel.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        array = MAP_READER.read(str(path)).squeeze()
    except UnreadableError as error:
        raise DataError(f'Cannot read {path}: {error}.', 'Repair or remove the file.') from error
    if array.ndim == 2:
        return array.astype(np.int64), True
    if array.shape[2] == 2:  # gray with alpha
        return array[..., 0].astype(np.int64) * 0x010101, False
    blue, green, red = np.moveaxis(array[..., :3].astype(np.int64), 2, 0)
    return red << 16 | green << 8 | blue, False


def read_values(paths: Sequence[Path]) -> Values:
    """Count the values in label maps; of very many, a part is read.

    Raises:
        DataError: A file cannot be read, or is not a label map.
    """
    read = thin_out(paths, _MOST_MAPS)
    result = Values(maps=len(read), total=len(paths))
    counts, flats, solid = Counter(), set(), set()
    sets: Counter[frozenset[int]] = Counter()
    painted: dict[int, tuple[Color, Path]] = {}
    _refuse_16_bits(read[0])
    for path in track_iter_progress(read, file=sys.stderr) if len(read) > 50 else read:
        labels, flat = _read(path)
        flats.add(flat)
        values, pixels = np.unique(labels, return_counts=True)
        for value, color in _read_palette(path).items() if flat else ():
            first, where = painted.setdefault(value, (color, path)) if value in values else (color, path)
            if first != color:
                result.contradiction = f'{value} is {write(first)} in {where}, and {write(color)} in {path}'
        counts.update(dict(zip(values.tolist(), pixels.tolist(), strict=True)))
        solid.update(_find_solid(labels))
        sets[frozenset(values.tolist())] += 1
        if len(counts) > _MOST_VALUES:
            break
    lossy, many = path.suffix.lower() in _LOSSY, len(counts) > _MOST_VALUES
    if (many or len(counts) == 1) and (masked := next(filter(_has_mask_in_alpha, read[:_LOOKED_AT]), None)):
        raise DataError(
            f'The masks are in the alpha channel of files such as {masked}; their colors '
            f'{"are those of photographs" if many else "are all alike"}.',
            'Save the alpha channel of each file as a gray PNG file.',
        )
    thin = counts.keys() - solid
    share = sum(counts[value] for value in thin) / counts.total()
    soft = len(thin) > len(solid) + _FEW
    if many and (not soft or share > 0.5):
        raise DataError(
            f'The label maps have more than {_MOST_VALUES} values, up to {path}: they are photographs, depth maps or '
            'other measurements.',
            'Name the folder of the label maps.',
        )
    if soft or (lossy and thin):
        cause = f'{path.suffix[1:].upper()} files do not keep values' if lossy else 'soft borders (smoothed or resized)'
        raise DataError(
            f'The label maps such as {path} have {len(counts)} values, of which {len(thin)}, in {share:.1%} of the '
            f'pixels, occur only between others: {cause}.',
            'Save the label maps as PNG files without smoothing, with one value for each class, and resize them to the '
            'nearest neighbor; a threshold makes a mask of two values of a gray one.',
        )
    if len(flats) > 1:
        raise DataError('Some of the label maps have one channel, others three.', 'Save all in the same way.')
    result.flat = flats.pop()
    if not result.flat:
        colors = {code: _color(code) for code in counts}
        gray = all(len(set(color)) == 1 for color in colors.values())
        counts = Counter({color[0] if gray else color: counts[code] for code, color in colors.items()})
    result.pixels = counts
    result.palette = {value: color for value, (color, _) in painted.items()}
    result.white = sum(count for values, count in sets.items() if values == {0, 255})
    result.ones = sum(count for values, count in sets.items() if values == {0, 1})
    return result


def _read_palette(path: Path) -> dict[int, Color]:
    """Read the palette of a label map, value -> color; empty without one.

    Raises:
        DataError: The values of the file are read inverted.
    """
    try:
        with open_image(path) as image:
            inverted = getattr(image, 'tag_v2', {}).get(_PHOTOMETRIC) == 0
            flat = (image.getpalette() or []) if image.mode == 'P' else []
    except (OSError, SyntaxError, ValueError):  # formats that Pillow does not know
        return {}
    if inverted:
        raise DataError(
            f'{path} is a TIFF file in which 0 is white (WhiteIsZero): its values are read inverted.',
            'Save the label maps as PNG files, with the values that they are to have.',
        )
    return {i: tuple(flat[3 * i : 3 * i + 3]) for i in range(len(flat) // 3)}


def _color(code: int) -> Color:
    return code >> 16, code >> 8 & 255, code & 255


def _has_mask_in_alpha(path: Path) -> bool:
    """Return True if some pixels of a file are transparent and others are not."""
    array = MAP_READER.read(str(path)).squeeze()
    return array.ndim == 3 and array.shape[2] in (2, 4) and array[..., -1].min() < array[..., -1].max()


def _refuse_16_bits(path: Path) -> None:
    """Refuse a map of several channels with 16 bits, of which pipelines read the upper 8; raises DataError."""
    header = next(read_headers([dict(img_path=str(path))]), None)
    if header is not None and header.bits == 16 and header.mode in ('RGB', 'RGBA', '?'):
        array = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1]
        ranges = ', '.join(f'{array[..., i].min()} to {array[..., i].max()}' for i in range(array.shape[2]))
        raise DataError(
            f'The label maps such as {path} have {array.shape[2]} channels of 16 bits, with the values {ranges}.',
            'Save the channel of the classes as a gray PNG file of 8 bits.',
        )


def _find_solid(labels: np.ndarray) -> list[int]:
    """Return the values that a pixel has in common with its four neighbors: those of regions, not of their borders."""
    inner = labels[1:-1, 1:-1]
    around = (labels[:-2, 1:-1], labels[2:, 1:-1], labels[1:-1, :-2], labels[1:-1, 2:])
    return np.unique(inner[np.all([inner == part for part in around], axis=0)]).tolist()


def make_table(values: Values, entries: Sequence[Entry], ignore: Sequence[Value]) -> Table:
    """Decide which label each value becomes.

    Args:
        values: The values in the maps.
        entries: The classes, from a file or an option; may be empty.
        ignore: Values that are not learned.

    Raises:
        DataError: That cannot be decided; the message lists the values.
    """
    if not entries:
        raise DataError(f'The label maps have the values {values.describe()}, whose names are unknown.', values.remedy)
    palette = [entry.value for entry in entries if isinstance(entry.value, tuple)]
    present = sorted(set(values.pixels) - set(ignore))
    grays = {entry.value[0]: entry.name for entry in entries if palette and len({*entry.value}) == 1}
    if values.contradiction and not isinstance(entries[0].value, int):
        raise DataError(
            f'The palettes of the label maps differ: {values.contradiction}.',
            'If the colors are the classes, save the maps as RGB files; if the values are: --classes VALUE=NAME …',
        )
    by_color = {entry.value: entry.name for entry in entries if isinstance(entry.value, tuple)}
    of_palette = {value: by_color[color] for value, color in values.palette.items() if color in by_color}
    if palette and not values.colored and set(present) <= grays.keys():
        named = grays
    elif of_palette:
        named = of_palette
    elif entries[0].value is None or (palette and not values.colored):
        named = _by_order(values, present, [entry.name for entry in entries], ignore)
    else:
        named = {entry.value: entry.name for entry in entries}
    if 255 not in {*named, *ignore} and values.white and values.ones:
        raise DataError(
            f'{values.ones} label maps have the values 0 and 1, {values.white} others 0 and 255.',
            f'If 255 is {named.get(1, "the object")}, too: --classes 0=NAME 1=NAME 255=NAME; if not: --ignore 255.',
        )
    voids = {value for value, name in named.items() if Entry(name).is_void} | set(ignore)
    if 0 not in named and min((v for v in named if isinstance(v, int)), default=0) == 1:
        voids.add(0)  # as ADE20K has it
    classes = {value: name for value, name in named.items() if value not in voids}
    names = list(dict.fromkeys(classes.values()))
    occurring = {classes[value] for value in present if value in classes}
    if not occurring:
        raise DataError(
            f'None of the classes occurs in the label maps, which have the values {values.describe()}.', values.remedy
        )
    if unnamed := [value for value in present if value not in {*named, *voids, IGNORED}]:
        raise DataError(f'The label maps have values without a name: {values.describe(unnamed)}.', values.remedy)
    if len(values.pixels) == 1 and len(names) > 1:
        raise DataError(
            f'Of {len(names)} classes only {min(occurring)} occurs in the label maps, which have the values '
            f'{values.describe()}.',
            'Name the folder of the label maps with --maps, or correct the values in them.',
        )
    labels = {value: names.index(name) for value, name in classes.items()}
    labels |= {value: IGNORED for value in {*voids, *values.pixels} if value not in labels}
    return Table(
        classes=names,
        labels=labels,
        converts=not values.flat
        or any(value != label for value, label in labels.items() if value not in voids or value in values.pixels),
        palette=[entry.value for entry in entries if entry.name in names] if palette else [],
    )


def _by_order(
    values: Values, present: Sequence[Value], names: Sequence[str], ignore: Sequence[Value]
) -> dict[Value, str]:
    """Give names to values in their order: from 0, or from 1 if 0 is ignored, or one for each value that occurs.

    Raises:
        DataError: There is more than one way, or none.
    """
    if values.colored:
        raise DataError(
            f'{len(names)} names for the values {values.describe()}: the label maps have colors.',
            _NAME_COLORS,
        )
    if names[:2] == ['__ignore__', '_background_']:  # labelme counts from -1
        names = names[1:]
    count, first = len(names), int(0 in ignore)
    learned = [value for value in present if value != IGNORED]
    if count == 2 and present == [0, IGNORED]:
        return dict(zip(present, names, strict=True))  # a mask: black and white
    readings = []
    if max(learned, default=0) < count + first:
        readings.append(dict(enumerate(names, first)))
        if Entry(names[0]).is_void and count > 2 and max(learned, default=0) < count - 1:
            readings.append(dict(enumerate(names[1:])))
    elif len(learned) == count:
        readings.append(dict(zip(learned, names, strict=True)))
    if len(present) == count and present != learned:
        readings.append(dict(zip(present, names, strict=True)))
    if len({tuple(map(reading.get, present)) for reading in readings}) == 1:
        return readings[0]
    ways = ' or '.join(
        ', '.join(f'{value} is {reading[value]}' for value in present[:3] if value in reading) for reading in readings
    )
    one_more = learned == [*range(count + 1)]
    background = (
        f'If 0 is the background: --classes background {" ".join(map(shlex.quote, names))}. ' if one_more else ''
    )
    raise DataError(
        f'{count} names for the values {values.describe()}{f": {ways}" if ways else ""}.', background + _NAME_THEM
    )


def convert(path: Path, labels: dict[Value, int] | None) -> bytes:
    """Return a copy of a label map as a PNG file, with other labels; None keeps them.

    Raises:
        DataError: The map has a value without a label.
    """
    codes, flat = _read(path)
    if labels is None:
        return cv2.imencode('.png', codes.astype(np.uint8))[1].tobytes()
    found, inverse = np.unique(codes, return_inverse=True)
    wanted = np.zeros(len(found), np.uint8)
    for i, code in enumerate(found.tolist()):
        color = _color(code)
        value = code if flat else color if color in labels else color[0]
        if value not in labels:
            raise DataError(f'{path} has the value {write(value if flat else color)}, which has no name.', _NAME_THEM)
        wanted[i] = labels[value]
    return cv2.imencode('.png', wanted[inverse].reshape(codes.shape))[1].tobytes()
