"""From a checkpoint and the names of files to results in a folder."""

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.structures import BaseDataElement
from torch.hub import tqdm  # counts by itself where tqdm is not installed; of the libraries, MMDetection needs it

from mmstvit.checkpoint import to_mmstvit
from mmstvit.datasets.images import UnreadableError
from mmstvit.deployment import is_exported
from mmstvit.engine.runner.processes import leave_process_group, on_main_process
from mmstvit.errors import UserError
from mmstvit.fileio import safe_loading
from mmstvit.interrupts import Interrupted, Interrupts
from mmstvit.nodes import as_list

from .exported import load_exported_predictor
from .inputs import InputFiles, Source, find_inputs, video_property
from .predictor import Picture, Predictor, load_predictor
from .records import Records
from .results import Classes, Instances, Results, Segments
from .sharing import in_all_processes, join_processes, read_ahead
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
    check_score(score)
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
    with join_processes(), contextlib.ExitStack() as stack:
        records = in_all_processes(lambda: _open_records(stack, Path(out_dir), settings, force, resume))
        stack.enter_context(safe_loading(trust, to_mmstvit))
        options = (config, cfg_options, tta, device, trust)
        predictor = in_all_processes(lambda: stack.enter_context(_load(checkpoint, *options)))
        run = in_all_processes(lambda: _Run(predictor, files, records, batch_size, score, tile, overlap))
        return run.run(force)


def check_score(score: float | None) -> None:
    """Check that the lowest score of a prediction, if one is given, is between 0 and 1; raises UserError."""
    if score is not None and not 0 <= score <= 1:
        remedy = f'Did you mean {score / 100:g}?' if 1 < score <= 100 else ''
        raise UserError(f'a score is between 0 and 1, but got {score:g}.', remedy)


def _load(
    checkpoint: str | Path, config: str | None, cfg_options: Mapping | None, tta: bool, device: str, trust: bool
) -> contextlib.AbstractContextManager[Predictor]:
    if not is_exported(checkpoint):
        return load_predictor(str(checkpoint), config, cfg_options, tta, device, trust)
    given = [('--config', config), ('--cfg-options', cfg_options), ('--tta', tta), ('--device', device != 'auto')]
    if unused := [name for name, value in given if value]:
        raise UserError(f'{checkpoint} holds a model and its pipeline as they are.', f'Omit {", ".join(unused)}.')
    return load_exported_predictor(str(checkpoint), trust)


def _in_tiles(
    predictor: Predictor, size: int | None, overlap: int | None, batch_size: int
) -> Predictor | TiledDetector | TiledSegmentor:
    if size is None:
        if overlap is not None:
            raise UserError('--overlap is for tiles.', 'Give --tile, too.')
        return predictor
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


def _open_records(stack: contextlib.ExitStack, folder: Path, settings: Mapping, force: bool, resume: bool) -> Records:
    records = Records(folder, settings, get_rank())
    stack.callback(records.close)
    records.read()
    if records.found and resume:
        records.check_settings()
    elif records.found and not force:
        raise UserError(
            f'{records.folder} holds results.',
            'Predict what is missing with --continue, begin anew with --force (it removes the results, and no other '
            'file), or name another folder with --out-dir.',
        )
    return records


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
        files: InputFiles,
        records: Records,
        batch_size: int,
        score: float | None,
        tile: int | None,
        overlap: int | None,
    ) -> None:
        if score is not None and predictor.scope == 'mmseg':
            raise UserError('--score is for detectors and classifiers; a segmentor gives every pixel its best class.')
        self.model = _in_tiles(predictor, tile, overlap, batch_size)
        self.predictor, self.sources, self.records, self.batch_size = predictor, files.sources, records, batch_size
        kind = _RESULTS[predictor.scope]
        score = score if score is not None else 0.3 if kind is Instances else 0.0
        self.summary = Summary(records.folder, kind.file, skipped=files.faults, ignored=files.ignored)
        self.results = kind(records, predictor.classes, predictor.colors, score, self.summary.skipped)

    def run(self, force: bool) -> Summary:
        done = set() if force else self.records.done
        self._continued = bool(done)
        missing = [source for source in self.sources if source.name not in done]
        share = missing[get_rank() :: get_world_size()]
        main = is_main_process()
        self.progress = tqdm(total=len(share), unit='image', disable=None if main else True)
        with self.progress, Interrupts() as self.interrupts:
            on_main_process(lambda: self._prepare_folder(missing, force))
            in_all_processes(lambda: self._predict_all(share))
            numbers, skipped = zip(*all_gather_object((self.interrupts.number, self.summary.skipped)), strict=True)
            self.summary.skipped = {name: reason for part in skipped for name, reason in part.items()}
            on_main_process(self._write_results)
            self.summary = summary = all_gather_object(self.summary)[0]
        if number := max(numbers):
            leave_process_group()
            saved = f'{summary.count} predictions are complete in {summary.folder / summary.file}. To go on: --continue'
            raise Interrupted(number, '' if not main else saved if summary.count else 'Nothing was written.')
        in_all_processes(self._check_count)
        return summary

    def _prepare_folder(self, missing: Sequence[Source], force: bool) -> None:
        with self._writing():
            if self.records.found and force:
                if not any(map(self._is_readable, missing)):
                    self._check_count()
                self.records.remove()
            elif self.records.found:
                self.records.keep_done()

    def _predict_all(self, sources: Sequence[Source]) -> None:
        for batch in self._batches(sources):
            self._predict(batch)
            if self.interrupts.number:
                break
        self.results.end_video(complete=not self.interrupts.number)

    def _write_results(self) -> None:
        with self._writing():
            self.records.read()
            self.summary.count = self.records.count
            for source in self.sources:
                self.summary.skipped |= self.records.done.get(source.name, {})
            if self.summary.count:
                self.summary.note = self._compose([source.name for source in self.sources])

    def _compose(self, names: Sequence[str]) -> str:
        try:
            return self.results.write(names)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            if not self._continued:  # what this run wrote is sound
                raise
            raise UserError(
                f'the records in {self.records.folder} are damaged ({type(error).__name__}: {error}).',
                'Begin anew with --force.',
            ) from error

    def _check_count(self) -> None:
        if not self.summary.count:
            reasons = [f'{name}: {reason}' for name, reason in self.summary.skipped.items()]
            raise UserError('no input could be predicted.\n  ' + '\n  '.join([*reasons[:10], '…'][: len(reasons)]))

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
        for picture, data in read_ahead(self._prepared(sources)):
            shapes = [view.shape for view in as_list(data['inputs'])]
            if batch and (shapes != size or len(batch) == self.batch_size):
                yield batch
                batch = []
            batch.append((picture, data))
            size = shapes
        if batch:
            yield batch

    def _prepared(self, sources: Sequence[Source]) -> Iterator[tuple[Picture, dict]]:
        for picture in self._pictures(sources):
            try:
                data = self.model.prepare(picture)
            except Exception as error:  # transforms raise all kinds of errors
                self._skip(picture.name, error)
                continue
            yield picture, data

    def _pictures(self, sources: Sequence[Source]) -> Iterator[Picture]:
        for source in sources:
            try:
                expected, count = self._expect_frames(source), 0
                for count, picture in enumerate(self.predictor.read(source), 1):  # noqa: B007 (used below)
                    if source.name in self.summary.skipped:  # a video that cannot be written
                        break
                    yield picture
                else:
                    if count < 0.9 * expected:  # of some formats, the number is an estimate
                        reason = f'the video ends here, but its header says that it has {expected} frames'
                        self.summary.skipped[f'{source.name}/{count:06}'] = reason
            except UnreadableError as error:
                self._skip(source.name, error)

    def _expect_frames(self, source: Source) -> int:
        count = int(video_property(source.path, cv2.CAP_PROP_FRAME_COUNT)) if source.is_video else 1
        self.progress.total += max(0, count - 1)
        return count

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
