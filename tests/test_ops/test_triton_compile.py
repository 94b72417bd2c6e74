"""Every kernel as the operators launch it, compiled for real GPUs, which takes no GPU: what the machine code needs."""

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from mmstvit.arch import ARCHS

pytest.importorskip('triton', reason='needs Triton')

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mmstvit.ops.triton import operators as ops

TOOLS = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin'
pytestmark = [
    pytest.mark.skipif(ops.INTERPRETED, reason='the interpreter compiles nothing'),
    pytest.mark.skipif(
        not (TOOLS / 'ptxas').exists() or not (TOOLS / 'cuobjdump').exists(),
        reason=f'needs ptxas and cuobjdump in {TOOLS}',
    ),
]

# compute capability -> registers and bytes of shared memory of a multiprocessor
CHIPS = {80: (65536, 164 << 10), 90: (65536, 228 << 10), 120: (65536, 100 << 10)}
RESERVED = 1 << 10  # bytes of shared memory that the system takes per block
# channels and cell sizes of the stages with super tokens, of every architecture
STAGES = sorted(
    {(c, s) for arch in ARCHS.values() for c, s in zip(arch.channels, arch.stoken_size, strict=True) if s > 1}
)
# 16 bytes per thread, as an instruction for Nvidia GPUs
WIDE_READ = r'(ld\.global\S*\.v4\.b32|cp\.async\.cg\.shared\.global)'
WIDE_WRITE = r'st\.global\S*\.v4\.b32'
TYPES = {torch.float32: 'fp32', torch.float16: 'fp16', torch.bfloat16: 'bf16'}


@dataclass
class Launch:
    """A kernel with the arguments of a launch, as Triton specialises them."""

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


def launches(c: int, s: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> dict[str, Launch]:
    """All launches of a layer's forward and backward pass; nothing runs."""
    found: list[Launch] = []

    def record(kernel, *args, grid, warmup, num_warps=4, num_stages=3, **kwargs):
        launch = Launch(kernel, options=dict(num_warps=num_warps, num_stages=num_stages))
        names = [parameter.name for parameter in kernel.params]
        for index, name in enumerate(names):
            launch.add(index, args[index] if index < len(args) else kwargs[name])
        assert set(kwargs) <= set(names)
        found.append(launch)

    monkeypatch.setattr(triton.JITFunction, 'run', record)
    x = torch.empty(2, 2 * s + 1, 3 * s, c, dtype=dtype)
    tokens, affinity, _ = torch.ops.mmstvit.sample_super_tokens(x, s, 1)
    torch.ops.mmstvit.upsample_super_tokens(tokens, affinity, *x.shape[1:3])
    torch.ops.mmstvit.aggregate(x, affinity)
    names = ['mean', 'associate', 'fold', 'upsample', 'aggregate', 'fold without normaliser']
    return dict(zip(names, found, strict=True))


def resources(cubin: bytes, folder: Path) -> dict[str, int]:
    """Registers a thread, and bytes of stack: what did not fit into registers."""
    (folder / 'kernel.cubin').write_bytes(cubin)
    command = [TOOLS / 'cuobjdump', '--dump-resource-usage', folder / 'kernel.cubin']
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in re.findall(r'\b(REG|STACK|LOCAL):(\d+)', text)}


def check(c: int, s: int, dtype: torch.dtype, chip: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TRITON_CACHE_DIR', str(folder / 'cache'))
    registers, shared = CHIPS[chip]
    for name, launch in launches(c, s, dtype, monkeypatch).items():
        compiled = launch.compile(chip)
        where = f'{name} of {c} channels, cells of {s}×{s}, {dtype}, for {chip}'
        use = resources(compiled.asm['cubin'], folder)
        assert set(use) == {'REG', 'STACK', 'LOCAL'}, where
        # ptxas now and then parks an address or a counter, eight registers at most; a tile that does not fit takes KB.
        assert use['STACK'] <= 32 and use['LOCAL'] == 0, f'{where}: spills, {use}'
        per_tile = use['REG'] * 32 * launch.options['num_warps']
        assert 4 * per_tile <= registers, f'{where}: {use} leave no four tiles per multiprocessor'
        assert 4 * (compiled.metadata.shared + RESERVED) <= shared, f'{where}: {compiled.metadata.shared} bytes'
        ptx = compiled.asm['ptx']
        assert 'tf32' not in ptx, where
        # Upsampling writes the map and reads little else, the others read it.
        assert re.search(WIDE_WRITE if name == 'upsample' else WIDE_READ, ptx), f'{where}: no 16 bytes at a time'
        multiplies = name in ('associate', 'aggregate', 'upsample')
        assert bool(re.search(r'mma', ptx)) == (multiplies and dtype != torch.float32), f'{where}: tensor cores'


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(('c', 's'), [(96, 8), (192, 4)])
def test_base(c, s, dtype, tmp_path, monkeypatch):
    check(c, s, dtype, 90, tmp_path, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize('chip', CHIPS)
@pytest.mark.parametrize('dtype', TYPES)
@pytest.mark.parametrize(('c', 's'), STAGES)
def test_every_architecture(c, s, dtype, chip, tmp_path, monkeypatch):
    check(c, s, dtype, chip, tmp_path, monkeypatch)


@pytest.mark.parametrize('dtype', TYPES)
def test_other_sizes_compile(dtype, tmp_path, monkeypatch):
    """A cell in several tiles, channels that are no multiple of a block."""
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path / 'cache'))
    for launch in launches(40, 9, dtype, monkeypatch).values():
        assert launch.compile(90).asm['cubin']
