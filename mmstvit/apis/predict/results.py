"""Files of results: COCO JSON for instances, maps with a legend for segments, a CSV file for classes."""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, TextIO

import cv2
import numpy as np
from mmengine.structures import BaseDataElement

from mmstvit.datasets.images import UnreadableError
from mmstvit.drawing import Color, draw_sample, read_classes, read_map, read_objects
from mmstvit.drawing.predictions import TOP
from mmstvit.errors import UserError, one_line
from mmstvit.fileio import open_new, partial_path

from .inputs import Source, video_property
from .predictor import Picture
from .records import Records

_LONGEST_JPEG = 65_500  # OpenCV's encoder
# The sign of a formula, also as a wide character, at the start of a cell or after the separator of many languages;
# white space and characters without a width may stand before it.
_FORMULA = re.compile(r'((?:^|;)[\s\ufeff\u200b-\u200f\u2060]*)([=+\-@＝＋－＠])')


class Results:
    """Results of one kind in a folder.

    Args:
        records: Records of the folder.
        classes: Names of the classes.
        colors: RGB color of each class.
        score: Lowest score that is kept.
        skipped: Reasons by name, of what is skipped; videos that were not written completely are added.
    """

    wanted: ClassVar[str]  # attribute of a prediction
    file: ClassVar[str]

    def __init__(
        self, records: Records, classes: list[str], colors: list[Color], score: float, skipped: dict[str, str]
    ) -> None:
        self.records, self.classes, self.colors, self.score, self.skipped = records, classes, colors, score, skipped
        self._video: Video | None = None

    def add(self, picture: Picture, sample: BaseDataElement) -> None:
        """Write the prediction of an image, and draw it.

        Raises:
            UserError: The model predicts something else.
            UnreadableError: It cannot be drawn.
            OSError: It cannot be written.
        """
        if self.wanted not in sample:
            raise UserError(
                f'The model does not predict {self.wanted}, which predict.py needs; it has {sample.keys()}.'
            )
        source = picture.source
        result, images = self._read(picture, sample)
        drawn = draw_sample(picture.rgb, sample, self.classes, self.colors, score=self.score)
        drawn = cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)
        if not source.is_video:
            if max(drawn.shape) > _LONGEST_JPEG:
                raise UnreadableError(f'its side of {max(drawn.shape)} pixels is too long for a JPEG ({_LONGEST_JPEG})')
            images[f'pictures/{source.stem}.jpg'] = drawn
        elif self._video is None or self._video.source != source:
            self.end_video()
            self.records.claim(source.name, [f'pictures/{source.stem}.mp4'])
            self._video = Video(source, self.records.folder / f'pictures/{source.stem}.mp4', drawn)
        if images:
            self.records.claim(source.name, images)
        for name, image in images.items():
            write_image(self.records.folder / name, image)
        if source.is_video:
            self._video.add(drawn)
        self.records.add(source.name, result)
        if not source.is_video:
            self.records.finish(source.name, {})

    def end_video(self, complete: bool = True) -> None:
        """Close the video that is written; ``complete``: all of its frames are in it."""
        if self._video is not None:
            video, self._video = self._video, None
            if not video.close():
                self.skipped[video.source.name] = 'not all frames could be written to its video'
            elif complete:
                skipped = dict(self.skipped)  # a thread that reads ahead may add to it
                frames = {name: why for name, why in skipped.items() if name.startswith(f'{video.source.name}/')}
                self.records.finish(video.source.name, frames)

    def write(self, names: Sequence[str]) -> str:
        """Write the file of all results from the records, in the order of these names of inputs; returns a remark."""
        try:
            self.records.claim('', [self.file])
        except UnreadableError as error:
            raise UserError(f'{error}.', 'Move it away, and go on with --continue.') from error
        target = self.records.folder / self.file
        partial = partial_path(target)
        with io.TextIOWrapper(open_new(partial), encoding='utf-8', newline='') as stream:
            note = self._compose(stream, self.records.results(names))
        partial.replace(target)
        return note

    def _read(self, picture: Picture, sample: BaseDataElement) -> tuple[dict, dict[str, np.ndarray]]:
        """Return what is recorded of a prediction, and its images to write by name."""
        raise NotImplementedError

    def _compose(self, stream: TextIO, results: Iterable[dict]) -> str:
        """Write the content of the file; returns a remark on the results, or an empty string."""
        raise NotImplementedError


class Instances(Results):
    """A COCO data set of the predicted objects, with ``score``, boxes in pixels, and masks as RLE.

    Category ids are 1, 2, … in the order of the classes.
    """

    wanted, file = 'pred_instances', 'predictions.json'

    def _read(self, picture: Picture, sample: BaseDataElement) -> tuple[dict, dict[str, np.ndarray]]:
        found, objects = read_objects(sample.pred_instances, self.score), []
        for i, label in enumerate(found.labels):
            x1, y1, x2, y2 = found.boxes[i].tolist()
            entry = dict(
                category_id=label + 1,
                bbox=[round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                area=round((x2 - x1) * (y2 - y1), 2),
                iscrowd=0,
                score=round(found.scores[i], 6),
            )
            objects.append(entry if found.masks is None else entry | _encode(found.masks[i]))
        height, width = picture.image.shape[:2]
        image = dict(file_name=picture.name, width=width, height=height)
        best = max(sample.pred_instances.scores.tolist(), default=0.0)
        return dict(image=image, objects=objects, best=best), {}

    def _compose(self, stream: TextIO, results: Iterable[dict]) -> str:
        images, count, best = [], 0, 0.0
        categories = [dict(id=i, name=name) for i, name in enumerate(self.classes, 1)]
        stream.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [')
        for result in results:
            images.append(dict(id=len(images) + 1, **result['image']))
            best = max(best, result['best'])
            for entry in result['objects']:
                count += 1
                line = json.dumps(dict(id=count, image_id=len(images), **entry))
                stream.write((',\n' if count > 1 else '\n') + line)
        stream.write(f'],\n"images": {json.dumps(images)}}}\n')
        return '' if count else f'no object has a score of {self.score} or more: the highest is {best:.3f}'


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

    def _read(self, picture: Picture, sample: BaseDataElement) -> tuple[dict, dict[str, np.ndarray]]:
        labels = read_map(sample.pred_sem_seg)
        stem = picture.name if picture.source.is_video else picture.source.stem
        values = labels.astype(np.uint8 if len(self.classes) <= 256 else np.uint16)
        return {}, {f'maps/{stem}.png': values}

    def _compose(self, stream: TextIO, results: Iterable[dict]) -> str:
        rows = csv.writer(stream)
        rows.writerow(['id', 'name', 'color'])
        for i, (name, color) in enumerate(zip(self.classes, self.colors, strict=True)):
            rows.writerow([i, text_cell(name), '#{:02x}{:02x}{:02x}'.format(*color)])
        return ''


class Classes(Results):
    """A table with a row per image: the file, then the best classes with their scores."""

    wanted, file = 'pred_score', 'predictions.csv'

    def _read(self, picture: Picture, sample: BaseDataElement) -> tuple[dict, dict[str, np.ndarray]]:
        best = [(name, score) for name, score in read_classes(sample, self.classes) if score >= self.score]
        cells = [cell for name, score in best for cell in (name, round(score, 6))]
        return dict(cells=[picture.name, *cells]), {}

    def _compose(self, stream: TextIO, results: Iterable[dict]) -> str:
        rows = csv.writer(stream)
        count = min(TOP, len(self.classes))
        header = [f'{name}{i}' for i in ('', *(f'_{i}' for i in range(2, count + 1))) for name in ('class', 'score')]
        rows.writerow(['file', *header])
        for result in results:
            rows.writerow([text_cell(cell) if isinstance(cell, str) else cell for cell in result['cells']])
        return ''


class Video:
    """A video (MP4) that is written frame by frame.

    Args:
        source: The video whose frames are predicted.
        path: The file to write.
        frame: The first frame.

    Raises:
        UnreadableError: The encoder does not take it.
    """

    def __init__(self, source: Source, path: Path, frame: np.ndarray) -> None:
        self.source, self._path, self._count = source, path, 0
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # OpenCV would write into the target of a link, and wait for the reader of a pipe
        rate, size = video_property(source.path, cv2.CAP_PROP_FPS) or 25, frame.shape[1::-1]
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), rate, size)
        if not self._writer.isOpened():
            path.unlink(missing_ok=True)
            raise UnreadableError(
                f'no video (MP4) of {size[0]} × {size[1]} pixels with {rate:g} frames per second can be written'
            )

    def add(self, frame: np.ndarray) -> None:
        """Write a frame; OpenCV does not say if it could not."""
        self._writer.write(frame)
        self._count += 1

    def close(self) -> bool:
        """Complete the file; returns True if it has all frames."""
        self._writer.release()
        return self._path.exists() and video_property(self._path, cv2.CAP_PROP_FRAME_COUNT) == self._count


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image (BGR or one channel) in the format of its suffix; raises OSError, as on a full disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_new(path) as file:
        file.write(cv2.imencode(path.suffix, image)[1].tobytes())
