"""Files that describe the images in a form that is not read: what they are made of, and the way out."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from pathlib import PurePosixPath

import orjson
from defusedxml.ElementTree import fromstring

from mmstvit.datasets.map_files import cuts
from mmstvit.fileio import VIDEO_SUFFIXES, image_size, open_file

from .evidence import Evidence
from .folder import HEAD, Folder
from .options import first_names

_COCO = 'Export the annotations in COCO format.'
_CONVERT = (
    'Write a table of them, as docs/own_data.md shows in "Tables": image,xmin,ymin,xmax,ymax,class or image,class; of '
    'label maps image,map.'
)
_OUTLINES = ' To learn masks, export their outlines in COCO format.'
_POINTS = re.compile(r'contour|\bmasks?\b|outline|points?(list)?\b|polygon|\brle\b|segmentation|vertices', re.I)
MATRIX = 'Save each as a PNG file of its name: cv2.imwrite("1.png", np.loadtxt("1.txt", delimiter=…).astype("uint8")).'
_ARRAYS = 'Export label maps as PNG files; write boxes as a table (docs/own_data.md, "Tables").'
_MASKS = (
    'Decode run lengths into a label map for each image (docs/own_data.md, "Tables"); write corners in COCO format.'
)
_MANY = 20  # images of which a file that names them describes the data, if there are so many
_MOST_FILES = 20  # of a suffix are read
_LARGEST = 1 << 26  # bytes of a file whose parts are named
_CONFIGS = ('.data', '.names', '.yaml', '.yml')
_README = re.compile(r'readme|licen[cs]e|requirements', re.I)
_TEXTS = ('.csv', '.geojson', '.json', '.jsonl', '.lst', '.odgt', '.tsv', '.txt', '.xml')
# Texts that are no annotations: pages, programs, logs and checksums.
_PROSE = ('.html', '.ipynb', '.log', '.md', '.md5', '.py', '.rst', '.sh', '.sha1', '.sha256')
_PLACES = ('.aux.xml', '.jgw', '.pgw', '.tfw', '.tfwx', '.wld')  # of images on a map
_NUMBER = re.compile(r'[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?')
# Suffix, what the text has, name of the format, way out.
_BY_TEXT = (
    ('.json', r'"(_via_img_metadata|_via_settings|shape_attributes)"', 'annotations of VIA', _COCO),
    ('.json', r'\A\s*\[(?s:.*)"(completions|from_name)"', 'JSON of Label Studio',
     'Export from Label Studio in the format "COCO".'),
    ('.json', r'"classTitle"', 'annotations of Supervisely', 'Export from Supervisely in COCO format.'),
    ('.json', r'"segments_info"', 'panoptic annotations of COCO',
     'Use the annotations of instances (instances_*.json), or label maps.'),
    ('.ndjson', r'"data_row"', 'an export of Labelbox', _COCO),
    ('.json', r'"caption"', 'captions of COCO', 'Use the annotations of instances (instances_*.json).'),
    ('.xml', r'<annotations(?s:.*)<(meta|image|track)\b', 'XML of CVAT', 'Export from CVAT in the format "COCO 1.0".'),
    ('label_names.txt', r'\A_background_\s',
     'label maps of labelme_json_to_dataset, whose numbers differ from folder to folder',
     "Put labelme's own JSON files beside the photographs: they are read."),
    ('gt/gt.txt', r'\A\d+,', 'boxes of the frames of a sequence (MOT)', _CONVERT),
    ('.txt', r'(?m)\A[A-Za-z]\S*( -?[\d.]+){14,15}\s*$', 'labels of KITTI', _CONVERT),
    ('.csv', r'(?m)[,;]"?\d+ \d+( \d+ \d+)+"?([,;].*)?$', 'masks as rows of numbers (run lengths or corners)', _MASKS),
)  # fmt: skip
# Formats that cannot be looked into: evidence only if nothing else is found.
_BY_SUFFIX = {
    '.tfrecord': ('TFRecord files', _COCO),
    **dict.fromkeys(('.xlsx', '.xls', '.ods'), ('spreadsheets', f'Save the sheet as a CSV file. {_CONVERT}')),
    '.mat': ('MATLAB files', 'Convert them: label maps to PNG files, boxes or classes to a table (docs/own_data.md).'),
    **dict.fromkeys(('.dcm', '.nii', '.nii.gz', '.nrrd'), ('medical volumes', 'Export their slices as PNG files.')),
    **dict.fromkeys(('.npy', '.npz', '.h5', '.hdf5', '.pkl'), ('arrays', _ARRAYS)),
    **dict.fromkeys(('.parquet', '.arrow', '.mdb', '.rec'), ('a database of images', 'Export the images as files.')),
}  # fmt: skip


def look_for_unread_files(folder: Folder, used: Set[str], images: Set[str], alone: bool) -> Evidence:
    """Collect evidence for annotations that cannot be read.

    Args:
        folder: The folder.
        used: Files that a reader reads.
        images: The images about which they must say something.
        alone: Nothing else was found, so that files of which only the suffix is known say something, too.
    """
    evidence = Evidence()
    videos = list(folder.with_suffix(*VIDEO_SUFFIXES))
    if found := next(_find(folder, used, images, alone), None):
        evidence.refuse(*found)
    elif videos and not folder.images:
        evidence.refuse(f'videos without images, such as {videos[0]}', 'Extract frames, and annotate them.')
    return evidence


def _find(folder: Folder, used: Set[str], images: Set[str], alone: bool) -> Iterator[tuple[str, str]]:
    """Yield what was found, and the way out."""
    texts = {file: folder.read_head(file) for file in _sample(folder) if file not in used}
    for file, text in texts.items():
        if known := find_format(file, text):
            yield f'{known[0]}, such as {file}', known[1]
    if named := _name_of_image(folder, used):
        made_of, remedy = describe_content(folder, named[0])
        yield f'{len(named)} files with the names of images, in a form that is not read ({made_of})', remedy
    together: set[str] = set()
    for file, text in texts.items():
        together |= {*()} if '\0' in text else _names_images(folder, text, images)
        if len(together) >= max(2, min(_MANY, 0.3 * len(images))):
            made_of, remedy = describe_content(folder, file)
            yield f'a file that names images, in a form that is not read ({made_of})', remedy
    for suffix, (name, remedy) in _BY_SUFFIX.items() if alone else ():
        for file in folder.with_suffix(suffix):
            yield f'{name}, such as {file}', remedy


def count_unread(folder: Folder, used: Set[str], notes: Sequence[str]) -> list[str]:
    """Return a line about the files that may say something about the images and are not used, if there are any.

    Args:
        folder: The folder.
        used: Files that were read.
        notes: Lines about what was found; the files that they name are not said again.
    """
    files = set(folder.with_suffix(*_TEXTS, *_CONFIGS, *_BY_SUFFIX, *VIDEO_SUFFIXES)) - used
    said = '\n'.join(notes)
    others = sorted(file for file in files if file not in said and not _README.match(PurePosixPath(file).name))
    return [f'not used: {len(others)} other files: {first_names(others, 3)}'] if others else []


def find_format(file: str, text: str) -> tuple[str, str] | None:
    """Return the name of the format that a text shows, and the way out; None for others."""
    known = ((name, remedy) for suffix, pattern, name, remedy in _BY_TEXT
             if file.lower().endswith(suffix) and re.search(pattern, text))  # fmt: skip
    return next(known, None)


def _sample(folder: Folder) -> list[str]:
    """Return the first files of each suffix in each folder, and more of those that do not belong to one image."""
    groups: dict[tuple[str, str], list[str]] = {}
    skipped = (*_PROSE, *_PLACES, *_BY_SUFFIX, *VIDEO_SUFFIXES)
    for file in (file for file in folder.others if not file.lower().endswith(skipped)):
        groups.setdefault((file.rpartition('/')[0], PurePosixPath(file).suffix.lower()), []).append(file)
    sample = [file for files in list(groups.values())[:_MOST_FILES] for file in files[:3]]
    alone = [file for files in groups.values() for file in files if not folder.images_named(PurePosixPath(file).stem)]
    return list(dict.fromkeys((*sample, *alone[: 5 * _MOST_FILES])))


def _name_of_image(folder: Folder, used: Set[str]) -> list[str]:
    """Return the files of a suffix that are called like most of the images, or of which most are called like images."""
    starts = {start for image in folder.images for start, _ in cuts(image.rpartition('/')[2])}
    groups: dict[str, list[str]] = {}
    for file in folder.others:
        if file not in used and not file.lower().endswith((*VIDEO_SUFFIXES, *_PLACES)):
            groups.setdefault(PurePosixPath(file).suffix.lower(), []).append(file)
    for files in groups.values():
        named = [file for file in files if _find_image(folder, file) or PurePosixPath(file).stem in starts]
        if len(named) > 1 and (2 * len(named) > len(files) or 2 * len(named) > len(folder.images)):
            return named
    return []


def _find_image(folder: Folder, file: str) -> str | None:
    """Find the image that has the name of a file, or a part of it before or behind a mark: gt_img_1 for img_1."""
    stem, near = PurePosixPath(file).stem, file.rpartition('/')[0]
    parts = (part for start, end in cuts(stem) for part in (start, end[1:]))
    return next((image for part in (stem, *parts) if part and (image := folder.find_image(part, near))), None)


def _names_images(folder: Folder, text: str, images: Set[str]) -> set[str]:
    """Return the images that a text names, if it says more about them than their folders do."""
    words = re.findall(r'(?<=")[^"\n]+(?=")|[^\s,;:"\'<>|()\[\]{}=]+', text)
    folders = {part for path in folder.by_folder for part in path.split('/')}
    named, known, other, place = set(), 0, 0, ''
    behind: list[tuple[str, str]] = []  # folder of an image, and a word behind it
    for word in words:
        image = folder.find_image(word, among=images) if len(word) > (5 if word.isdigit() else 3) else None
        if image is not None:
            named.add(image)
            known += '/' in word
            place = image.rpartition('/')[0]
        elif word in folders:
            known += 1
        else:
            other += 1
            behind += [(place, word)] if re.search(r'\w', word) else []
    # Classes that differ inside of a folder, or numbers that stand for the folders.
    classes, pairs = {word for _, word in behind}, {*behind}
    mixed = len(pairs) > len({place for place, _ in pairs}) and 2 * len(classes) <= len(named) <= len(behind)
    return named if mixed or other > (3 if known >= len(named) else 0.5) * len(named) else set()


def describe_content(folder: Folder, file: str) -> tuple[str, str]:
    """Describe what a file is made of, and how its content becomes something that is read."""
    text = folder.read_head(file)
    suffix = PurePosixPath(file).suffix.lower()
    name, remedy = _BY_SUFFIX.get(suffix, ('a binary file', _CONVERT))
    if suffix in _BY_SUFFIX or '\0' in text:
        return f'{name}, such as {file}', remedy
    seen = _describe_tree(folder, file) or _describe_lines(folder, file, text)
    remedy = MATRIX if 'numbers, as many as the pixels' in seen else _CONVERT
    remedy += _OUTLINES * bool(_POINTS.search(seen))
    return f'{file} {f"has {seen}, and " if seen else ""}begins with {" ".join(text.split())[:80]!r}', remedy


def _describe_tree(folder: Folder, file: str) -> str:
    """Name the parts of an XML or JSON file that have numbers; empty if it is not sound, or another file."""
    try:
        with open_file(folder.root / file) as stream:
            content = stream.read(_LARGEST)
        if file.lower().endswith('.xml'):
            root = fromstring(content)
            names = dict.fromkeys(node.tag for node in root.iter() if _NUMBER.fullmatch((node.text or '').strip()))
            return f'the root {root.tag}, and numbers in {", ".join([*names][-8:]) or "no element"}'
        keys = [*dict.fromkeys(_find_keys(orjson.loads(content)))][:12]
        return f'the keys {", ".join(keys)}' if keys else ''  # a number alone is JSON, too
    except Exception:  # parsers raise all kinds of errors
        return ''


def _find_keys(content: object, depth: int = 3) -> Iterator[str]:
    """Yield the keys of nested objects, of a list those of its first one."""
    if isinstance(content, list):
        yield from _find_keys(content[0], depth) if content else ()
    elif isinstance(content, dict) and depth:
        yield from map(str, content)
        for value in content.values():
            yield from _find_keys(value, depth - 1)


def _describe_lines(folder: Folder, file: str, text: str) -> str:
    """Describe the lines of a text: how many numbers, words and groups of numbers they have; empty if they differ."""
    lines = [line for line in text.splitlines()[:-1] or [text] if line.strip()]
    shapes = Counter(_describe_line(folder, line) for line in lines)
    ((shape, count),) = shapes.most_common(1) or [('', 0)]
    if 2 * count < len(lines):
        return ''
    image = _find_image(folder, file)
    size = image and image_size(folder.root / image)
    if size and shape == f'{size[0]} numbers' and len(text) < HEAD and len(lines) in (size[1], size[1] - 1):
        return f'{size[1]} lines of {shape}, as many as the pixels of {image}'
    return f'lines of {shape}'


def _describe_line(folder: Folder, line: str) -> str:
    cells = line.split()
    groups = [
        cell for cell in cells if re.search(r'\d[,;]-?\d', cell) and all(map(_NUMBER.fullmatch, re.split('[,;]', cell)))
    ]
    if groups and len(cells) > 1:
        numbers = {len(re.split('[,;]', group)) for group in groups}
        first = 'the path of an image and ' if folder.find_image(cells[0]) else ''
        return f'{first}groups of {" or ".join(map(str, sorted(numbers)))} numbers'
    cells = [cell for cell in re.split(r'[\s,;]+', line.strip()) if cell]
    numbers = sum(_NUMBER.fullmatch(cell) is not None for cell in cells)
    names = sum(not _NUMBER.fullmatch(cell) and folder.find_image(cell) is not None for cell in cells)
    parts = [f'{names} name{"s" * (names > 1)} of {"images" if names > 1 else "an image"}'] * bool(names) + [
        f'{numbers} numbers'
    ] * bool(numbers)
    words = len(cells) - numbers - names
    return ' and '.join(parts + [f'{words} words'] * bool(words))


def describe_names(folder: Folder) -> str:
    """Name the few words with which the names of all images begin, as in cat.1.jpg; empty if there are none."""
    words = Counter(re.match(r'[^\W\d_]*', PurePosixPath(image).name)[0].lower() for image in folder.images)
    if '' in words or not 1 < len(words) <= len(folder.images) / 4 or min(words.values()) < 2:
        return ''
    return f'; the names of the images begin with {first_names(sorted(words), 6)}'


def quote_file(folder: Folder) -> str:
    """Describe a file that may have the annotations; empty if there is none."""
    files = [file for file in folder.with_suffix(*_TEXTS, *_CONFIGS) if 'readme' not in file.lower()]
    files.sort(
        key=lambda file: -len(folder.files[file.rpartition('/')[0]])
    )  # one of many, rather than names of classes
    return f'; {describe_content(folder, files[0])[0]}' if files else ''
