"""Predict an image with an exported ONNX file, by NumPy, OpenCV and ONNX Runtime alone.

This file needs neither mmstvit nor PyTorch: copy it to where the model runs, with ``model.onnx`` and
``model.onnx.json``::

    python standalone.py model.onnx photo.jpg

Letters: n objects · K classes · H, W the image's sides · h, w those of a smaller map.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np

INTERPOLATIONS = {
    'nearest': cv2.INTER_NEAREST,
    'bilinear': cv2.INTER_LINEAR,
    'bicubic': cv2.INTER_CUBIC,
    'area': cv2.INTER_AREA,
    'lanczos': cv2.INTER_LANCZOS4,
}


def read_metadata(model: str) -> dict:
    """Read the JSON file beside an ONNX file."""
    return json.loads(Path(f'{model}.json').read_text(encoding='utf-8'))


def resize_image(image: np.ndarray, width: float, height: float, step: dict) -> np.ndarray:
    """Resize an image as a step of a pipeline does."""
    size, kind = (int(width), int(height)), step.get('interpolation', 'bilinear')
    if step.get('backend') != 'pillow':
        return cv2.resize(image, size, interpolation=INTERPOLATIONS[kind])
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling[kind.upper()]))


def run_pipeline(image: np.ndarray, pipeline: list[dict]) -> np.ndarray:
    """Resize and crop a decoded image, (H, W, 3), as the test pipeline of its config does.

    Raises:
        ValueError: A step is none of those that are written down here.
    """
    for step in pipeline:
        name, (height, width) = step['type'].rpartition('.')[2], image.shape[:2]
        if name == 'Resize' and step.get('keep_ratio'):
            long, short = max(step['scale']), min(step['scale'])
            factor = min(long / max(height, width), short / min(height, width))
            image = resize_image(image, width * factor + 0.5, height * factor + 0.5, step)
        elif name == 'Resize' and 'scale' in step:
            scale = step['scale']
            image = resize_image(image, *((scale, scale) if isinstance(scale, int) else scale), step)
        elif name == 'ResizeEdge':
            by_width = (width < height) == (step.get('edge', 'short') == 'short')
            factor = step['scale'] / (width if by_width else height)
            image = resize_image(image, width * factor + 1e-6, height * factor + 1e-6, step)
        elif name == 'CenterCrop':
            size = step['crop_size']
            across, down = (size, size) if isinstance(size, int) else size
            top, left = max(0, round((height - down) / 2)), max(0, round((width - across) / 2))
            image = image[top : top + down, left : left + across]
        elif not name.startswith(('Load', 'Pack')):
            raise ValueError(f'the step {name} of the test pipeline is unknown here; write it down in run_pipeline()')
    return image


def fit(image: np.ndarray, shape: list[int]) -> np.ndarray:
    """Reduce an image, (H, W, 3), that is larger than the height and width of a file."""
    height, width = image.shape[:2]
    factor = min(shape[0] / height, shape[1] / width)
    if factor >= 1:
        return image
    size = min(round(width * factor), shape[1]), min(round(height * factor), shape[0])
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def normalize(image: np.ndarray, meta: dict) -> np.ndarray:
    """Prepare an image in the order blue, green, red, (H, W, 3), for the input of a file, (3, H, W) float32."""
    image = image[:, :, ::-1] if meta['color_order'] == 'RGB' else image
    return ((image - np.float32(meta['mean'])) / np.float32(meta['std'])).transpose(2, 0, 1)


def pad_to(images: np.ndarray, shape: list[int], value: float) -> np.ndarray:
    """Pad images, (B, 3, h, w), at the right and the bottom to a height and width."""
    sides = [(0, full - side) for full, side in zip(shape, images.shape[2:], strict=True)]
    return np.pad(images, [(0, 0), (0, 0), *sides], constant_values=value)


def paste_masks(masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Paste masks of boxes into the image.

    Args:
        masks: Probability of the object at a grid of points in each box, (n, rows, columns).
        boxes: Boxes x1, y1, x2, y2 in pixels of the image, (n, 4).
        size: Height and width of the image.

    Returns:
        Probability of the object at each pixel, (n, height, width); it falls to 0 within half a cell outside the box.
    """

    def weights(spans: np.ndarray, length: int, count: int) -> np.ndarray:
        """Return the weights of ``count`` points of a grid for each pixel of a side, (n, length, count)."""
        start, end = spans.astype(np.float32)[:, :, None].transpose(1, 0, 2)  # (n, 1)
        pixels = np.arange(length, dtype=np.float32) + 0.5
        position = (pixels - start) / np.maximum(end - start, 1e-6) * count - 0.5  # (n, length)
        return np.maximum(1 - abs(position[:, :, None] - np.arange(count, dtype=np.float32)), 0)

    # Bilinear interpolation is a product with one matrix for the rows and one for the columns.
    down, across = weights(boxes[:, 1::2], size[0], masks.shape[1]), weights(boxes[:, 0::2], size[1], masks.shape[2])
    return down @ masks @ across.transpose(0, 2, 1)


def resize_logits(logits: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Resize logits with bilinear interpolation as PyTorch does: (K, h, w) -> (K, H, W)."""
    for axis, length in enumerate(size, start=1):
        count = logits.shape[axis]
        if align_corners:
            position = np.linspace(0, count - 1, length)
        else:
            position = np.clip((np.arange(length) + 0.5) * count / length - 0.5, 0, count - 1)
        low = np.minimum(position.astype(int), max(count - 2, 0))
        share = (position - low).astype(np.float32).reshape((-1, 1) if axis == 1 else (-1,))
        high = np.minimum(low + 1, count - 1)
        logits = logits.take(low, axis) * (1 - share) + logits.take(high, axis) * share
    return logits


def predict(model: str, photo: str) -> dict[str, np.ndarray]:
    """Predict an image.

    Args:
        model: An ONNX file; the JSON file of the same name lies beside it.
        photo: An image file.

    Returns:
        ``probabilities`` (K) of a classifier, the ``labels`` (H, W) of a segmentor, or the ``boxes`` (n, 4) in pixels
        of the photo, ``scores`` (n), ``labels`` (n) and ``masks`` (n, H, W) of a detector.

    Raises:
        FileNotFoundError: A file does not exist.
        ValueError: The photo cannot be read, or the file is not for images of its size.
    """
    import onnxruntime

    for file in (model, f'{model}.json', photo):
        if not Path(file).is_file():
            raise FileNotFoundError(f'{file} does not exist')
    if b'location' in Path(model).read_bytes():
        raise ValueError(f'{model} may have weights in other files (external data); mmstvit predicts with it if not')
    meta = read_metadata(model)
    original = cv2.imread(photo)
    if original is None:
        raise ValueError(f'{photo} is not an image that OpenCV reads')
    image, shape = run_pipeline(original, meta['pipeline']), meta['shape']
    pads = shape and meta['task'] in ('detection', 'segmentation')
    image = fit(image, shape) if pads else image
    height, width = image.shape[:2]
    if min(height, width) < meta['min_side']:
        raise ValueError(f'the model needs {meta["min_side"]} pixels on each side, but got {height}×{width}')
    if shape and not pads and [height, width] != shape:
        raise ValueError(f'the model takes {shape[0]}×{shape[1]} pixels, but the test pipeline made {height}×{width}')
    inputs = {'image': normalize(image, meta)[None]}
    if pads:
        inputs['image'] = pad_to(inputs['image'], shape, meta['pad_value'])
    if pads and meta['task'] == 'detection':
        inputs['valid'] = np.array([[height, width]], np.float32)
    session = onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider'])
    count = session.get_inputs()[0].shape[0]
    if isinstance(count, int):  # a file for several images at once gets the photo several times
        inputs = {name: np.repeat(value, count, axis=0) for name, value in inputs.items()}
    outputs = dict(zip(meta['outputs'], session.run(None, inputs), strict=True))
    size = original.shape[:2]
    if meta['task'] == 'classification':
        (name, (values, *_)), *_ = outputs.items()
        exponents = np.exp(values - values.max())
        return {'probabilities': values if name == 'probabilities' else exponents / exponents.sum()}
    if meta['task'] == 'segmentation':
        logits = outputs['logits'][0, :, :height, :width]
        return {'labels': resize_logits(logits, size, meta['align_corners']).argmax(axis=0)}
    images = outputs.pop('images', np.zeros_like(outputs['labels']))
    outputs = {name: values[images == 0] for name, values in outputs.items()}
    scale = np.divide(size, (height, width), dtype=np.float32)[::-1]
    outputs['boxes'] = outputs['boxes'] * np.tile(scale, 2)
    if 'masks' in outputs:
        outputs['masks'] = paste_masks(outputs['masks'], outputs['boxes'], size) >= meta['mask_threshold']
    return outputs


def main() -> None:
    """Print the prediction of the command line, a line of JSON for each class or object."""
    if len(sys.argv) != 3 or not sys.argv[1].endswith('.onnx'):
        sys.exit('usage: python standalone.py model.onnx photo.jpg')
    model, photo = sys.argv[1:]
    try:
        found, names = predict(model, photo), read_metadata(model)['classes']
    except (OSError, ValueError) as error:
        sys.exit(f'error: {error}')
    if 'boxes' in found:
        for box, score, label in zip(found['boxes'], found['scores'], found['labels'], strict=True):
            print(json.dumps({'class': names[label], 'score': float(score), 'box': box.tolist()}, ensure_ascii=False))
    else:
        shares = found['probabilities'] if 'probabilities' in found else np.bincount(found['labels'].ravel())
        for label in np.argsort(-shares):
            print(json.dumps({'class': names[label], 'share': float(shares[label] / shares.sum())}, ensure_ascii=False))


if __name__ == '__main__':
    main()
