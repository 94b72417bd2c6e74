"""The doctor, in environments that work and in ones with a planted fault."""

import subprocess
import sys
from pathlib import Path

import mmcv.ops
import pytest
import torch

from mmstvit import STViT, doctor
from mmstvit.dependencies import CORE, LIBRARIES
from mmstvit.doctor import CheckResult

from .helpers import ROOT, link_scenes

NANO = str(ROOT / 'configs' / 'mask_rcnn' / 'mask-rcnn_stvit-nano_fpn_scenes.py')
SMALL = str(ROOT / 'configs' / 'mask_rcnn' / 'mask-rcnn_stvit-small_fpn_1x_coco.py')


def probe(name: str) -> CheckResult:
    """Run a probe in this process."""
    function, remedy = doctor.PROBES[name]
    return doctor.run_check(name, remedy, function)


def stub(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, body: str) -> None:
    """Put a package of this source in front of the installed ones, for processes that the test starts."""
    (folder / name).mkdir()
    (folder / name / '__init__.py').write_text(body)
    monkeypatch.setenv('PYTHONPATH', str(folder))


class TestProcesses:
    def test_starts_without_torch(self, tmp_path, monkeypatch):
        stub(monkeypatch, tmp_path, 'torch', "raise ModuleNotFoundError('No module named torch', name='torch')")
        command = [sys.executable, '-m', 'mmstvit.doctor']
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (1, '')
        lines = done.stdout.splitlines()
        (failed,) = [i for i, line in enumerate(lines) if line.startswith('FAILED')]
        assert 'mmstvit needs torch' in lines[failed] and f'Run: {CORE["torch"][1]}' in lines[failed + 1]
        assert any(line.startswith('warning  everything else ') and 'needs torch' in line for line in lines)
        assert 'installation' in done.stdout and 'Training cannot start' in lines[-1]

    def test_a_crash_is_a_finding(self, tmp_path, monkeypatch):
        body = 'import os, signal, sys; print("noise"); sys.stderr.write("last"); os.kill(os.getpid(), signal.SIGSEGV)'
        stub(monkeypatch, tmp_path, 'torchvision', body)
        (found,) = doctor.run_probe('torchvision')
        assert found.status == 'FAILED' and 'killed by SIGSEGV' in found.detail and found.detail.endswith('last')
        assert 'force-reinstall' in found.remedy

    @pytest.mark.long
    def test_training_can_start(self, scenes, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(link_scenes(tmp_path, scenes))
        stub(monkeypatch, tmp_path, 'mmseg', "raise ImportError('a broken binary')")
        monkeypatch.setattr(doctor, 'PROBES', {n: doctor.PROBES[n] for n in ('core', 'mmdet', 'mmseg', 'config')})
        assert doctor.main([NANO]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1].startswith('Training can start: ') and lines[-1].endswith(' 1 warning, 0 FAILED')
        for name in ('core', 'mmdet', 'installation', 'pretrained', 'data, train'):
            assert any(line.startswith(f'ok       {name} ') for line in lines), name
        assert f'  PyTorch: {torch.__version__}' in lines


@pytest.mark.parametrize('name', [name for name in doctor.PROBES if name != 'config'])
def test_this_installation_works(name):
    assert probe(name).status == 'ok'


class TestLibraries:
    @pytest.mark.parametrize('name', ['mmdet', 'mmpretrain'])
    def test_missing(self, monkeypatch, name):
        monkeypatch.setitem(sys.modules, name, None)
        found = probe(name)
        assert found.status == 'warning' and found.detail.startswith('not installed: needed for ')
        assert LIBRARIES[name][1] in found.remedy

    def test_broken(self, monkeypatch, tmp_path):
        (tmp_path / 'mmseg.py').write_text("raise AssertionError('MMCV==9.9.9 is used')")
        monkeypatch.syspath_prepend(tmp_path)
        for name in [name for name in sys.modules if name.partition('.')[0] == 'mmseg']:
            monkeypatch.delitem(sys.modules, name)
        found = probe('mmseg')
        assert found.status == 'FAILED' and 'MMCV==9.9.9' in found.detail and '--force-reinstall' in found.remedy


class TestOperators:
    def test_missing(self, monkeypatch):
        """Classifiers need none."""
        monkeypatch.setitem(sys.modules, 'mmcv._ext', None)
        found = probe('mmcv ops')
        assert (found.status, found.detail) == ('warning', 'not installed: needed for detectors and segmentors only')
        assert found.remedy == 'Run: mmstvit install-mmcv'
        assert (probe('mmdet').status, probe('mmpretrain').status) == ('FAILED', 'ok')

    def test_wrong_values(self, monkeypatch):
        right = mmcv.ops.roi_align
        monkeypatch.setattr(mmcv.ops, 'roi_align', lambda x, rois, size: right(x, rois, size) * 2 - 3)
        found = probe('mmcv ops')
        assert found.status == 'FAILED' and 'RoIAlign returns wrong values on cpu' in found.detail
        assert found.remedy == 'Run: mmstvit install-mmcv --force'

    def test_gradients_with_nan(self, monkeypatch):
        assert "cpu: backend cpu (chosen by 'auto'; attention at inference: " in probe('mmstvit').detail
        forward = STViT.forward
        monkeypatch.setattr(STViT, 'forward', lambda self, x: [y * float('nan') for y in forward(self, x)])
        assert 'NaN or Inf on cpu' in probe('mmstvit').detail


@pytest.mark.parametrize(('driver', 'built', 'visible', 'words'), [
    ('', '13.0', None, ['ok', 'none found']),
    ('NVIDIA X, 570.1', None, None, ['warning', '570.1', 'built for the CPU', 'Install a CUDA build']),
    ('NVIDIA X, 570.1', '13.0', None, ['warning', '570.1', 'CUDA 13.0', 'Update the driver']),
    ('NVIDIA X, 570.1', '13.0', '-1', ['warning', '570.1', 'unset CUDA_VISIBLE_DEVICES']),
], ids=['none', 'cpu build', 'driver', 'hidden'])  # fmt: skip
def test_a_gpu_that_torch_cannot_use(monkeypatch, tmp_path, driver, built, visible, words):
    (tmp_path / 'nvidia-smi').write_text(f'#!/bin/sh\necho "{driver}"\n')
    (tmp_path / 'nvidia-smi').chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=':')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    monkeypatch.setattr(torch.version, 'cuda', built)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if visible is not None:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    found = probe('gpu')
    assert not [word for word in words if word not in str(found)]


class TestInstalledFiles:
    def test_two_distributions_of_one_package(self, tmp_path, monkeypatch):
        for name in ('mmengine', 'onedl-mmengine'):
            info = tmp_path / f'{name.replace("-", "_")}-9.9.dist-info'
            info.mkdir()
            (info / 'METADATA').write_text(f'Name: {name}\nVersion: 9.9\n')
            (info / 'top_level.txt').write_text('mmengine\n')
        monkeypatch.setattr(sys, 'path', [str(tmp_path)])
        found = doctor.run_check('distributions', '', doctor.check_distributions)
        assert found.status == 'warning' and 'mmengine and onedl-mmengine both install mmengine' in found.detail
        assert 'pip uninstall -y mmengine onedl-mmengine, then: pip install' in found.remedy

    def test_tools_that_would_import_another_mmstvit(self, tmp_path, monkeypatch):
        assert doctor.check_installation() == str(ROOT / 'mmstvit')
        monkeypatch.setattr(doctor, 'PACKAGE', tmp_path / 'mmstvit')
        found = doctor.run_check('installation', '', doctor.check_installation)
        assert found.status == 'warning' and str(ROOT / 'mmstvit') in found.detail
        monkeypatch.setattr(sys, 'executable', str(Path(sys.executable).resolve()))  # not that of the environment
        monkeypatch.delenv('PYTHONPATH', raising=False)
        found = doctor.run_check('installation', '', doctor.check_installation)
        assert found.status == 'FAILED' and '-m pip install' in found.remedy


class TestConfig:
    def test_one_that_can_be_trained(self, scenes, tmp_path, monkeypatch):
        monkeypatch.chdir(link_scenes(tmp_path, scenes))
        findings = list(doctor.probe_config(NANO, []))
        assert [f.name for f in findings] == ['config', 'model', 'pretrained', 'data, train', 'data, val', 'data, test']
        assert {f.status for f in findings} == {'ok'}
        assert sorted(p.name for p in tmp_path.iterdir()) == ['data']

    def test_what_a_config_lacks(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / 'data' / 'coco' / 'val2017').mkdir(parents=True)
        (tmp_path / 'data' / 'coco' / 'annotations').mkdir()
        (tmp_path / 'data' / 'coco' / 'annotations' / 'instances_val2017.json').touch()
        found = {f.name: f for f in doctor.probe_config(SMALL, ['test_dataloader.dataset.ann_file=gone.json'])}
        assert found['pretrained'].status == 'FAILED' and 'Download the weights' in str(found['pretrained'])
        assert found['data, train'].status == 'FAILED' and 'instances_train2017.json' in found['data, train'].detail
        assert found['data, val'].status == 'ok'
        assert found['data, test'].status == 'warning' and 'gone.json' in found['data, test'].detail

    def test_a_model_that_cannot_be_built(self):
        options = ['model.backbone.init_cfg=None', 'model.backbone.arch=smal']
        found = {f.name: f for f in doctor.probe_config(SMALL, options)}
        assert found['model'].status == 'FAILED' and "'smal'" in found['model'].detail
        assert 'pretrained' not in found

    def test_a_file_that_does_not_exist(self):
        (found,) = doctor.probe_config('nowhere.py', [])
        assert (found.name, found.status) == ('config', 'FAILED') and 'nowhere.py' in found.detail
