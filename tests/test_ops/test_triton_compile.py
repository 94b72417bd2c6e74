"""Every kernel as the operators launch it, compiled for real GPUs; this needs no GPU."""

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip('triton', minversion='3.3', reason='needs Triton 3.3')  # as in torch 2.7

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mmstvit.ops.triton import fused
from mmstvit.ops.triton import operators as ops

PTXAS = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin' / 'ptxas'
pytestmark = [
    pytest.mark.skipif(ops.INTERPRETED, reason='the interpreter compiles nothing'),
    pytest.mark.skipif(not PTXAS.exists(), reason=f'needs {PTXAS}'),
]

TYPES = {torch.float32: 'fp32', torch.float16: 'fp16', torch.bfloat16: 'bf16'}


@dataclass
class Launch:
    """A kernel with the arguments of a launch, as Triton specializes them."""

    kernel: Any
    signature: dict[str, str] = field(default_factory=dict)
    constants: dict[str, object] = field(default_factory=dict)
    attributes: dict[tuple[int], list] = field(default_factory=dict)
    options: dict[str, int] = field(default_factory=dict)

    def add(self, index: int, value: object) -> None:
        parameter = self.kernel.params[index]
        aligned = False
        if parameter.is_constexpr or value is None:
            kind = 'constexpr'
            self.constants[parameter.name] = value
        elif isinstance(value, torch.Tensor):
            kind, aligned = f'*{TYPES[value.dtype]}', True
        elif isinstance(value, float):
            kind = 'fp32'
        else:
            assert value > 1
            kind, aligned = 'i32', value % 16 == 0 and not parameter.do_not_specialize
        self.signature[parameter.name] = kind
        if aligned:
            self.attributes[(index,)] = [['tt.divisibility', 16]]

    def compile(self, chip: int):
        source = ASTSource(self.kernel, self.signature, self.constants, self.attributes)
        return triton.compile(source, target=GPUTarget('cuda', chip, 32), options=self.options)


def record_launches(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """Return a list of all launches from now on; nothing runs."""
    found: list[Launch] = []

    def record(kernel, *args, grid, warmup, num_warps=4, num_stages=3, **kwargs):
        launch = Launch(kernel, options=dict(num_warps=num_warps, num_stages=num_stages))
        names = [parameter.name for parameter in kernel.params]
        for index, name in enumerate(names):
            launch.add(index, args[index] if index < len(args) else kwargs[name])
        assert set(kwargs) <= set(names)
        found.append(launch)

    monkeypatch.setattr(triton.JITFunction, 'run', record)
    return found


def launches(c: int, s: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> dict[str, Launch]:
    """Return all launches of a layer's forward and backward pass."""
    found = record_launches(monkeypatch)
    x = torch.empty(2, 2 * s + 1, 3 * s, c, dtype=dtype)
    tokens, affinity, _ = torch.ops.mmstvit.sample_super_tokens(x, s, 1)
    torch.ops.mmstvit.upsample_super_tokens(tokens, affinity, *x.shape[1:3])
    torch.ops.mmstvit.aggregate(x, affinity)
    names = ['mean', 'associate', 'fold', 'upsample', 'aggregate', 'fold without normalizer']
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize(
    ('chip', 'c', 's', 'dtype'),
    [
        (90, 96, 8, torch.bfloat16),
        # A cell in several tiles, channels that do not fill a block.
        pytest.param(90, 40, 9, torch.float32, marks=pytest.mark.long),
        pytest.param(80, 128, 4, torch.float16, marks=pytest.mark.long),
        pytest.param(120, 96, 8, torch.float32, marks=pytest.mark.long),
    ],
)
def test_compiles(chip, c, s, dtype, tmp_path, monkeypatch):
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    for name, launch in launches(c, s, dtype, monkeypatch).items():
        compiled = launch.compile(chip)
        assert compiled.asm['cubin']
        assert 'tf32' not in compiled.asm['ptx'], name
        multiplies = name in ('associate', 'aggregate', 'upsample')
        assert ('mma' in compiled.asm['ptx']) == (multiplies and dtype != torch.float32), f'{name}: tensor cores'


def resources(cubin: bytes, folder: Path) -> dict[str, int]:
    """Return the registers, and the bytes of spilled ones, of a compiled kernel."""
    (folder / 'kernel.cubin').write_bytes(cubin)
    command = [PTXAS.with_name('cuobjdump'), '-res-usage', folder / 'kernel.cubin']
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(number) for name, number in re.findall(r'(REG|STACK|LOCAL):(\d+)', text)}


@pytest.mark.parametrize(
    ('chip', 'c', 'side', 'dtype'),
    [
        (90, 64, 56, torch.bfloat16),
        pytest.param(90, 512, 7, torch.float16, marks=pytest.mark.long),
        pytest.param(90, 640, 7, torch.float32, marks=pytest.mark.long),
        pytest.param(80, 320, 14, torch.bfloat16, marks=pytest.mark.long),
    ],
)
def test_fused_kernels_spill_no_registers(chip, c, side, dtype, tmp_path, monkeypatch):
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))

    def learned(*size: int) -> Tensor:
        return torch.empty(size, dtype=dtype, requires_grad=True)

    found = record_launches(monkeypatch)
    x, hidden = learned(2, side, side, c), 4 * c
    embed = learned(c, 1, 3, 3), learned(c), learned(c), learned(c), 1e-6
    scales = torch.empty(c, requires_grad=True), torch.empty(2)
    linears = (learned(hidden, c), learned(hidden)), (learned(c, hidden), learned(c))
    ffn = *linears[0], learned(hidden, 1, 3, 3), learned(hidden), *linears[1]
    outputs = [*fused.residual_dwconv_norm(x, *embed), fused.add_branch(x, x, *scales), fused.conv_ffn(x, *ffn)]
    torch.autograd.backward(outputs, [torch.empty_like(y) for y in outputs])
    names = {launch.kernel.__name__ for launch in found}
    assert len(names) == 6
    for launch in found:
        used = resources(launch.compile(chip).asm['cubin'], tmp_path)
        assert used['STACK'] == used['LOCAL'] == 0, f'{launch.kernel.__name__}: {used}'
