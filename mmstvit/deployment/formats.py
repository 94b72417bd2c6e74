"""Files of ONNX, OpenVINO and torch.export: write a program, load it in its own runtime."""

import contextlib
import importlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import torch

from mmstvit.errors import UserError

from .metadata import KEY, Metadata
from .wrappers import Exportable

OPSET = 17  # has LayerNormalization, and RoiAlign with half_pixel


def require(name: str) -> ModuleType:
    """Import an optional package; raises UserError."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f'the package {name} cannot be imported ({error}).',
            f'Run: pip install {name}, or pip install mmstvit[export]',
        ) from error


class ExportedFile(ABC):
    """An exported file, loaded in its own runtime.

    Args:
        path: The file.

    Attributes:
        metadata: Its metadata.
        shape: Sizes of the input, (B, C, H, W); None for a dynamic one.
    """

    suffix: ClassVar[str]
    runtime: ClassVar[str]
    metadata: Metadata
    shape: tuple[int | None, ...]

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text, self.shape = self.load(path)
        except UserError:
            raise
        except Exception as error:  # each runtime has its own errors
            lines = str(error).strip().splitlines() or [type(error).__name__]
            reason = lines[-1 if self.runtime == 'openvino' else 0]  # OpenVINO begins with the places in its source
            raise UserError(f'{path} cannot be loaded by {self.runtime}: {reason}') from error
        self.metadata = Metadata.loads(text, path)

    @classmethod
    @abstractmethod
    def write(
        cls, program: Exportable, example: torch.Tensor, dynamic: dict[int, str], metadata: Metadata, path: Path
    ) -> None:
        """Write a program with its metadata.

        Args:
            program: The program.
            example: An input, with the sizes that are fixed.
            dynamic: Names of the dynamic axes of the input.
            metadata: The metadata.
            path: The file.
        """

    @abstractmethod
    def load(self, path: Path) -> tuple[str | None, Sequence[int | None]]:
        """Load the file with as many threads as PyTorch has; return its metadata and the sizes of its input."""

    @abstractmethod
    def call(self, images: np.ndarray) -> list[np.ndarray]:
        """Run the program once."""

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run the program.

        Args:
            images: Prepared images, (B, 3, H, W). More than the file takes at once are run in turn.

        Returns:
            The outputs by name.

        Raises:
            UserError: The file is for images of another size, or its metadata are not those of its program.
        """
        for fixed, size in zip(self.shape[1:], images.shape[1:], strict=True):
            if fixed not in (None, size):
                expected, got = ('×'.join(map(str, shape)) for shape in (self.shape[2:], images.shape[2:]))
                raise UserError(
                    f'{self.path} takes images of {expected.replace("None", "any")}, but got one of {got}.',
                    'Export it with --dynamic, or with --shape H W for this size.',
                )
        images = np.ascontiguousarray(images, np.float32)
        count, batch = len(images), self.shape[0] or len(images)
        missing = -count % batch
        images = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images
        outputs = zip(*(self.call(images[i : i + batch]) for i in range(0, count, batch)), strict=True)
        values = [parts[0] if count == batch else np.concatenate(parts)[:count] for parts in outputs]
        if len(values) != len(self.metadata.outputs):
            raise UserError(
                f'{self.path} has {len(values)} outputs, but its metadata name {len(self.metadata.outputs)}.',
                'Export the model again.',
            )
        return dict(zip(self.metadata.outputs, values, strict=True))


class OnnxFile(ExportedFile):
    """A file of ONNX, run by onnxruntime."""

    suffix = '.onnx'
    runtime = 'onnxruntime'

    @classmethod
    def write(
        cls, program: Exportable, example: torch.Tensor, dynamic: dict[int, str], metadata: Metadata, path: Path
    ) -> None:
        """Write the program as TorchScript's exporter traces it, which keeps dynamic sizes."""
        onnx = require('onnx')
        axes = {'image': dynamic, **{name: _axes(names, dynamic) for name, names in program.axes.items()}}
        with _quiet():
            # The exporter with dynamo=True writes a fixed batch where a dynamic one was asked for, without an error.
            torch.onnx.export(
                program,
                (example,),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=['image'],
                output_names=list(program.outputs),
                dynamic_axes=axes,
            )
        model = onnx.load(path)
        model.metadata_props.add(key=KEY, value=metadata.dumps())
        onnx.checker.check_model(model)
        onnx.save(model, path)

    def load(self, path: Path) -> tuple[str | None, Sequence[int | None]]:
        """Load the file with as many threads as PyTorch has; return its metadata and the sizes of its input."""
        onnxruntime = require('onnxruntime')
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        self.session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
        shape = self.session.get_inputs()[0].shape
        text = self.session.get_modelmeta().custom_metadata_map.get(KEY)
        return text, tuple(size if isinstance(size, int) else None for size in shape)

    def call(self, images: np.ndarray) -> list[np.ndarray]:
        """Run the program once."""
        return self.session.run(None, {'image': images})


class OpenVinoFile(ExportedFile):
    """A file of OpenVINO, with its weights in a second file of the suffix ``.bin``."""

    suffix = '.xml'
    runtime = 'openvino'

    @classmethod
    def write(
        cls, program: Exportable, example: torch.Tensor, dynamic: dict[int, str], metadata: Metadata, path: Path
    ) -> None:
        """Convert what :class:`OnnxFile` writes."""
        openvino = require('openvino')
        onnx = path.with_suffix('.onnx')
        OnnxFile.write(program, example, dynamic, metadata, onnx)
        model = openvino.Core().read_model(onnx)
        model.set_rt_info(metadata.dumps(), [KEY])
        openvino.save_model(model, path, compress_to_fp16=False)  # True by default, which rounds the weights
        del model  # holds the file
        onnx.unlink()

    def load(self, path: Path) -> tuple[str | None, Sequence[int | None]]:
        """Load the file with as many threads as PyTorch has; return its metadata and the sizes of its input."""
        weights = path.with_suffix('.bin')
        if not weights.is_file():
            raise UserError(f'{weights}, the weights of {path}, does not exist.', 'Copy both files.')
        openvino = require('openvino')
        core = openvino.Core()
        model = core.read_model(path)
        text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
        # On processors with bf16 instructions OpenVINO would compute in bf16.
        options = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': torch.get_num_threads()}
        self.model = core.compile_model(model, 'CPU', options)
        sizes = model.input(0).partial_shape
        return text, tuple(size.get_length() if size.is_static else None for size in sizes)

    def call(self, images: np.ndarray) -> list[np.ndarray]:
        """Run the program once."""
        return [np.array(output) for output in self.model(images).values()]


class TorchExportFile(ExportedFile):
    """A file of torch.export."""

    suffix = '.pt2'
    runtime = 'torch.export'

    @classmethod
    def write(
        cls, program: Exportable, example: torch.Tensor, dynamic: dict[int, str], metadata: Metadata, path: Path
    ) -> None:
        """Write the program; its height and width are fixed."""
        dims = {axis: torch.export.Dim.DYNAMIC for axis in dynamic}
        with _quiet():
            exported = torch.export.export(program, (example,), dynamic_shapes=(dims,), strict=False)
            torch.export.save(exported, path, extra_files={f'{KEY}.json': metadata.dumps()})

    def load(self, path: Path) -> tuple[str | None, Sequence[int | None]]:
        """Load the file; return its metadata and the sizes of its input."""
        files = {f'{KEY}.json': ''}
        with _quiet():
            exported = torch.export.load(path, extra_files=files)
            self.module = exported.module()
        name = exported.graph_signature.user_inputs[0]
        value = next(node.meta['val'] for node in exported.graph.nodes if node.name == name)
        return files[f'{KEY}.json'] or None, tuple(size if isinstance(size, int) else None for size in value.shape)

    @torch.no_grad()
    def call(self, images: np.ndarray) -> list[np.ndarray]:
        """Run the program once."""
        return [output.numpy() for output in self.module(torch.from_numpy(images))]


FORMATS: dict[str, type[ExportedFile]] = {
    'onnx': OnnxFile,
    'openvino': OpenVinoFile,
    'torch-export': TorchExportFile,
}


def is_exported(path: str | Path) -> bool:
    """Return True if a path has the suffix of an exported file."""
    return Path(path).suffix in [kind.suffix for kind in FORMATS.values()]


def load_exported(path: str | Path, trust: bool = False) -> ExportedFile:
    """Load an exported file.

    Args:
        path: The file.
        trust: Load it even if it could execute code.

    Raises:
        UserError: It does not exist, has another suffix, cannot be loaded, has no metadata, or could execute code.
    """
    path = Path(path)
    kinds = {kind.suffix: kind for kind in FORMATS.values()}
    if path.suffix not in kinds:
        raise UserError(
            f'{path} is not an exported file (expected one of {", ".join(kinds)}).',
            'Test a checkpoint with tools/test.py.' if path.suffix == '.pth' else '',
        )
    if not path.is_file():
        raise UserError(f'{path} does not exist.')
    if path.suffix == TorchExportFile.suffix and not trust:
        raise UserError(
            f'Refusing to load {path}: torch.export.load reads pickles, which can execute code. Nothing was executed.',
            'Use a file of ONNX or OpenVINO, or pass --trust-checkpoint if you trust the source.',
        )
    return kinds[path.suffix](path)


def _axes(names: dict[int, str], dynamic: dict[int, str]) -> dict[int, str]:
    """Return the axes of an output that are dynamic if those of the input are."""
    whole = 2 in dynamic
    return {axis: name for axis, name in names.items() if name == 'objects' or (0 in dynamic if axis == 0 else whole)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide warnings of tracers about checks of sizes, which are meant to be left out, and about deprecations."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield
