"""``mmstvit install-mmcv``, with a source of mmcv's layout that compiles in seconds, and torch's own build."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv

import pytest

from mmstvit import install_mmcv
from mmstvit.dependencies import COMMANDS

from .helpers import ROOT

TOOL = ROOT / 'mmstvit' / COMMANDS['install-mmcv']
assert COMMANDS['install-mmcv'] == 'install_mmcv.py'

# As in mmcv: setup.py sets C++17, a struct of cpu/ has several definitions, and psamask.cpp defines a macro.
SOURCES = {
    'setup.py': """
import glob
from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension
files = glob.glob('./mmcv/ops/csrc/pytorch/*.cpp') + glob.glob('./mmcv/ops/csrc/pytorch/cpu/*.cpp')
extension = CppExtension('mmcv._ext', files, extra_compile_args={'cxx': ['-std=c++17']})
setup(name='onedl-mmcv', version='2.3.6', packages=['mmcv', 'mmcv.ops'], ext_modules=[extension],
      cmdclass={'build_ext': BuildExtension})
""",
    'pyproject.toml': '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n',
    'mmcv/__init__.py': "__version__ = '2.3.6'\n",
    'mmcv/ops/__init__.py': """
import torch
from mmcv import _ext

def nms(boxes, scores, iou):
    return boxes, torch.tensor([0, _ext.call()])

def roi_align(x, rois, size):
    return x.mean() * torch.ones(1, 1, size, size)
""",
    'mmcv/ops/csrc/pytorch/one.cpp': 'int three();\nint one() { return three(); }\n',
    'mmcv/ops/csrc/pytorch/two.cpp': 'int two() { return one() - 1; }  // only compiles below one.cpp\n',
    'mmcv/ops/csrc/pytorch/pybind.cpp': """
#include <Python.h>
int two();
#if !defined(__OPTIMIZE__) || !defined(NDEBUG)
#error not optimized
#endif
static PyObject* call(PyObject*, PyObject*) { return PyLong_FromLong(two()); }
static PyMethodDef methods[] = {{"call", call, METH_NOARGS, ""}, {nullptr, nullptr, 0, nullptr}};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_ext", nullptr, -1, methods};
PyMODINIT_FUNC PyInit__ext() { return PyModule_Create(&module); }
""",
    'mmcv/ops/csrc/pytorch/cpu/three.cpp': 'template <typename T> struct PreCalc {};\nint three() { return 3; }\n',
    'mmcv/ops/csrc/pytorch/cpu/roi_align.cpp': 'template <typename T> struct PreCalc { T x; };\n',
    'mmcv/ops/csrc/pytorch/cpu/roi_align_rotated.cpp': 'template <typename T> struct PreCalc { T x, y; };\n',
    'mmcv/ops/csrc/pytorch/cpu/rotated_feature_align.cpp': '#include <algorithm>\n',
    'mmcv/ops/csrc/pytorch/cpu/psamask.cpp': '#define min(a, b) ((a) < (b) ? (a) : (b))\n',
}
# Cannot compile one of the joined files.
COMPILER = '#!/bin/sh\ncase "$*" in *joined_rotated*) echo "fatal error: no memory"; exit 1;; esac\nexec c++ "$@"\n'


@pytest.fixture
def command(tmp_path, monkeypatch) -> list[str]:
    """The command, in an environment with the other packages of this one, and an index with the source above."""
    for name, text in SOURCES.items():
        path = tmp_path / 'source' / 'onedl_mmcv-2.3.6' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    metadata = 'Metadata-Version: 2.1\nName: onedl-mmcv\nVersion: 2.3.6\n'
    (tmp_path / 'source' / 'onedl_mmcv-2.3.6' / 'PKG-INFO').write_text(metadata)
    (tmp_path / 'index').mkdir()
    with tarfile.open(tmp_path / 'index' / 'onedl_mmcv-2.3.6.tar.gz', 'w:gz') as archive:
        archive.add(tmp_path / 'source' / 'onedl_mmcv-2.3.6', 'onedl_mmcv-2.3.6')
    venv.create(tmp_path / 'env', symlinks=True)
    (packages,) = (tmp_path / 'env').glob('lib/python*/site-packages')
    (packages / 'others.pth').write_text('\n'.join(path for path in sys.path if path.endswith('site-packages')))
    monkeypatch.setenv('PATH', sysconfig.get_path('scripts'), prepend=os.pathsep)  # ninja
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', str(tmp_path / 'index'))
    monkeypatch.setenv('MMSTVIT_WHEEL_DIR', str(tmp_path / 'wheels'))
    monkeypatch.delenv('PYTHONPATH', raising=False)
    return [str(tmp_path / 'env' / 'bin' / 'python'), '-I', str(TOOL)]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.long
def test_compiles_continues_and_keeps_the_wheel(command, monkeypatch, tmp_path):
    compiler = tmp_path / 'compiler'
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    monkeypatch.setenv('CXX', str(compiler))
    failed = run([*command, '--force'])  # the mmcv of the other environment works
    assert failed.returncode == 1 and 'downloading' in failed.stdout
    assert 'compiling mmcv failed. fatal error: no memory' in failed.stderr and 'build.log' in failed.stderr
    monkeypatch.delenv('CXX')
    done = run([*command, '--force'])
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'downloading' not in done.stdout and '5/5 files' in done.stdout and done.stdout.endswith('2.3.6 works\n')
    (wheel,) = (tmp_path / 'wheels').glob('mmcv2.3.6-torch*-joined-O3-DNDEBUG-g0-*/onedl_mmcv-*.whl')
    assert [path.name for path in wheel.parent.iterdir()] == [wheel.name]
    again = run(command)
    assert again.stdout == '[mmcv] mmcv works: nothing to do\n'
    # An mmcv whose operators are wrong is replaced, from the kept wheel.
    (package,) = (tmp_path / 'env').glob('lib/python*/site-packages/mmcv/ops/__init__.py')
    package.write_text(package.read_text().replace('[0, _ext.call()]', '[0, 1]'))
    replaced = run(command)
    assert f'installing {wheel}' in replaced.stdout and 'compiling' not in replaced.stdout, replaced.stderr


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    """By a Python without packages."""
    venv.create(tmp_path / 'env', symlinks=True)
    command = [str(tmp_path / 'env' / 'bin' / 'python'), '-I', str(TOOL)]
    monkeypatch.setenv('MMSTVIT_WHEEL_DIR', str(tmp_path / 'wheels'))
    assert 'First run: pip install onedl-mmengine' in run(command).stderr
    monkeypatch.setenv('CXX', 'ccache-of-nowhere g++')
    done = run([*command, '--dry-run'])
    assert done.returncode == 1 and 'needs a C++ compiler, and ccache-of-nowhere is not found' in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ['env']


def test_wheels_are_kept_by_torch_and_device(monkeypatch, tmp_path):
    monkeypatch.setenv('MMSTVIT_WHEEL_DIR', str(tmp_path))
    builds = [('2.14.1+cpu', ''), ('2.14.1+cu130', ''), ('2.14.1+cu130', 'sm90'), ('2.14.1+cu130', '8.0;9.0+PTX')]
    folders = {install_mmcv.wheel_folder(*build) for build in builds}
    assert len(folders) == 4 and all(folder.parent == tmp_path for folder in folders)
