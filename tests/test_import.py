"""``import mmstvit``: its side effects, and the errors where a dependency is missing, broken or too old."""

import json
import sys
from types import ModuleType

import pytest

from mmstvit.dependencies import CORE, LIBRARIES, DependencyError, check_core, reinstall, require, require_library

from .helpers import ROOT, run_python

WITHOUT_OPERATORS = """
import sys, torch
sys.modules['mmcv._ext'] = None
from mmstvit.apis import build_model, read_config
from mmstvit.dependencies import require_library
require_library('mmpretrain')
model = build_model(read_config('configs/imagenet/stvit-nano_scenes.py', None)).eval()
print(model(torch.zeros(1, 3, 64, 64)).shape)
"""

# Prints a JSON object of everything that an import could change, before and after it.
SIDE_EFFECTS = """
import json, os, sys, warnings
import mmcv, torch
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader

def state():
    return {
        'sys.meta_path': [repr(finder) for finder in sys.meta_path],
        'sys.path_hooks': [repr(hook) for hook in sys.path_hooks],
        'sys.path': sys.path[:],
        'sys.orig_argv': sys.orig_argv[:],
        'sys.excepthook': repr(sys.excepthook),
        'os.environ': dict(os.environ),
        'warnings.filters': [repr(filter) for filter in warnings.filters],
        'checkpoint loaders': {scheme: repr(loader) for scheme, loader in CheckpointLoader._schemes.items()},
        'packages of configs': dict(MODULE2PACKAGE),
        'default scope': repr(DefaultScope.get_current_instance()),
        'torch.load': repr(torch.load),
        'threads': [torch.get_num_threads(), torch.get_num_interop_threads()],
        'dtype': repr(torch.get_default_dtype()),
        'grad mode': torch.is_grad_enabled(),
        'safe globals': sorted(repr(x) for x in torch.serialization.get_safe_globals() if 'torch.' not in repr(x)),
        'flags': [
            torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32,
            torch.backends.cuda.matmul.allow_tf32, torch.backends.mkldnn.enabled, torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
        ],
        'random state': torch.get_rng_state().tolist()[:100],
    }

before = state()
import mmstvit
mmstvit.STViT  # raises if the import was only deferred
after = state()
from mmstvit.ops import select
select(torch.zeros(1, 4, 4, 2)).sample_super_tokens(torch.zeros(1, 4, 4, 2), 2)
libraries = sorted({'mmdet', 'mmseg', 'mmpretrain', 'torchvision', 'torch._dynamo', 'triton'} & set(sys.modules))
print(json.dumps([before, after, libraries]))
"""


def test_changes_nothing_but_registries_and_needs_no_triton_on_a_cpu(tmp_path):
    done = run_python(SIDE_EFFECTS, tmp_path)
    assert done.returncode == 0, done.stderr
    before, after, libraries = json.loads(done.stdout)
    assert after.pop('packages of configs') == {**before.pop('packages of configs'), 'mmstvit': 'mmstvit'}
    assert after == before
    assert not libraries


def test_a_broken_dependency_is_an_error_at_the_first_use(tmp_path):
    (tmp_path / 'torch.py').write_text("raise OSError('libcudart.so: cannot open shared object file')")
    done = run_python("import mmstvit; print('imported'); mmstvit.STViT", tmp_path, path=tmp_path)
    assert (done.returncode, done.stdout) == (1, 'imported\n')
    last = done.stderr.strip().splitlines()[-1]
    assert 'DependencyError' in last and 'libcudart.so' in last and reinstall(CORE['torch'][1]) in last


def test_a_tool_names_a_missing_package_in_one_line(tmp_path):
    (tmp_path / 'torch.py').write_text("raise ModuleNotFoundError('No module named torch', name='torch')")
    code = "import sys; from mmstvit.__main__ import main; sys.argv = ['mmstvit', 'train', 'mine.py']; main()"
    done = run_python(code, tmp_path, path=tmp_path)
    needed = f'error: mmstvit needs torch >= {CORE["torch"][0]}, which is not installed. Run: {CORE["torch"][1]}\n'
    assert (done.returncode, done.stderr) == (1, needed)


def module(name: str, version: object) -> ModuleType:
    fake = ModuleType(name)
    if version is not None:
        fake.__version__ = version
    return fake


class TestRequire:
    @pytest.mark.parametrize('version', ['2.0.0', '2', '2.0.1+cpu', '2.10.0', '3.0.0.dev1', '2.11.0a0+git1234'])
    def test_a_supported_version(self, monkeypatch, version):
        monkeypatch.setitem(sys.modules, 'mmcv', module('mmcv', version))
        assert require('mmcv', '2.0.0', 'pip install mmcv').__version__ == version

    @pytest.mark.parametrize('version', ['1.9.9', '1.13+cu118', '2.0.0rc1', '0', 'unknown', None])
    def test_an_unsupported_version(self, monkeypatch, version):
        monkeypatch.setitem(sys.modules, 'mmcv', module('mmcv', version))
        with pytest.raises(DependencyError, match=r'mmcv >= 2\.0\.0') as caught:
            require('mmcv', '2.0.0', 'pip install mmcv')
        assert str(version) in caught.value.problem and caught.value.remedy == 'Run: pip install mmcv'

    @pytest.mark.parametrize(('body', 'words', 'command'), [
        (None, 'not installed', 'pip install x'),
        ('import addict_of_nowhere', 'addict_of_nowhere is not installed', 'pip install x'),
        ("raise AssertionError('for another torch')", 'for another torch', 'pip install --force-reinstall x'),
    ], ids=['missing', 'dependency', 'broken'])  # fmt: skip
    def test_an_import_that_fails(self, monkeypatch, tmp_path, body, words, command):
        if body:
            (tmp_path / 'some_package.py').write_text(body)
            monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ImportError) as caught:
            require('some_package', '1.0', 'pip install x')
        assert 'some_package >= 1.0' in caught.value.problem and words in caught.value.problem
        assert caught.value.remedy == f'Run: {command}'

    def test_the_core_is_checked(self, monkeypatch):
        check_core()
        for name in CORE:
            with monkeypatch.context() as patch, pytest.raises(DependencyError, match=f'{name} >= '):
                patch.setitem(sys.modules, name, module(name, '0.1'))
                check_core()


class TestRequireLibrary:
    @pytest.mark.parametrize('name', LIBRARIES)
    def test_each_library(self, monkeypatch, name):
        fake = module(name, '9.0.0')
        monkeypatch.setitem(sys.modules, name, fake)
        assert require_library(name) is fake
        fake.__version__ = '0.30.0'
        with pytest.raises(DependencyError, match=f'{name} >= .*0.30.0') as caught:
            require_library(name)
        assert LIBRARIES[name][1] in caught.value.remedy

    def test_mmcv_without_compiled_operators(self, monkeypatch):
        monkeypatch.setitem(sys.modules, 'mmcv._ext', None)
        with pytest.raises(DependencyError, match=r'mmdet needs mmcv with compiled operators.*mmcv\._ext') as caught:
            require_library('mmdet')
        assert CORE['mmcv'][1] in caught.value.remedy

    @pytest.mark.long
    def test_classifiers_run_without_compiled_operators(self):
        done = run_python(WITHOUT_OPERATORS, ROOT)
        assert done.stdout.endswith('torch.Size([1, 5])\n'), done.stderr
