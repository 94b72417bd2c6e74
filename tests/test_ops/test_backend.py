"""Which functions stand behind super token attention."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from mmstvit.ops import backend, describe, get_backend, naive, select, set_backend, super_token, use_backend

from ..helpers import ROOT, image, run_python

ON_CPU = torch.zeros(1, 4, 4, 2)


@pytest.fixture(autouse=True)
def restored():
    """Every test starts with 'auto' and leaves nothing behind."""
    with use_backend('auto'):
        backend._find_obstacle.cache_clear()
        yield
    backend._find_obstacle.cache_clear()


class Machine:
    """A machine that looks to the backend as if it had a GPU, or lacked Triton."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.module = SimpleNamespace()
        monkeypatch.delenv('TRITON_INTERPRET', raising=False)
        monkeypatch.setitem(sys.modules, 'mmstvit.ops.triton', self.module)
        monkeypatch.setattr('mmstvit.ops.triton', self.module, raising=False)

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
    """What ``select`` reads of a tensor on a GPU."""
    return SimpleNamespace(device=torch.device('cuda', 0), dtype=dtype)


class TestName:
    def test_set_and_get(self):
        for name in backend.BACKENDS:
            set_backend(name)
            assert get_backend() == name

    def test_unknown(self):
        with pytest.raises(ValueError, match=r"The backend must be one of 'auto', 'torch', .*, but got 'cuda'"):
            set_backend('cuda')
        assert get_backend() == 'auto'

    def test_use_restores_after_an_error(self):
        with use_backend('torch'):
            with pytest.raises(ZeroDivisionError), use_backend('naive'):
                assert get_backend() == 'naive'
                raise ZeroDivisionError
            assert get_backend() == 'torch'
        assert get_backend() == 'auto'

    def test_use_of_an_unknown_name_changes_nothing(self):
        with pytest.raises(ValueError, match='fast'), use_backend('fast'):
            raise AssertionError('entered')
        assert get_backend() == 'auto'


class TestEnvironment:
    def test_sets_the_name_at_import(self, monkeypatch):
        monkeypatch.setenv('MMSTVIT_BACKEND', 'naive')
        done = run_python('from mmstvit.ops import get_backend; print(get_backend())', ROOT)
        assert done.stdout.split() == ['naive'], done.stderr

    @pytest.mark.parametrize(('value', 'expected'), [('torch', 'torch'), ('', 'auto'), (None, 'auto')])
    def test_values(self, value, expected, monkeypatch):
        monkeypatch.delenv('MMSTVIT_BACKEND', raising=False)
        if value is not None:
            monkeypatch.setenv('MMSTVIT_BACKEND', value)
        assert backend._initial() == expected

    def test_a_bad_value(self, monkeypatch):
        monkeypatch.setenv('MMSTVIT_BACKEND', 'fast')
        with pytest.raises(ValueError, match=r"variable MMSTVIT_BACKEND must be one of 'auto', .*, but got 'fast'"):
            backend._initial()


class TestSelect:
    @pytest.mark.parametrize(('name', 'module'), [('auto', super_token), ('torch', super_token), ('naive', naive)])
    def test_on_cpu(self, name, module):
        with use_backend(name):
            assert select(ON_CPU) is module

    def test_auto_never_interprets(self, machine):
        machine.module.INTERPRETED = True
        machine.monkeypatch.setenv('TRITON_INTERPRET', '1')
        assert select(ON_CPU) is super_token
        with use_backend('triton'):
            assert select(ON_CPU) is machine.module

    @pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize('name', ['auto', 'triton'])
    @pytest.mark.parametrize('capability', [(8, 0), (8, 6), (9, 0), (12, 0)])
    def test_triton_on_a_gpu(self, machine, name, dtype, capability):
        machine.has(capability)
        with use_backend(name):
            assert select(on_gpu(dtype)) is machine.module

    @pytest.mark.parametrize(('name', 'module'), [('torch', super_token), ('naive', naive)])
    def test_others_on_a_gpu(self, machine, name, module):
        with use_backend(name):
            assert select(on_gpu()) is module

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
        with (
            use_backend('triton'),
            pytest.raises(RuntimeError, match=f"'triton' was asked for.*{reason}.*Choose 'auto'"),
        ):
            select(on_gpu(dtype))

    def test_triton_for_data_of_a_cpu(self, machine):
        with use_backend('triton'), pytest.raises(RuntimeError, match="needs a CUDA GPU, and the data are on 'cpu'"):
            select(ON_CPU)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')
    def test_real_gpu(self):
        x = torch.zeros(1, 4, 4, 2, device='cuda')
        capable = torch.cuda.get_device_capability() >= backend.MIN_CAPABILITY
        assert select(x).__name__ == f'mmstvit.ops.{"triton" if capable else "super_token"}'


class TestDescribe:
    def test_cpu(self):
        assert describe('cpu') == (
            "torch (chosen by 'auto'; not triton: it needs a CUDA GPU, and the data are on 'cpu')"
        )

    def test_gpu(self, machine):
        assert describe('cuda:0') == "triton (chosen by 'auto')"
        machine.has((7, 0))
        backend._find_obstacle.cache_clear()
        assert describe(torch.device('cuda', 0)).startswith("torch (chosen by 'auto'; not triton: it needs a GPU of")

    def test_by_name(self, machine):
        with use_backend('naive'):
            assert describe('cpu') == 'naive (asked for by name)'
        with use_backend('triton'):
            assert describe('cuda:0', torch.float64).startswith(
                'triton (asked for by name, but cannot run: it computes'
            )


class TestCompile:
    def test_no_graph_break_and_a_change_of_backend_is_seen(self):
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
        assert calls == [0, 2]  # compiled once for each; the naive one gathers by convolution


def test_import_and_use_on_a_cpu_need_no_triton():
    code = (
        'import sys; sys.modules["triton"] = None\n'
        'import torch; from mmstvit.ops import select\n'
        'print(select(torch.zeros(1, 4, 4, 2)).sample_super_tokens(torch.zeros(1, 4, 4, 2), 2)[0].shape)\n'
        'print("mmstvit.ops.triton" in sys.modules)'
    )
    done = run_python(code, ROOT)
    assert done.stdout.splitlines() == ['torch.Size([1, 2, 2, 2])', 'False'], done.stderr
