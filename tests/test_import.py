"""What importing mmstvit needs, and what it says when something is missing."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from mmstvit.dependencies import check_core, require_library

from .helpers import run_python

CORE = {
    'torch': ('2.4.0', 'pip install "torch>=2.4"'),
    'mmengine': ('0.10.0', 'pip install "onedl-mmengine>=0.10.8"'),
    'mmcv': ('2.0.0', 'pip install onedl-mim && mim install onedl-mmcv (CUDA), or make env (CPU)'),
}
LIBRARIES = {
    'mmdet': ('3.0.0', 'pip install onedl-mmdetection'),
    'mmseg': ('1.0.0', 'pip install onedl-mmsegmentation'),
    'mmpretrain': ('1.0.0', 'pip install onedl-mmpretrain torchvision'),
}


def stub(folder: Path, name: str, body: str) -> Path:
    """A package of this name to put in front of the installed one."""
    package = folder / name
    package.mkdir()
    (package / '__init__.py').write_text(body)
    return folder


def last_line(name: str, body: str, folder: Path) -> str:
    """How `import mmstvit` ends when the package ``name`` is a stub."""
    result = run_python('import mmstvit', folder, path=stub(folder, name, body))
    assert result.returncode == 1
    return result.stderr.strip().splitlines()[-1]


def module(name: str, version: str | None) -> ModuleType:
    fake = ModuleType(name)
    if version is not None:
        fake.__version__ = version
    return fake


def test_import_does_not_load_the_task_libraries(tmp_path):
    code = 'import sys, mmstvit; print(sorted({"mmdet", "mmseg", "mmpretrain", "torchvision"} & set(sys.modules)))'
    result = run_python(code, tmp_path)
    assert result.stdout.strip() == '[]', result.stderr


@pytest.mark.parametrize('name', CORE)
class TestImport:
    def test_missing_piece_is_named_with_the_command(self, name, tmp_path):
        minimum, command = CORE[name]
        body = f"raise ModuleNotFoundError('No module named {name}', name='{name}')"
        message = last_line(name, body, tmp_path)
        assert message == f'ImportError: mmstvit needs {name} >= {minimum}, which is not installed. Run: {command}'

    def test_old_piece_is_named_with_both_versions_and_the_command(self, name, tmp_path):
        minimum, command = CORE[name]
        message = last_line(name, "__version__ = '0.9.1'", tmp_path)
        assert message == f'ImportError: mmstvit needs {name} >= {minimum}, but 0.9.1 is installed. Run: {command}'


class TestCore:
    def test_installed_stack_passes(self):
        check_core()

    @pytest.mark.parametrize('name', CORE)
    def test_piece_that_lacks_a_dependency_names_it(self, name, tmp_path):
        message = last_line(name, 'import addict_of_nowhere', tmp_path)
        assert message.startswith('ImportError') and name in message and CORE[name][1] in message
        assert 'addict_of_nowhere is missing' in message

    def test_foreign_package_under_the_name_is_told_apart(self, tmp_path):
        message = last_line('mmcv', '', tmp_path)
        assert 'is not the package' in message and str(tmp_path) in message and CORE['mmcv'][1] in message

    @pytest.mark.parametrize('version', ['2.4.0', '2.4.1+cpu', '2.10.0', '2.11.0a0+git1234', '3.0.0.dev1', '3'])
    def test_newer_version_passes(self, monkeypatch, version):
        monkeypatch.setitem(sys.modules, 'torch', module('torch', version))
        check_core()

    @pytest.mark.parametrize('version', ['2.3.1', '2.3.1+cu118', '1.13', '0'])
    def test_older_version_is_refused(self, monkeypatch, version):
        monkeypatch.setitem(sys.modules, 'torch', module('torch', version))
        with pytest.raises(ImportError, match=r'torch >= 2\.4\.0') as caught:
            check_core()
        assert version in str(caught.value)


@pytest.mark.parametrize('name', LIBRARIES)
class TestRequireLibrary:
    def test_returns_the_module(self, monkeypatch, name):
        fake = module(name, '9.0.0')
        monkeypatch.setitem(sys.modules, 'mmcv._ext', module('mmcv._ext', None))
        monkeypatch.setitem(sys.modules, name, fake)
        assert require_library(name) is fake

    def test_missing_library_is_named_with_the_command(self, monkeypatch, name):
        monkeypatch.setitem(sys.modules, 'mmcv._ext', module('mmcv._ext', None))
        monkeypatch.setitem(sys.modules, name, None)
        minimum, command = LIBRARIES[name]
        with pytest.raises(ImportError) as caught:
            require_library(name)
        assert str(caught.value) == f'mmstvit needs {name} >= {minimum}, which is not installed. Run: {command}'

    def test_old_library_is_refused(self, monkeypatch, name):
        monkeypatch.setitem(sys.modules, 'mmcv._ext', module('mmcv._ext', None))
        monkeypatch.setitem(sys.modules, name, module(name, '0.30.0'))
        minimum, command = LIBRARIES[name]
        with pytest.raises(ImportError, match=f'{name} >= {minimum}, but 0.30.0') as caught:
            require_library(name)
        assert command in str(caught.value)

    def test_mmcv_without_compiled_ops_is_refused(self, monkeypatch, name):
        monkeypatch.setitem(sys.modules, 'mmcv._ext', None)
        with pytest.raises(ImportError, match=f'{name} needs mmcv with compiled ops') as caught:
            require_library(name)
        assert 'mmcv._ext' in str(caught.value) and 'mim install onedl-mmcv' in str(caught.value)


@pytest.mark.parametrize('version', ['2.0', '2', '2.0.0+cpu'])
def test_short_and_local_versions_count_as_the_release(monkeypatch, version):
    monkeypatch.setitem(sys.modules, 'mmcv', module('mmcv', version))
    check_core()


@pytest.mark.parametrize('version', ['unknown', None, '2.0.0rc1'])
def test_what_is_no_release_of_at_least_the_minimum_is_refused(monkeypatch, version):
    monkeypatch.setitem(sys.modules, 'mmcv', module('mmcv', version))
    with pytest.raises(ImportError, match=r'mmcv >= 2\.0\.0') as caught:
        check_core()
    assert str(version) in str(caught.value) and CORE['mmcv'][1] in str(caught.value)


def test_a_package_that_breaks_on_import_is_named_with_the_remedy(tmp_path):
    line = last_line('mmcv', "raise AssertionError('built for another torch')", tmp_path)
    assert 'built for another torch' in line and CORE['mmcv'][1] in line


def test_a_package_that_is_there_and_broken_is_installed_anew(tmp_path):
    """pip finds its version good, and would do nothing."""
    line = last_line('torch', "raise OSError('libcudart.so: cannot open shared object file')", tmp_path)
    assert 'libcudart.so' in line and line.endswith('Run: pip install --force-reinstall "torch>=2.4"')


def test_unknown_library_is_refused():
    with pytest.raises(ValueError, match="'mmdett'") as caught:
        require_library('mmdett')
    assert all(name in str(caught.value) for name in LIBRARIES)
