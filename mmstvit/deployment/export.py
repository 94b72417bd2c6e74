"""Export a model to a file of another runtime, and check the file there before it gets its name."""

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from mmstvit.errors import UserError
from mmstvit.fileio import write_all

from .agreement import (
    MIN_OBJECTS,
    TRACED,
    allowed_error,
    choose_sizes,
    compute_references,
    draw_images,
    find_errors,
)
from .formats import FORMATS, OPSET, ExportedFile, Format
from .metadata import PADDED, Metadata, plain_pipeline
from .programs import Classifier, Features, Program, Segmentor


@dataclass
class ExportReport:
    """Report of an export: the file, its input, and its agreement with PyTorch.

    Args:
        path: The file.
        bytes: Its size, with the weights.
        metadata: Its metadata.
        runtime: The runtime in which it was compared with PyTorch.
        input: Sizes of its input, with a word for each dynamic one.
        sizes: Batch, height and width of the images on which it was compared.
        objects: Number of objects among which a detector was compared.
        errors: Largest error of each output.
    """

    path: Path
    bytes: int
    metadata: Metadata
    runtime: str
    input: Sequence[int | str]
    sizes: Sequence[tuple[int, int, int]]
    objects: int
    errors: dict[str, float]


def export(
    model: nn.Module,
    library: str,
    format: str,
    path: Path,
    shape: Sequence[int] | None = None,
    batch: int | None = None,
    classes: Sequence[str] = (),
    palette: Sequence[Sequence[int]] = (),
    pipeline: Sequence[dict] = (),
    features: bool = False,
    probabilities: bool = False,
    opset: int | None = None,
) -> ExportReport:
    """Export a model, and compare the file in its own runtime with the model in PyTorch.

    The file is written under a temporary name, and gets its own if it agrees with the model. A JSON file beside it has
    its metadata. A detector is written with its own threshold of scores; if that is too high for enough objects to be
    compared, first with a lower one.

    Args:
        model: The model in evaluation mode, on the CPU; it is in deploy form afterwards.
        library: Its library, such as ``'mmdet'``.
        format: One of :data:`FORMATS`.
        path: The file; an existing one is replaced.
        shape: Height and width of the images; None for any.
        batch: Images at once, 0 for any number; None for one with a shape and for a detector, else for any number.
        classes: Names of the classes.
        palette: RGB color of each class.
        pipeline: The test pipeline of the config, without annotations.
        features: Export the backbone alone.
        probabilities: Give probabilities instead of logits; for classifiers.
        opset: Version of ONNX's operators; None for :data:`OPSET`.

    Raises:
        UserError: The model or the sizes cannot be exported, a package is missing, or the file disagrees with the
            model. No file is left of the attempt.
    """
    check_suffix(path, format)
    if batch is None:
        batch = 1 if shape or (library == 'mmdet' and not features) else 0
    checks = []
    try:
        program = wrap(model, library, features, probabilities, shape, batch).eval()
        sizes = choose_sizes(shape, batch, program.task in PADDED)
        for score in program.thresholds(draw_images(*sizes[0], seed=0)):
            program.set_threshold(score)
            checks.append((score, compute_references(program, sizes)))
        min_side = 1 if shape else program.min_side()
    except ValueError as error:  # such as STViT's for images below 32×32
        remedy = 'Set --shape H W to a size that it takes.'
        raise UserError(f'the model does not take images of the size for the check: {error}', remedy) from error
    metadata = Metadata(
        program.task,
        library,
        program.outputs,
        classes=[] if features else list(classes),
        palette=[] if features else [list(color) for color in palette],
        pipeline=plain_pipeline(pipeline),
        shape=shape and list(shape),
        min_side=min_side,
        **program.settings,
    )
    program.simplify()
    program.requires_grad_(False)
    inputs = program.inputs(checks[0][1][0][0])
    dynamic = {} if batch else {0: 'batch'}
    dynamic |= {2: 'height', 3: 'width'} if shape is None else {}
    errors, compared = {}, []
    with tempfile.TemporaryDirectory(prefix='mmstvit-') as folder:
        temporary = Path(folder, path.name)
        for score, references in checks:
            program.set_threshold(score)
            text = replace(metadata, score_thr=score).dumps()
            _write(FORMATS[format], program, inputs, dynamic, text, temporary, opset or OPSET)
            file = ExportedFile(temporary)
            new, objects = find_errors(file, references)
            _check_errors(new, file, dynamic)
            compared.append(objects)
            errors = {name: max(error, errors.get(name, 0)) for name, error in new.items()}
        if program.task == 'detection':
            _check_objects(compared[0], metadata.max_per_img * sum(size[0] for size in sizes))
        Path(f'{temporary}.json').write_text(text, encoding='utf-8')
        parts = sorted(Path(folder).iterdir())  # weights before the program that names them
        size = sum(part.stat().st_size for part in parts)
        write_all({path.with_name(part.name): part.read_bytes for part in parts})
    axes = [dynamic.get(axis, length) for axis, length in enumerate(inputs['image'].shape)]
    return ExportReport(path, size, metadata, file.runtime, axes, sizes, compared[0], errors)


def wrap(
    model: nn.Module,
    library: str,
    features: bool = False,
    probabilities: bool = False,
    shape: Sequence[int] | None = None,
    batch: int = 1,
) -> Program:
    """Wrap a model for an exporter.

    Args:
        model: A model of MMDetection, MMSegmentation or MMPreTrain, in evaluation mode.
        library: The library.
        features: Export the backbone alone.
        probabilities: Give probabilities instead of logits; for classifiers.
        shape: Height and width of the images; None for any.
        batch: Images at once, 0 for any number.

    Raises:
        UserError: A model of this kind cannot be exported.
    """
    if features:
        return Features(model, shape, shape or TRACED[1:])
    if library == 'mmpretrain':
        return Classifier(model, shape, probabilities)
    if probabilities:
        raise UserError(f'--probabilities is for classifiers, and {type(model).__name__} is not one.')
    if library == 'mmseg':
        return Segmentor(model, shape)
    if not batch:
        raise UserError('the number of images of a detector is fixed in its file.', 'Set --batch to a number.')
    from .two_stage import TwoStage

    return TwoStage(model, shape, batch)


def check_suffix(path: Path, format: str) -> None:
    """Check that a path has the suffix of a format; raises UserError."""
    kind = FORMATS[format]
    if path.suffix != kind.suffix:
        raise UserError(f'a file for {kind.runtime} must have the suffix {kind.suffix}, but got {path}.')


def _write(format: Format, *args: object) -> None:
    """Write a file; raises UserError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # tracers' about checks of sizes, which are meant to be left out
            format.write(*args)
    except UserError:
        raise
    except Exception as error:  # exporters raise all kinds of errors
        reason = str(error).strip().partition('\n')[0]
        raise UserError(f'the model cannot be exported: {type(error).__name__}: {reason}') from error


def _check_objects(count: int, possible: int) -> None:
    if count < MIN_OBJECTS:
        raise UserError(
            f'only {count} objects could be compared, and {MIN_OBJECTS} are needed to tell whether the file is right. '
            'It was removed.',
            'Set --cfg-options model.test_cfg.rcnn.max_per_img=100'
            if possible < 2 * MIN_OBJECTS
            else 'Use weights after training: without it, all scores are nearly equal.',
        )


def _check_errors(errors: Mapping[str, float], file: ExportedFile, dynamic: Mapping[int, str]) -> None:
    wrong = [f'{name} by {error:.2g}' for name, error in errors.items() if not error <= allowed_error(name)]
    if wrong:
        raise UserError(
            f'the file disagrees in {file.runtime} with the model in PyTorch: {", ".join(wrong)}. It was removed.',
            'Fix the size of the images with --shape H W.' if 2 in dynamic else '',
        )
