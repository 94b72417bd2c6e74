"""From a checkpoint and the names of files to results in a folder."""

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import torch
from mmengine.structures import BaseDataElement
from torch.hub import tqdm  # counts by itself where tqdm is not installed; of the libraries, MMDetection needs it

from mmstvit.checkpoint import to_mmstvit
from mmstvit.datasets.images import UnreadableError
from mmstvit.deployment import is_exported
from mmstvit.errors import UserError
from mmstvit.fileio import safe_loading
from mmstvit.interrupts import Interrupted, Interrupts
from mmstvit.nodes import as_list

from .exported import load_exported_predictor
from .inputs import InputFiles, Source, find_inputs, video_property
from .predictor import Picture, Predictor, load_predictor
from .records import Records
from .results import Classes, Instances, Results, Segments
from .tiles import TiledDetector, TiledSegmentor

_RESULTS: dict[str, type[Results]] = {'mmdet': Instances, 'mmseg': Segments, 'mmpretrain': Classes}
# The file system does not take the name of a file; others may be written.
_NAME_ERRORS = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EILSEQ, errno.EINVAL)


@dataclass
class Summary:
    """Summary of a prediction: what was written and what was skipped.

    Args:
        folder: The folder of the results.
        file: The file of the results in it.
        count: Number of images and frames of videos in the results.
        skipped: Reasons by name, of inputs that could not be used.
        ignored: Number of other files in the folders, by suffix.
        note: Remark on the results, such as that no object has a score that is high enough.
    """

    folder: Path
    file: str = ''
    count: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)
    note: str = ''


def predict(
    checkpoint: str | Path,
    inputs: Sequence[str | Path],
    out_dir: str | Path = 'predictions',
    config: str | Path | None = None,
    score: float | None = None,
    tta: bool = False,
    batch_size: int = 1,
    device: str = 'auto',
    cfg_options: Mapping | None = None,
    trust: bool = False,
    force: bool = False,
    resume: bool = False,
    tile: int | None = None,
    overlap: int | None = None,
) -> Summary:
    """Predict images and videos, and write pictures and results.

    Args:
        checkpoint: Checkpoint file or address, or a file of tools/deployment/export.py.
        inputs: Images, folders, glob patterns and videos.
        out_dir: Folder for the results; new or empty, unless ``force`` or ``resume`` is given.
        config: Config file or name; by default the config in the checkpoint, which is read as data.
        score: Lowest score of instances (0.3 by default) and of classes (0 by default).
        tta: Use test-time augmentation.
        batch_size: Images of equal size that are predicted together.
        device: ``'auto'``, ``'cpu'``, ``'cuda'``, ….
        cfg_options: Settings of the config to override, by dotted key.
        trust: Load checkpoint and config even if that executes code in them.
        force: Remove the results of an earlier run in ``out_dir``, and no other file.
        resume: Go on with an earlier run in ``out_dir``: predict what is missing.
        tile: Predict images in tiles of this side, in pixels of the image; not for classifiers.
        overlap: Pixels that neighboring tiles share; by default a quarter of ``tile``.

    Returns:
        A summary. Inputs that cannot be used are skipped, with the reason.

    Raises:
        UserError: Checkpoint, config or device cannot be used; ``out_dir`` has files; or no input can be used.
        ImportError: The library of the config is missing or too old.
    """
    if overlap is not None and tile is None:
        raise UserError('--overlap is for tiles.', 'Give --tile, too.')
    files = find_inputs([inputs] if isinstance(inputs, (str, Path)) else inputs)
    config = None if config is None else str(config)
    settings = dict(
        checkpoint=_identify(checkpoint),
        config=config,
        score=score,
        tta=tta,
        cfg_options=cfg_options,
        inputs=files.root,
    )
    records = Records(Path(out_dir), settings)
    _check_records(records, force, resume)
    if is_exported(checkpoint):
        given = [('--config', config), ('--cfg-options', cfg_options), ('--tta', tta), ('--device', device != 'auto')]
        if unused := [name for name, value in given if value]:
            raise UserError(f'{checkpoint} holds a model and its pipeline as they are.', f'Omit {", ".join(unused)}.')
        loaded = load_exported_predictor(str(checkpoint), trust)
    else:
        loaded = load_predictor(str(checkpoint), config, cfg_options, tta, device, trust)
    with safe_loading(trust, to_mmstvit), loaded as predictor:
        if score is not None and predictor.scope == 'mmseg':
            raise UserError('--score is for detectors and classifiers; a segmentor gives every pixel its best class.')
        model = predictor if tile is None else _in_tiles(predictor, tile, overlap, batch_size)
        with contextlib.closing(records):
            return _Run(predictor, model, files, records, batch_size, score).run(force)


def _in_tiles(predictor: Predictor, size: int, overlap: int | None, batch_size: int) -> TiledDetector | TiledSegmentor:
    overlap = size // 4 if overlap is None else overlap
    if predictor.scope == 'mmpretrain':
        raise UserError('--tile is for detectors and segmentors; a classifier gives the class of a whole image.')
    if not 0 <= overlap < size:
        raise UserError(f'--overlap must be less than --tile, but they are {overlap} and {size}.')
    if predictor.scope == 'mmseg':
        return TiledSegmentor(predictor, size, overlap)
    return TiledDetector(predictor, size, overlap, batch_size)


def _identify(checkpoint: str | Path) -> list:
    """Return what tells that a checkpoint is the same file as before."""
    path = Path(checkpoint).absolute()
    return [str(path), path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else [str(checkpoint)]


def _check_records(records: Records, force: bool, resume: bool) -> None:
    if not records.found:
        check_out_dir(records.folder)
    elif resume:
        records.check_settings()
    elif not force:
        raise UserError(
            f'{records.folder} holds results.',
            'Predict what is missing with --continue, begin anew with --force (it removes the results, and no other '
            'file), or name another folder with --out-dir.',
        )


def check_out_dir(folder: Path) -> None:
    """Check that a folder for results is new or empty; raises UserError."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(
            f'{folder} exists and is not an empty folder.', 'Name another one with --out-dir, or remove it.'
        )


def skip_reason(error: Exception) -> str:
    """Return the reason for which an input is skipped: the first line of an error."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines() or ['']
    return lines[0] if isinstance(error, (UnreadableError, UserError)) else f'{type(error).__name__}: {lines[0]}'


class _Run:
    """One prediction of many images; the arguments are those of :func:`predict`."""

    def __init__(
        self,
        predictor: Predictor,
        model: Predictor | TiledDetector | TiledSegmentor,
        files: InputFiles,
        records: Records,
        batch_size: int,
        score: float | None,
    ) -> None:
        self.model = model
        self.predictor, self.sources, self.records, self.batch_size = predictor, files.sources, records, batch_size
        kind = _RESULTS[predictor.scope]
        score = score if score is not None else 0.3 if kind is Instances else 0.0
        self.results = kind(records, predictor.classes, predictor.colors, score)
        self.summary = Summary(records.folder, kind.file, skipped=files.faults, ignored=files.ignored)

    def run(self, force: bool) -> Summary:
        summary, done = self.summary, set() if force else self.records.done
        missing = [source for source in self.sources if source.name not in done]
        with self._writing():
            if self.records.found and force:
                if not any(map(self._is_readable, missing)):
                    raise self._nothing()
                self.records.remove()
            elif self.records.found:
                self.records.keep_done()
        self.progress = tqdm(total=len(missing), unit='image', disable=None)
        with self.progress, Interrupts() as interrupts:
            for batch in self._batches(missing):
                self._predict(batch)
                if interrupts.number:
                    break
        with self._writing():
            self.results.end_video(complete=not interrupts.number)
            summary.skipped |= self.results.faults
            self.records.read()
            summary.count = self.records.count
            if summary.count:
                summary.note = self.results.write([source.name for source in self.sources])
        if interrupts.number:
            saved = f'{summary.count} predictions are complete in {summary.folder / summary.file}. To go on: --continue'
            raise Interrupted(interrupts.number, saved if summary.count else 'Nothing was written.')
        if not summary.count:
            raise self._nothing()
        return summary

    def _nothing(self) -> UserError:
        reasons = [f'{name}: {reason}' for name, reason in self.summary.skipped.items()]
        return UserError('no input could be predicted.\n  ' + '\n  '.join([*reasons[:10], '…'][: len(reasons)]))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f'the results cannot be written to {self.records.folder}: {error.strerror}.',
                'What was predicted is kept. Go on with --continue.',
            ) from error

    def _is_readable(self, source: Source) -> bool:
        try:
            return next(self.predictor.read(source), None) is not None
        except UnreadableError as error:
            self.summary.skipped[source.name] = skip_reason(error)
            return False

    def _batches(self, sources: Sequence[Source]) -> Iterator[list[tuple[Picture, dict]]]:
        """Yield neighbors of equal size: larger ones would pad smaller ones, which changes their predictions."""
        batch, size = [], None
        for picture in self._pictures(sources):
            try:
                data = self.model.prepare(picture)
            except Exception as error:  # transforms raise all kinds of errors
                self._skip(picture.name, error)
                continue
            shapes = [view.shape for view in as_list(data['inputs'])]
            if batch and (shapes != size or len(batch) == self.batch_size):
                yield batch
                batch = []
            batch.append((picture, data))
            size = shapes
        if batch:
            yield batch

    def _pictures(self, sources: Sequence[Source]) -> Iterator[Picture]:
        for source in sources:
            try:
                self._expect_frames(source)
                for picture in self.predictor.read(source):
                    if source.name in self.summary.skipped:  # a video that cannot be written
                        break
                    yield picture
            except UnreadableError as error:
                self._skip(source.name, error)

    def _expect_frames(self, source: Source) -> None:
        if source.is_video:
            self.progress.total += max(0, int(video_property(source.path, cv2.CAP_PROP_FRAME_COUNT)) - 1)

    def _predict(self, batch: list[tuple[Picture, dict]]) -> None:
        """Predict and write a batch; if that fails, its images one by one, without those that fail alone."""
        try:
            samples = self.model.predict([data for _, data in batch])
        except Exception as error:  # too many channels, too little memory, …
            if len(batch) == 1:
                self._skip(batch[0][0].name, error)
            for one in batch if len(batch) > 1 else ():
                self._predict([one])
            return
        for (picture, _), sample in zip(batch, samples, strict=True):
            self._write(picture, sample)

    def _write(self, picture: Picture, sample: BaseDataElement) -> None:
        name = picture.source.name
        if name in self.summary.skipped:
            return
        with self._writing():
            try:
                self.results.add(picture, sample)
            except UserError:
                raise
            except Exception as error:  # of the encoders, too
                if isinstance(error, OSError) and error.errno not in _NAME_ERRORS:
                    raise
                self._skip(name, error)
                return
        self.progress.update(1)

    def _skip(self, name: str, error: Exception) -> None:
        self.summary.skipped[name] = skip_reason(error)
        self.progress.update(1)
        if isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
