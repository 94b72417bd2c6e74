"""Choice of the functions that compute super token attention."""

import io
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from mmstvit.ops import backend, cpu, describe, get_backend, naive, select, set_backend, super_token, use_backend

from ..helpers import image

ON_CPU = torch.zeros(1, 4, 4, 2)


@pytest.fixture(autouse=True)
def restored():
    """Every test starts with 'auto' and leaves nothing behind."""
    with use_backend('auto'):
        backend._find_triton_obstacle.cache_clear()
        yield
    backend._find_triton_obstacle.cache_clear()


fused = SimpleNamespace()


class Machine:
    """A machine that looks to the backend as if it had a GPU, or lacked Triton."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.module = SimpleNamespace()
        monkeypatch.delenv('TRITON_INTERPRET', raising=False)
        monkeypatch.setitem(sys.modules, 'mmstvit.ops.triton.operators', self.module)
        monkeypatch.setitem(sys.modules, 'mmstvit.ops.triton.fused', fused)
        monkeypatch.setattr('mmstvit.ops.triton.operators', self.module, raising=False)
        monkeypatch.setattr('mmstvit.ops.triton.fused', fused, raising=False)

    def has(self, capability: tuple[int, int] = (9, 0), triton: bool = True, hip: str | None = None) -> None:
        self.monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda index=None: capability)
        self.monkeypatch.setattr(torch.version, 'hip', hip)
        find = backend.importlib.util.find_spec
        found = {'triton': object() if triton else None}
        self.monkeypatch.setattr(
            backend.importlib.util, 'find_spec', lambda name: found[name] if name in found else find(name)
        )


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(monkeypatch)
    machine.has()
    return machine


def on_gpu(dtype: torch.dtype = torch.float32) -> SimpleNamespace:
    """Return what ``select`` reads of a tensor on a GPU."""
    return SimpleNamespace(device=torch.device('cuda', 0), dtype=dtype)


class TestName:
    def test_unknown_name_changes_nothing(self):
        with pytest.raises(ValueError, match=r"The backend must be one of 'auto', 'torch', .*, but got 'cuda'"):
            set_backend('cuda')
        with pytest.raises(ValueError, match='fast'), use_backend('fast'):
            raise AssertionError('entered')
        assert get_backend() == 'auto'

    def test_use_restores_after_an_error(self):
        with use_backend('torch'):
            with pytest.raises(ZeroDivisionError), use_backend('naive'):
                assert get_backend() == 'naive'
                raise ZeroDivisionError
            assert get_backend() == 'torch'
        assert get_backend() == 'auto'

    def test_environment_variable(self, monkeypatch):
        for value, expected in {'naive': 'naive', '': 'auto'}.items():
            monkeypatch.setattr(backend, '_backend', None)
            monkeypatch.setenv('MMSTVIT_BACKEND', value)
            assert get_backend() == expected
        monkeypatch.setattr(backend, '_backend', None)
        monkeypatch.setenv('MMSTVIT_BACKEND', 'fast')
        with pytest.raises(ValueError, match=r"variable MMSTVIT_BACKEND must be one of 'auto', .*, but got 'fast'"):
            select(ON_CPU)


class TestOnCPU:
    @pytest.mark.parametrize(
        ('name', 'module'), [('auto', cpu), ('cpu', cpu), ('torch', super_token), ('naive', naive)]
    )
    def test_by_name(self, name, module):
        with use_backend(name):
            assert select(ON_CPU) is module

    @pytest.mark.parametrize(
        ('case', 'reason'),
        [
            ('double precision', 'not in torch.float64'),
            ('bf16 not supported', 'no bf16 instructions'),
            ('oneDNN off', 'oneDNN is switched off'),
            ('meta device', "the data are on 'meta'"),
        ],
    )
    def test_where_the_cpu_backend_cannot_run(self, case, reason, monkeypatch):
        x = ON_CPU
        if case == 'double precision':
            x = x.double()
        elif case == 'bf16 not supported':
            x = x.bfloat16()
            monkeypatch.setattr(backend, 'ONEDNN_BF16', False)
        elif case == 'meta device':
            x = x.to('meta')
        enabled = torch.backends.mkldnn.enabled
        torch.backends.mkldnn.enabled = enabled and case != 'oneDNN off'
        try:
            assert select(x) is super_token
            with use_backend('cpu'), pytest.raises(RuntimeError, match=f"'cpu' is set, but.*{reason}.*Use 'auto'"):
                select(x)
        finally:
            torch.backends.mkldnn.enabled = enabled

    def test_auto_never_interprets(self, machine):
        machine.module.INTERPRETED = True
        machine.monkeypatch.setenv('TRITON_INTERPRET', '1')
        assert select(ON_CPU) is cpu
        with use_backend('triton'):
            assert select(ON_CPU) is machine.module


class TestOnGPU:
    @pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
    def test_auto_chooses_triton(self, machine, dtype):
        for name in ('auto', 'triton'):
            with use_backend(name):
                assert select(on_gpu(dtype)) is machine.module
        assert describe('cuda:0', dtype) == "triton (chosen by 'auto')"

    def test_kernels_that_were_never_timed_are_chosen_by_name_alone(self, machine):
        with use_backend('fused'):
            assert select(on_gpu()) is fused
            assert describe('cuda:0') == 'fused (set by name)'
            with pytest.raises(RuntimeError, match=r"'fused' is set, but it computes in torch\.float32"):
                select(on_gpu(torch.float64))

    @pytest.mark.parametrize(
        ('has', 'dtype', 'reason'),
        [
            (dict(capability=(7, 5)), torch.float32, 'compute capability 8.0 or more, and this one has 7.5'),
            (dict(triton=False), torch.float32, r'triton is not installed \(pip install triton\)'),
            (dict(hip='6.2'), torch.float32, 'never been compiled for AMD'),
            (dict(), torch.float64, 'not in torch.float64'),
        ],
        ids=['old GPU', 'no Triton', 'AMD', 'fp64'],
    )
    def test_where_triton_cannot_run(self, machine, has, dtype, reason):
        machine.has(**has)
        assert select(on_gpu(dtype)) is super_token
        with use_backend('triton'), pytest.raises(RuntimeError, match=f"'triton' is set, but.*{reason}.*Use 'auto'"):
            select(on_gpu(dtype))

    def test_triton_for_data_on_the_cpu(self, machine):
        with use_backend('triton'), pytest.raises(RuntimeError, match="needs a CUDA GPU, and the data are on 'cpu'"):
            select(ON_CPU)

    @pytest.mark.filterwarnings('ignore')  # the exporters' own
    @pytest.mark.parametrize(
        'record',
        [
            lambda module: torch.jit.trace(module, ON_CPU, check_trace=False),
            lambda module: torch.onnx.export(module, (ON_CPU,), io.BytesIO(), dynamo=False),
            lambda module: torch.export.export(module, (ON_CPU,), strict=False),
        ],
        ids=['torch.jit.trace', 'torch.onnx.export', 'torch.export'],
    )
    def test_tracing_records_plain_operators(self, machine, record):
        seen = []

        class Module(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                seen.extend([select(on_gpu()), select(ON_CPU), describe('cuda:0')])
                return x + 1

        record(Module())
        assert seen[:3] == [super_token, super_token, "torch (chosen by 'auto'; not triton: a tracer is recording)"]
        assert select(on_gpu()) is machine.module

    @pytest.mark.parametrize('name', ['auto', 'triton', 'fused'])
    def test_compiling_breaks_no_graph(self, machine, monkeypatch, name):
        for module, factor in ((machine.module, 2), (fused, 3)):
            monkeypatch.setattr(module, 'scale', lambda x, factor=factor: factor * x, raising=False)
        data = on_gpu()
        torch._dynamo.reset()
        compiled = torch.compile(lambda x: select(data).scale(x), backend='eager', fullgraph=True)
        with use_backend(name):
            assert compiled(torch.ones(())) == (3 if name == 'fused' else 2)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')
    def test_real_gpu(self):
        x = torch.zeros(1, 4, 4, 2, device='cuda')
        with use_backend('triton'):
            assert select(x).__name__ == 'mmstvit.ops.triton.operators'


def test_describe(machine):
    machine.monkeypatch.setenv('MMSTVIT_CPU_ATTENTION', 'rows')
    assert describe('cpu') == "cpu (chosen by 'auto'; attention at inference: rows)"
    with use_backend('cpu'):
        assert describe('cpu') == 'cpu (set by name; attention at inference: rows)'
    assert describe('cpu', torch.float64).startswith("torch (chosen by 'auto'; not cpu: it computes in")
    with use_backend('naive'):
        assert describe('cpu') == 'naive (set by name)'
    with use_backend('triton'):
        assert describe('cuda:0', torch.float64).startswith('triton (set by name; cannot run: it computes')


def test_all_backends_have_the_same_functions():
    pytest.importorskip('triton', reason='needs Triton')
    from mmstvit.ops.triton import fused, operators

    for module in (super_token, naive, operators, fused):
        assert [name for name in cpu.__all__ if not callable(getattr(module, name))] == []


def test_compiles_without_graph_breaks_and_follows_a_change_of_backend():
    calls = []

    def count(graph, inputs):
        calls.append(sum(node.target is torch.conv2d for node in graph.graph.nodes))
        return graph

    def layer(x: Tensor) -> Tensor:
        tokens, affinity = select(x).sample_super_tokens(x, 2)
        return select(x).upsample_super_tokens(tokens, affinity, x.shape[1:3])

    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend=count)
    x = image(1, 5, 4, 3, dtype=torch.float64)
    expected = layer(x)
    torch.testing.assert_close(compiled(x), expected)
    with use_backend('naive'):
        torch.testing.assert_close(compiled(x), expected)
    torch.testing.assert_close(compiled(x), expected)
    assert len(calls) == 2 and calls[0] == 0 < calls[1]  # compiled once each; the naive one gathers by convolution
