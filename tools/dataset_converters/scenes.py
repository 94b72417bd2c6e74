"""Make the scenes, a small data set with exact masks, offline and in seconds.

Drawn shapes and handwritten digits of scikit-learn are pasted onto crops of the photographs in scikit-image and
scikit-learn. Training and validation have different photographs, digits and shapes.

The same scenes are written in three layouts::

    data/scenes/
      scenes.json                                   the arguments that made this folder
      coco/annotations/instances_{train,val}.json   detection, masks as RLE
      coco/{train,val}/000001.jpg
      ade20k/images/{training,validation}/000001.jpg
      ade20k/annotations/{training,validation}/000001.png   0 background, then the classes in order
      imagenet/{train,val}/<class>/000001_0.jpg     one crop per object

The output depends only on the arguments, and on the versions of the libraries that draw and encode.

Example::

    python tools/dataset_converters/scenes.py --out-dir data/scenes
"""

import importlib.util
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as rle
from skimage import data as photos
from tqdm import tqdm

from mmstvit.command_line import make_parser, positive

CLASSES = ('circle', 'square', 'triangle', 'star', 'digit')
# Other photographs and other handwritten digits in each split.
PHOTOS = {
    'train': ('china.jpg', 'astronaut', 'coffee', 'stereo_motorcycle', 'gravel', 'brick'),
    'val': ('flower.jpg', 'chelsea', 'rocket', 'grass'),
}
DIGITS = {'train': slice(0, 1200), 'val': slice(1200, None)}
# Layout names of the splits.
ADE20K = {'train': 'training', 'val': 'validation'}
# Objects are drawn larger by this factor and averaged: soft edges, and a mask where at least half is covered.
SUPERSAMPLING = 4
# A new object is dropped if it would leave less than this fraction of an earlier one visible.
MIN_VISIBLE = 0.9
CROP_SIDE = 64


@dataclass(frozen=True)
class SceneOptions:
    """Arguments that decide the content of the folder.

    Args:
        train: Training images.
        val: Validation images.
        size: Side of an image, in pixels.
        max_objects: Maximum number of objects in a scene, 1 or more.
        seed: Seed of all random numbers.
        version: Version of the drawing; another one makes other scenes from the same arguments.
    """

    train: int
    val: int
    size: int
    max_objects: int
    seed: int
    version: int = 1


def sklearn_file(name: str) -> Path:
    """Find a data file of scikit-learn without importing it, which takes seconds."""
    return Path(importlib.util.find_spec('sklearn').origin).parent / 'datasets' / name


def load_digits() -> np.ndarray:
    """Load the handwritten digits, (N, 8, 8) float64 from 0 to 16, as ``sklearn.datasets.load_digits``."""
    return np.loadtxt(sklearn_file('data/digits.csv.gz'), delimiter=',')[:, :-1].reshape(-1, 8, 8)


def load_photo(name: str) -> np.ndarray:
    """Load a photograph as RGB, (H, W, 3) uint8."""
    if name.endswith('.jpg'):
        return np.asarray(Image.open(sklearn_file(f'images/{name}')))
    photo = getattr(photos, name)()
    if isinstance(photo, tuple):  # the stereo pair comes with a disparity map
        photo = photo[0]
    return photo if photo.ndim == 3 else np.repeat(photo[..., None], 3, axis=2)


def draw_background(rng: np.random.Generator, pool: list[np.ndarray], size: int) -> np.ndarray:
    """Draw a random crop of a random photograph, flipped with probability 0.5: (size, size, 3) uint8."""
    photo = pool[rng.integers(len(pool))]
    side = int(rng.integers(min(size, min(photo.shape[:2]) - 1), min(photo.shape[:2])))
    y, x = (int(rng.integers(0, limit - side + 1)) for limit in photo.shape[:2])
    crop = photo[y : y + side, x : x + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return cv2.resize(np.ascontiguousarray(crop), (size, size), interpolation=cv2.INTER_AREA)


def polygon(name: str) -> np.ndarray:
    """Return the corners of a shape in the unit circle, (K, 2)."""
    if name == 'circle':
        angles, radii = np.linspace(0, 2 * np.pi, 96, endpoint=False), 1.0
    elif name == 'square':
        angles, radii = np.pi / 4 + np.arange(4) * np.pi / 2, 1.0
    elif name == 'triangle':
        angles, radii = np.arange(3) * 2 * np.pi / 3, 1.0
    else:  # star
        angles, radii = np.arange(10) * np.pi / 5, np.tile([1.0, 0.45], 5)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def draw_coverage(rng: np.random.Generator, name: str, digits: np.ndarray, side: int) -> np.ndarray:
    """Draw the coverage of each pixel by an object of about ``side`` pixels: float32 in [0, 1], cropped to it."""
    big = side * SUPERSAMPLING
    canvas = np.zeros((big, big), np.uint8)
    if name == 'digit':
        digit = digits[rng.integers(len(digits))].astype(np.float32) / 16
        glyph = cv2.resize(np.pad(digit, 1), (big, big), interpolation=cv2.INTER_CUBIC)
        turn = cv2.getRotationMatrix2D((big / 2, big / 2), rng.uniform(-15, 15), 1.0)
        canvas = (cv2.warpAffine(glyph, turn, (big, big)) >= 0.4).astype(np.uint8)
    else:
        angle = rng.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = polygon(name) @ turn.T * (big / 2 - 1) + big / 2
        cv2.fillPoly(canvas, [np.round(points).astype(np.int32)], 1)
    coverage = cv2.resize(canvas.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    rows, columns = np.flatnonzero(coverage.max(1) >= 0.5), np.flatnonzero(coverage.max(0) >= 0.5)
    return coverage[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def draw_paint(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw a color gradient of one hue, with noise: (height, width, 3) float32 in [0, 255]."""
    hue, saturation = rng.integers(0, 180), rng.integers(110, 256)
    light = np.sort(rng.integers(70, 256, 2))
    ends = np.array([[[hue, saturation, value] for value in light]], np.uint8)
    first, second = cv2.cvtColor(ends, cv2.COLOR_HSV2RGB)[0].astype(np.float32)
    direction = rng.uniform(0, 2 * np.pi)
    ramp = np.cos(direction) * np.linspace(-1, 1, width)[None] + np.sin(direction) * np.linspace(-1, 1, height)[:, None]
    ramp = ((ramp - ramp.min()) / max(np.ptp(ramp), 1e-6))[..., None]
    return np.clip(first * (1 - ramp) + second * ramp + rng.normal(0, 6, (height, width, 1)), 0, 255).astype(np.float32)


def draw_scene(
    rng: np.random.Generator, pool: list[np.ndarray], digits: np.ndarray, options: SceneOptions
) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Draw an image (size, size, 3) RGB uint8 and its objects: class index and visible mask (size, size) bool."""
    size = options.size
    image = draw_background(rng, pool, size).astype(np.float32)
    objects: list[tuple[int, np.ndarray]] = []
    areas: list[int] = []
    wanted = int(rng.integers(1, options.max_objects + 1))
    for _ in range(4 * wanted):  # four tries per object; a crowded scene may get fewer
        if len(objects) == wanted:
            break
        label = int(rng.integers(len(CLASSES)))
        side = int(rng.uniform(0.17, 0.45) * size)
        coverage = draw_coverage(rng, CLASSES[label], digits, side)
        height, width = coverage.shape
        y, x = int(rng.integers(0, size - height + 1)), int(rng.integers(0, size - width + 1))
        window = np.s_[y : y + height, x : x + width]
        mask = np.zeros((size, size), bool)
        mask[window] = coverage >= 0.5
        if any((old & ~mask).sum() < MIN_VISIBLE * area for (_, old), area in zip(objects, areas, strict=True)):
            continue
        alpha = coverage[..., None]
        image[window] = (1 - alpha) * image[window] + alpha * draw_paint(rng, height, width)
        objects = [(old_label, old & ~mask) for old_label, old in objects] + [(label, mask)]
        areas.append(int(mask.sum()))
    return np.round(image).astype(np.uint8), objects


def bounding_box(mask: np.ndarray) -> list[int]:
    """Return x, y, width and height of a mask."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(xs[0]), int(ys[0]), int(xs[-1] - xs[0] + 1), int(ys[-1] - ys[0] + 1)]


def crop_object(image: np.ndarray, box: list[int]) -> np.ndarray:
    """Crop a square around an object, 1.25 times its size and inside the image, resized to CROP_SIDE."""
    x, y, width, height = box
    side = min(int(1.25 * max(width, height)), *image.shape[:2])
    left = int(np.clip(x + width / 2 - side / 2, 0, image.shape[1] - side))
    top = int(np.clip(y + height / 2 - side / 2, 0, image.shape[0] - side))
    return cv2.resize(image[top : top + side, left : left + side], (CROP_SIDE, CROP_SIDE), interpolation=cv2.INTER_AREA)


def save(path: Path, image: np.ndarray) -> None:
    """Write an RGB image or a label map; raises OSError if that fails."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 95]):
        raise OSError(f'could not write {path}: check the free disk space and the permissions')


def write_split(root: Path, split: str, count: int, options: SceneOptions) -> None:
    """Draw one split and write it in the three layouts below ``root``."""
    pool = [load_photo(name) for name in PHOTOS[split]]
    digits = load_digits()[DIGITS[split]]
    coco_dir = root / 'coco' / split
    image_dir = root / 'ade20k' / 'images' / ADE20K[split]
    label_dir = root / 'ade20k' / 'annotations' / ADE20K[split]
    crop_dirs = [root / 'imagenet' / split / name for name in CLASSES]
    for folder in (coco_dir, image_dir, label_dir, *crop_dirs):
        folder.mkdir(parents=True)

    images, annotations = [], []
    for index in tqdm(range(1, count + 1), disable=None):
        # A generator per image, so that an image does not depend on the number of images.
        rng = np.random.default_rng([options.seed, len(split), index])
        image, objects = draw_scene(rng, pool, digits, options)
        stem = f'{index:06d}'
        save(coco_dir / f'{stem}.jpg', image)
        shutil.copyfile(coco_dir / f'{stem}.jpg', image_dir / f'{stem}.jpg')
        images.append(dict(id=index, file_name=f'{stem}.jpg', width=options.size, height=options.size))
        labels = np.zeros(image.shape[:2], np.uint8)
        for number, (label, mask) in enumerate(objects):
            labels[mask] = label + 1
            box = bounding_box(mask)
            code = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index,
                    category_id=label + 1,
                    segmentation=dict(size=code['size'], counts=code['counts'].decode()),
                    area=int(mask.sum()),
                    bbox=box,
                    iscrowd=0,
                )
            )
            save(crop_dirs[label] / f'{stem}_{number}.jpg', crop_object(image, box))
        save(label_dir / f'{stem}.png', labels)

    categories = [dict(id=i, name=name, supercategory='object') for i, name in enumerate(CLASSES, 1)]
    target = root / 'coco' / 'annotations' / f'instances_{split}.json'
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))


def make_scenes(out_dir: Path, options: SceneOptions, force: bool = False) -> bool:
    """Make the folder, unless it is already there.

    The folder is written under a temporary name and renamed when it is complete, so that an interruption does not leave
    an incomplete one.

    Args:
        out_dir: The folder.
        options: What decides its content.
        force: Replace scenes of other options.

    Returns:
        True if scenes were made, False if they were already there.

    Raises:
        FileExistsError: ``out_dir`` holds something else; the message has the remedy.
    """
    manifest = json.dumps(dict(asdict(options), classes=CLASSES), indent=2)
    made_by = out_dir / 'scenes.json'
    if out_dir.exists():
        if made_by.exists() and json.loads(made_by.read_text()) == json.loads(manifest):
            return False
        if not made_by.exists():
            raise FileExistsError(f'{out_dir} exists and was not made by this tool; choose another --out-dir')
        if not force:
            raise FileExistsError(
                f'{out_dir} holds scenes made with other arguments ({made_by}); pass --force to replace them or choose '
                f'another --out-dir'
            )
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir.parent, prefix=f'.{out_dir.name}-') as scratch:
        root = Path(scratch) / 'scenes'
        for split in ('train', 'val'):
            print(f'{split}: {getattr(options, split)} scenes')
            write_split(root, split, getattr(options, split), options)
        (root / 'scenes.json').write_text(manifest)
        if out_dir.exists():
            out_dir.rename(Path(scratch) / 'old')
        root.rename(out_dir)
    return True


def main() -> None:
    """Parse the command line and make the scenes."""
    parser = make_parser(__doc__)
    parser.add_argument('--out-dir', type=Path, default=Path('data/scenes'), help='folder to make (data/scenes)')
    parser.add_argument('--train', type=positive, default=2500, help='training images (2500)')
    parser.add_argument('--val', type=positive, default=150, help='validation images (150)')
    parser.add_argument('--size', type=int, default=192, help='side of an image in pixels, 64 to 400 (192)')
    parser.add_argument('--max-objects', type=positive, default=4, help='maximum number of objects in a scene (4)')
    parser.add_argument('--seed', type=int, default=0, help='seed (0)')
    parser.add_argument('--force', action='store_true', help='replace scenes made with other arguments')
    args = parser.parse_args()
    if not 64 <= args.size <= 400:  # the smallest photograph is 300 pixels high, larger crops only blur
        parser.error(f'--size must be 64 to 400, but got {args.size}')
    options = SceneOptions(args.train, args.val, args.size, args.max_objects, args.seed)
    try:
        made = make_scenes(args.out_dir, options, args.force)
    except FileExistsError as error:
        parser.error(str(error))
    print(f'{args.out_dir}: {"made" if made else "already there, nothing to do"}')


if __name__ == '__main__':
    main()
