"""Files of ONNX and OpenVINO: write a program, load it in its own runtime."""

import hashlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from defusedxml import ElementTree
from torch import Tensor

from mmstvit.errors import UserError
from mmstvit.fileio import read_file

from .metadata import KEY, Metadata
from .programs import Program
from .standalone import pad_to

_DIGEST = f'{KEY}_weights'  # of the weights, in the metadata of OpenVINO's files
OPSET = 17  # the default: has LayerNormalization, and RoIAlign with half_pixel

Loaded = tuple[Callable[[dict[str, np.ndarray]], Sequence[np.ndarray]], str | None, Sequence]


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Args:
        suffix: Suffix of its files.
        runtime: Name of its runtime.
        write: A function that writes a program. It takes the program, its inputs with the sizes that are fixed, names
            of the dynamic axes of the image, the text of the metadata, the path, and the version of ONNX's operators.
        load: A function that loads a file, with as many threads as PyTorch has. It returns the program as a function of
            its inputs, the text of the metadata or None, and the sizes of the image, integers unless they are dynamic.
    """

    suffix: str
    runtime: str
    write: Callable[[Program, dict[str, Tensor], dict[int, str], str, Path, int], None]
    load: Callable[[Path], Loaded]


class ExportedFile:
    """An exported file, loaded in its own runtime.

    Args:
        path: The file.

    Attributes:
        metadata: Its metadata.
        shape: Sizes of the input, (B, C, H, W); None for a dynamic one.

    Raises:
        UserError: It does not exist, has another suffix, cannot be loaded, or has no metadata.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        formats = {format.suffix: format for format in FORMATS.values()}
        if self.path.suffix not in formats:
            raise UserError(
                f'{path} is not an exported file (expected one of {", ".join(formats)}).',
                'Test a checkpoint with tools/test.py.' if self.path.suffix == '.pth' else '',
            )
        if not self.path.is_file():
            raise UserError(f'{path} does not exist.')
        self.runtime = formats[self.path.suffix].runtime
        try:
            self._call, text, shape = formats[self.path.suffix].load(self.path)
        except UserError:
            raise
        except Exception as error:  # each runtime has its own errors
            lines = str(error).strip().splitlines() or [type(error).__name__]
            reason = lines[-1 if self.runtime == 'openvino' else 0]  # OpenVINO begins with the places in its source
            raise UserError(f'{path} cannot be loaded by {self.runtime}: {reason}') from error
        self.shape = tuple(size if isinstance(size, int) else None for size in shape)
        self.metadata = Metadata.loads(text, path)
        if self.metadata.shape and self.shape[2:] != tuple(self.metadata.shape):
            raise UserError(f'{path} takes other images than its metadata say.', 'Export the model again.')

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run the program.

        Args:
            images: Prepared images, (B, 3, H, W). More than the file takes at once are run in turn. For a detector or
                segmentor of a fixed size they are padded.

        Returns:
            The outputs by name, those of a segmentor without the padding; of a detector also ``images``, the image of
            each object.

        Raises:
            UserError: The file is for images of another size, or its metadata are not those of its program.
        """
        meta, (height, width) = self.metadata, images.shape[2:]
        if min(height, width) < meta.min_side:
            raise UserError(
                f'{self.path} takes {meta.min_side}×{meta.min_side} or more pixels, but got one of {height}×{width}.',
                'Enlarge the image.',
            )
        count, batch = len(images), self.shape[0] or len(images)
        if missing := -count % batch:
            images = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        inputs = {}
        if meta.pads and height <= meta.shape[0] and width <= meta.shape[1]:
            images = pad_to(images, meta.shape, meta.pad_value)
            if meta.task == 'detection':
                inputs['valid'] = np.tile(np.float32([height, width]), (batch, 1))
        for fixed, size in zip(self.shape[1:], images.shape[1:], strict=True):
            if fixed not in (None, size):
                expected, got = ('×'.join(map(str, shape)) for shape in (self.shape[2:], images.shape[2:]))
                raise UserError(
                    f'{self.path} takes images of {expected.replace("None", "any")}, but got one of {got}.',
                    'Export it with --dynamic, or with --shape H W for this size.',
                )
        images = np.ascontiguousarray(images, np.float32)
        parts = [self._run(images[i : i + batch], inputs, i) for i in range(0, count, batch)]
        outputs = parts[0]
        if len(parts) > 1:
            outputs = {name: np.concatenate([part[name] for part in parts]) for name in outputs}
        if meta.task == 'detection':
            return {name: values[outputs['images'] < count] for name, values in outputs.items()}
        if meta.task == 'segmentation':
            return {name: values[:count, :, :height, :width] for name, values in outputs.items()}
        return {name: values[:count] for name, values in outputs.items()}

    def _run(self, images: np.ndarray, inputs: dict[str, np.ndarray], first: int) -> dict[str, np.ndarray]:
        """Run the program once; ``first`` is the number of the first image."""
        values, names = self._call({'image': images, **inputs}), self.metadata.outputs
        if len(values) != len(names):
            raise UserError(
                f'{self.path} has {len(values)} outputs, but its metadata name {len(names)}.', 'Export the model again.'
            )
        outputs = dict(zip(names, values, strict=True))
        if self.metadata.task == 'detection':
            outputs['images'] = outputs.get('images', np.zeros_like(outputs['labels'])) + first
            if len({len(values) for values in outputs.values()}) > 1:  # as NaN makes them
                raise UserError(f'the outputs of {self.path} have different numbers of objects.', 'Export it again.')
        return outputs


def _write_onnx(
    program: Program, inputs: dict[str, Tensor], dynamic: dict[int, str], text: str, path: Path, opset: int
) -> None:
    """Write the program as TorchScript's exporter traces it, which keeps dynamic sizes, and simplify its graph."""
    onnx, onnxslim = _import('onnx'), _import('onnxslim')
    # An axis of an output is dynamic if that of the input is; the number of objects always is.
    known = {'batch': 0 in dynamic, 'objects': True}
    axes = {
        output: {axis: name for axis, name in names.items() if known.get(name, 2 in dynamic)}
        for output, names in program.axes.items()
    }
    torch.onnx.export(
        program,
        tuple(inputs.values()),
        str(path),
        dynamo=False,  # needs no onnxscript; deprecated, but there in torch 2.14
        opset_version=opset,
        input_names=list(inputs),
        output_names=list(program.outputs),
        dynamic_axes={'image': dynamic, **axes},
    )
    model = onnxslim.slim(onnx.load(path))
    model.metadata_props.add(key=KEY, value=text)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _load_onnx(path: Path) -> Loaded:
    onnxruntime = _import('onnxruntime')
    content = read_file(path)
    # A weight may be a part of any other file, or an address in memory: onnxruntime would read it.
    if b'location' in content and _has_outer_data(_import('onnx').load_model_from_string(content)):
        raise UserError(
            f'{path} has weights in other files (external data).', 'Save it as one file with the package onnx.'
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # its log has the names of the file as they are
    session = onnxruntime.InferenceSession(content, options, providers=['CPUExecutionProvider'])
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    return lambda inputs: session.run(None, inputs), text, session.get_inputs()[0].shape


def _has_outer_data(message: object) -> bool:
    """Return True if a tensor anywhere in a message of ONNX has its data in another file."""
    if message.DESCRIPTOR.name == 'TensorProto':
        return message.data_location == message.EXTERNAL or bool(message.external_data)
    fields = [value for field, value in message.ListFields() if field.message_type]
    return any(
        _has_outer_data(part) for value in fields for part in ([value] if hasattr(value, 'DESCRIPTOR') else value)
    )


def _write_openvino(
    program: Program, inputs: dict[str, Tensor], dynamic: dict[int, str], text: str, path: Path, opset: int
) -> None:
    """Let OpenVINO convert the file of ONNX; its weights go to a second file of the suffix ``.bin``."""
    openvino = _import('openvino')
    onnx = path.with_suffix('.onnx')
    _write_onnx(program, inputs, dynamic, text, onnx, opset)
    model = openvino.Core().read_model(onnx)
    model.set_rt_info(text, [KEY])
    for _ in range(2):  # the second time with the digest of the weights
        openvino.save_model(model, path, compress_to_fp16=False)  # True by default, which rounds the weights
        model.set_rt_info(_digest(path.with_suffix('.bin')), [_DIGEST])
    del model  # holds the file
    onnx.unlink()


def _load_openvino(path: Path) -> Loaded:
    weights = path.with_suffix('.bin')
    if not weights.is_file():
        raise UserError(f'{weights}, the weights of {path}, does not exist.', 'Copy both files.')
    # The weights may be a link to any other file of the user's, whose bytes predictions would show.
    noted = ElementTree.fromstring(read_file(path)).find(f'rt_info/{_DIGEST}')
    if noted is None or noted.get('value') != _digest(weights):
        raise UserError(
            f'{weights} is not the file that was exported with {path}.', 'Copy both files, or export the model again.'
        )
    openvino = _import('openvino')
    model = openvino.Core().read_model(path)
    # On processors with bf16 instructions OpenVINO would compute in bf16.
    options = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': torch.get_num_threads()}
    compiled = openvino.compile_model(model, 'CPU', options)
    text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
    shape = [size.get_length() if size.is_static else None for size in model.input(0).partial_shape]
    return lambda inputs: [np.array(output) for output in compiled(inputs).values()], text, shape


def _digest(path: Path) -> str:
    return hashlib.sha256(read_file(path)).hexdigest()


FORMATS = {
    'onnx': Format('.onnx', 'onnxruntime', _write_onnx, _load_onnx),
    'openvino': Format('.xml', 'openvino', _write_openvino, _load_openvino),
}


def is_exported(path: str | Path) -> bool:
    """Return True if a path has the suffix of an exported file."""
    return Path(path).suffix in [format.suffix for format in FORMATS.values()]


def _import(name: str) -> ModuleType:
    """Import an optional package; raises UserError."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f'the package {name} cannot be imported ({error}).',
            f'Run: pip install {name}, or pip install mmstvit[export]',
        ) from error
