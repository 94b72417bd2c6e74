"""Files of results: COCO JSON for instances, maps with a legend for segments, a CSV file for classes."""

import csv
import json
import re
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from mmengine.structures import BaseDataElement

from mmstvit.drawing import Color, draw_classes, draw_map, draw_objects, read_classes, read_map, read_objects
from mmstvit.drawing.predictions import TOP
from mmstvit.errors import UserError, one_line
from mmstvit.fileio import mark_results

from .inputs import video_property
from .predictor import Picture

# The sign of a formula, also as a wide character, at the start of a cell or after the separator of many languages;
# white space and characters without a width may stand before it.
_FORMULA = re.compile(r'((?:^|;)[\s\ufeff\u200b-\u200f\u2060]*)([=+\-@＝＋－＠])')


class Results:
    """Results of one kind in a folder. Files that grow are named ``*.partial`` until :meth:`close`.

    Args:
        folder: The folder; made if needed.
        classes: Names of the classes.
        colors: RGB color of each class.
        score: Lowest score that is kept.
    """

    wanted: ClassVar[str]  # attribute of a prediction
    file: ClassVar[str]

    def __init__(self, folder: Path, classes: list[str], colors: list[Color], score: float) -> None:
        self.folder, self.classes, self.colors, self.score = folder, classes, colors, score
        mark_results(folder)
        self._partial = folder / f'{self.file}.partial'
        self._stream = open(self._partial, 'w', encoding='utf-8', newline='')  # noqa: SIM115
        self._video: tuple[Path, cv2.VideoWriter] | None = None

    def add(self, picture: Picture, sample: BaseDataElement) -> None:
        """Write the prediction of an image, and draw it."""
        if self.wanted not in sample:
            raise UserError(
                f'The model does not predict {self.wanted}, which predict.py needs; it has {sample.keys()}.'
            )
        drawn = self._write(picture, sample)
        drawn = cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)
        if picture.source.is_video:
            self._add_frame(picture, drawn)
        else:
            write_image(self.folder / 'pictures' / f'{picture.source.stem}.jpg', drawn)

    def _write(self, picture: Picture, sample: BaseDataElement) -> np.ndarray:
        """Write the prediction; returns the drawn picture in RGB."""
        raise NotImplementedError

    def _add_frame(self, picture: Picture, drawn: np.ndarray) -> None:
        target = self.folder / 'pictures' / f'{picture.source.stem}.mp4'
        if self._video is None or self._video[0] != target:
            self._close_video()
            target.parent.mkdir(parents=True, exist_ok=True)
            rate = video_property(picture.source.path, cv2.CAP_PROP_FPS) or 25
            size = drawn.shape[1], drawn.shape[0]
            self._video = target, cv2.VideoWriter(str(target), cv2.VideoWriter_fourcc(*'mp4v'), rate, size)
        self._video[1].write(drawn)

    def _close_video(self) -> None:
        if self._video is not None:
            self._video[1].release()
            self._video = None

    @property
    def note(self) -> str:
        """Remark on the results; empty if there is none."""
        return ''

    def close(self) -> None:
        """Complete the files."""
        self._close_video()
        self._stream.close()
        self._partial.rename(self.folder / self.file)


class Instances(Results):
    """A COCO data set of the predicted objects, with ``score``, boxes in pixels, and masks as RLE.

    Category ids are 1, 2, … in the order of the classes.
    """

    wanted, file = 'pred_instances', 'predictions.json'

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self._images: list[dict] = []
        self._count, self._best = 0, 0.0
        categories = [dict(id=i, name=name) for i, name in enumerate(self.classes, 1)]
        self._stream.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [')

    def _write(self, picture: Picture, sample: BaseDataElement) -> np.ndarray:
        self._best = max([self._best, *sample.pred_instances.scores.tolist()])
        found = read_objects(sample.pred_instances, self.score)
        height, width = picture.image.shape[:2]
        self._images.append(dict(id=len(self._images) + 1, file_name=picture.name, width=width, height=height))
        for i, label in enumerate(found.labels):
            self._count += 1
            x1, y1, x2, y2 = found.boxes[i].tolist()
            entry = dict(
                id=self._count,
                image_id=len(self._images),
                category_id=label + 1,
                bbox=[round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                area=round((x2 - x1) * (y2 - y1), 2),
                iscrowd=0,
                score=round(found.scores[i], 6),
            )
            if found.masks is not None:
                entry |= _encode(found.masks[i])
            self._stream.write((',\n' if self._count > 1 else '\n') + json.dumps(entry))
        return draw_objects(picture.rgb, found, self.classes, self.colors)

    @property
    def note(self) -> str:
        """Reason if there is no object at all."""
        return '' if self._count else f'no object has a score of {self.score} or more: the highest is {self._best:.3f}'

    def close(self) -> None:
        """Complete the files."""
        self._stream.write(f'],\n"images": {json.dumps(self._images)}}}\n')
        super().close()


def _encode(mask: np.ndarray) -> dict:
    """Return a mask as COCO's RLE, and its area."""
    from pycocotools import mask as coco  # comes with MMDetection

    rle = coco.encode(np.asfortranarray(mask, np.uint8))
    size = [int(side) for side in rle['size']]
    return dict(segmentation=dict(size=size, counts=rle['counts'].decode()), area=int(coco.area(rle)))


def text_cell(name: str) -> str:
    """Return a name as a cell of a CSV file, on one line; ``'`` keeps a spreadsheet from executing it as a formula."""
    return _FORMULA.sub(r"\1'\2", one_line(name))


class Segments(Results):
    """Maps as PNG files, whose values are the ids in ``legend.csv``: 0, 1, … in the order of the classes."""

    wanted, file = 'pred_sem_seg', 'legend.csv'

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        rows = csv.writer(self._stream)
        rows.writerow(['id', 'name', 'color'])
        for i, (name, color) in enumerate(zip(self.classes, self.colors, strict=True)):
            rows.writerow([i, text_cell(name), '#{:02x}{:02x}{:02x}'.format(*color)])

    def _write(self, picture: Picture, sample: BaseDataElement) -> np.ndarray:
        labels = read_map(sample.pred_sem_seg)
        stem = picture.name if picture.source.is_video else picture.source.stem
        write_image(
            self.folder / 'maps' / f'{stem}.png', labels.astype(np.uint8 if len(self.classes) <= 256 else np.uint16)
        )
        return draw_map(picture.rgb, labels, self.classes, self.colors)


class Classes(Results):
    """A table with a row per image: the file, then the best classes with their scores."""

    wanted, file = 'pred_score', 'predictions.csv'

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self._rows = csv.writer(self._stream)
        count = min(TOP, len(self.classes))
        header = [f'{name}{i}' for i in ('', *(f'_{i}' for i in range(2, count + 1))) for name in ('class', 'score')]
        self._rows.writerow(['file', *header])

    def _write(self, picture: Picture, sample: BaseDataElement) -> np.ndarray:
        best = [(name, score) for name, score in read_classes(sample, self.classes) if score >= self.score]
        cells = (cell for name, score in best for cell in (text_cell(name), round(score, 6)))
        self._rows.writerow([text_cell(picture.name), *cells])
        return draw_classes(picture.rgb, [f'{name} {score:.2f}' for name, score in best])


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image (BGR or one channel) in the format of its suffix; raises OSError, as on a full disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
