"""What the doctor says of environments that are whole and of such that are broken."""

import collections
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import mmcv.ops
import pytest
import torch
from mmengine.runner import CheckpointLoader

from mmstvit import STViT
from mmstvit.dependencies import LIBRARIES
from mmstvit.doctor import stack, system, training
from mmstvit.doctor.__main__ import main
from mmstvit.doctor.findings import Finding, exit_code, summary
from mmstvit.doctor.probes import PROBES, _examine
from mmstvit.registry import MODELS

from .helpers import ROOT, link_scenes

LIBRARY = '__version__ = "9.9"'
REGISTRY = 'from mmengine.registry import MODELS'
GONE = "raise ModuleNotFoundError('No module named {0}', name='{0}')"
Usage = collections.namedtuple('Usage', 'total used free')


def doctor(folder: Path, *args: object, env: dict[str, str] | None = None, **stubs: str) -> SimpleNamespace:
    """Run the doctor in ``folder`` with packages of these sources in front of the installed ones.

    Returns:
        The exit code, the findings by name, and the environment that it reports.
    """
    path = folder / 'stubs'
    for name, body in stubs.items():
        (path / name).mkdir(parents=True)
        (path / name / '__init__.py').write_text(body.format(name))
        (path / name / 'registry.py').write_text(REGISTRY)
    env = {**os.environ, 'PYTHONPATH': str(path), 'PYTHONWARNINGS': 'ignore', **(env or {})}
    command = [sys.executable, '-m', 'mmstvit.doctor', '--json', *map(str, args)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.stderr == ''
    content = json.loads(done.stdout)
    assert content['exit_code'] == done.returncode
    findings = {check['name']: Finding(**check) for check in content['checks']}
    assert len(findings) == len(content['checks'])
    return SimpleNamespace(code=done.returncode, findings=findings, environment=content['environment'])


@pytest.fixture(autouse=True)
def loaders(monkeypatch):
    """The doctor reads checkpoints as the tools do, which it sets for the whole process; set it back."""
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))


def examine(name: str, *configs: object, options: Iterable[str] = ()) -> list[Finding]:
    """Findings of one check, in this process."""
    return list(_examine(name, stack.State([*map(str, configs)], [*options])))


def only(findings: Iterable[Finding]) -> Finding:
    (finding,) = findings
    return finding


class TestBrokenCore:
    """Whatever is wrong with torch, the doctor says so, and says that it could not look further."""

    @pytest.mark.parametrize(('body', 'words'), [
        (GONE, 'torch >= 2.4.0, which is not installed'),
        ("__version__ = '1.13.1'", 'torch >= 2.4.0, but 1.13.1 is installed'),
        ("raise OSError('libcudart.so.12: cannot open shared object file')", 'libcudart.so.12'),
        ('import os, signal; os.kill(os.getpid(), signal.SIGSEGV)', 'killed by SIGSEGV'),
        ('print("noise"); import sys; sys.exit("no licence")', 'exit code 1; its last words: no licence'),
    ], ids=['missing', 'old', 'library', 'crash', 'exit'])  # fmt: skip
    def test_torch(self, tmp_path, body, words):
        seen = doctor(tmp_path, torch=body)
        assert seen.code == 1
        found = seen.findings['torch']
        assert found.status == 'FAILED' and words in found.detail
        # pip alone does nothing about a version that fits.
        again = '' if words.startswith('torch >= 2.4.0') else '--force-reinstall '
        assert found.remedy == f'pip install {again}"torch>=2.4"'
        for name in ('gpu', 'mmengine', 'mmcv ops', 'mmstvit', 'libraries', 'config', 'workers'):
            assert seen.findings[name].status == 'warning' and 'not checked' in seen.findings[name].detail
        assert [f.name for f in seen.findings.values() if f.status == 'FAILED'] == ['torch']
        assert {'python', 'mim', 'installation', 'disk'} <= set(seen.findings)
        assert seen.environment['Python'] and seen.environment['numpy']

    def test_packaging(self, tmp_path):
        found = doctor(tmp_path, packaging=GONE).findings['torch']
        assert found.status == 'FAILED' and 'packaging' in found.detail

    def test_other_ways_into_the_package_still_raise(self, tmp_path):
        (tmp_path / 'torch.py').write_text(GONE.format('torch'))
        env = {**os.environ, 'PYTHONPATH': str(tmp_path)}
        done = subprocess.run(
            [sys.executable, '-m', 'mmstvit.hub'], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert done.returncode == 1 and 'ImportError: mmstvit needs torch' in done.stderr


class TestBrokenStack:
    def test_mmengine(self, tmp_path):
        seen = doctor(tmp_path, mmengine="raise AssertionError('half an installation')")
        found = seen.findings['mmengine']
        assert seen.code == 1
        assert found.status == 'FAILED' and 'half an installation' in found.detail
        assert found.remedy == 'pip install --force-reinstall "onedl-mmengine>=0.10.8"'
        assert seen.findings['torch'].status == 'ok'
        assert 'needs mmengine' in seen.findings['mmcv'].detail

    def test_mmcv_without_ops(self, tmp_path):
        seen = doctor(tmp_path, mmcv="__version__ = '2.3.6'")
        found = seen.findings['mmcv ops']
        assert seen.code == 1 and seen.findings['mmcv'].status == 'ok'
        assert found.status == 'FAILED' and 'mmcv.ops' in found.detail and 'mim install onedl-mmcv' in found.remedy

    def test_one_library_is_enough(self, tmp_path):
        seen = doctor(tmp_path, mmdet=LIBRARY, mmseg=GONE, mmpretrain=GONE)
        assert seen.code == 0
        assert seen.findings['mmdet'] == Finding('mmdet', 'ok', "9.9, builds 'mmstvit.STViT'")
        assert seen.findings['mmpretrain'].status == 'warning'
        assert seen.environment['MMCV'] == mmcv.__version__
        assert seen.findings['data/coco'].status == 'warning'
        assert 'scenes.py' in seen.findings['data/scenes'].remedy

    def test_a_backend_that_does_not_exist(self, tmp_path):
        seen = doctor(tmp_path, env={'MMSTVIT_BACKEND': 'trition'})
        found = seen.findings['mmstvit']
        assert found.status == 'FAILED' and "'trition'" in found.detail and 'MMSTVIT_BACKEND' in found.detail
        assert seen.environment['$MMSTVIT_BACKEND'] == 'trition'

    @pytest.mark.long
    def test_what_is_installed_here_is_whole(self, tmp_path):
        done = subprocess.run([sys.executable, '-m', 'mmstvit.doctor'], cwd=tmp_path, capture_output=True, text=True)
        lines = done.stdout.splitlines()
        assert done.returncode == 0, done.stdout
        assert lines[-1].startswith('training can start: ') and lines[-1].endswith(' 0 failed')
        for name in ('torch', 'mmcv ops', 'backend, cpu', 'mmdet', 'mmseg', 'mmpretrain', 'workers', 'mim'):
            assert any(line.startswith(f'ok       {name} ') for line in lines), name
        assert any(line.startswith('  MMCV Compiler: ') for line in lines)


class TestLibraries:
    """One of the three is enough, unless a config names another."""

    @pytest.fixture
    def install(self, monkeypatch, tmp_path):
        """Put a library in the place of the one that is installed: 'whole', 'broken' or 'missing'."""
        monkeypatch.syspath_prepend(tmp_path)

        def put(name: str, state: str) -> None:
            fake = {'whole': ModuleType(name), 'missing': None}
            if state == 'broken':
                (tmp_path / f'{name}.py').write_text("raise AssertionError('MMCV==9.9.9 is used')")
                monkeypatch.delitem(sys.modules, name, raising=False)
                return
            monkeypatch.setitem(sys.modules, name, fake[state])
            if state == 'whole':
                fake[state].__version__ = '9.9'
                registry = ModuleType(f'{name}.registry')
                registry.MODELS = MODELS
                monkeypatch.setitem(sys.modules, f'{name}.registry', registry)

        return put

    @pytest.mark.parametrize(('states', 'expected'), [
        (('whole', 'missing', 'missing'), ['ok', 'warning', 'warning']),
        (('whole', 'broken', 'missing'), ['ok', 'FAILED', 'warning']),  # unlike a missing one, somebody wants it
        (('missing', 'missing', 'missing'), ['warning', 'warning', 'warning', 'FAILED']),
    ])  # fmt: skip
    def test_without_a_config(self, install, states, expected):
        for name, state in zip(LIBRARIES, states, strict=True):
            install(name, state)
        findings = examine('libraries')
        assert [f.status for f in findings] == expected
        assert [f.name for f in findings] == [*LIBRARIES, 'libraries'][: len(expected)]
        for finding, (name, state) in zip(findings, zip(LIBRARIES, states, strict=True), strict=False):
            assert (finding.remedy == LIBRARIES[name][1]) == (state != 'whole')
            assert {'whole': '9.9', 'broken': 'MMCV==9.9.9', 'missing': 'not installed'}[state] in finding.detail

    def test_a_config_needs_its_own_alone(self, install):
        config = ROOT / 'configs' / 'upernet' / 'stvit-nano_upernet_scenes.py'
        for name, state in zip(LIBRARIES, ('broken', 'missing', 'whole'), strict=True):
            install(name, state)
        assert [f.status for f in examine('libraries', config)] == ['warning', 'warning', 'ok']
        found = only(examine('config', config))
        assert found.status == 'FAILED' and 'mmseg' in found.detail and found.config == str(config)
        assert found.remedy == 'pip install onedl-mmsegmentation'


class TestOperators:
    def test_wrong_results_are_seen(self, monkeypatch):
        assert only(examine('mmcv ops')).status == 'ok'
        monkeypatch.setattr(mmcv.ops, 'nms', lambda boxes, scores, iou: (None, torch.tensor([0, 1, 2])))
        found = only(examine('mmcv ops'))
        assert found.status == 'FAILED' and '[0, 1, 2]' in found.detail and found.remedy

    def test_a_wrong_gradient_is_seen(self, monkeypatch):
        monkeypatch.setattr(mmcv.ops, 'roi_align', lambda x, rois, size: x[..., :2, :2] * 1 + 0 * x.sum() + 1 - 1)
        assert only(examine('mmcv ops')).status == 'ok'
        monkeypatch.setattr(mmcv.ops, 'roi_align', lambda x, rois, size: x[..., :2, :2] * 2 - 3)
        assert only(examine('mmcv ops')).status == 'FAILED'

    def test_a_model_that_computes_nonsense(self, monkeypatch):
        found = only(examine('backend'))
        assert found.status == 'ok' and found.name == 'backend, cpu' and found.detail.startswith('torch')
        forward = STViT.forward
        monkeypatch.setattr(STViT, 'forward', lambda self, x: [y * float('nan') for y in forward(self, x)])
        found = only(examine('backend'))
        assert found.status == 'FAILED' and 'is off by nan' in found.detail

    def test_mmstvit_is_imported_anew(self):
        assert only(examine('mmstvit')).status == 'ok'


class TestGpu:
    """On machines with none: what torch and the driver would say is made up."""

    @pytest.fixture
    def cuda(self, monkeypatch):
        """A GPU of compute capability 12.0 that computes; attributes can be overwritten."""
        cuda = SimpleNamespace(
            is_available=lambda: True,
            device_count=lambda: 1,
            get_device_properties=lambda index: SimpleNamespace(name='NVIDIA X', major=12, minor=0),
            get_arch_list=lambda: ['sm_80', 'sm_90'],
            mem_get_info=lambda index: (3 * 2**30, 4 * 2**30),
        )
        monkeypatch.setattr(torch, 'cuda', cuda)
        monkeypatch.setattr(stack, '_driver', lambda: 'NVIDIA X, 570.1')
        ones = torch.ones
        monkeypatch.setattr(torch, 'ones', lambda *size, device='cpu': ones(*size))
        return cuda

    def test_one_that_works(self, cuda):
        found = only(examine('gpu'))
        assert found.status == 'ok' and '570.1' in found.detail and '3 GiB of 4 GiB' in found.detail

    def test_one_for_which_torch_was_not_built(self, cuda, monkeypatch):
        def fail(*size, device):
            raise RuntimeError('CUDA error: no kernel image is available\nmore')

        monkeypatch.setattr(torch, 'ones', fail)
        found = only(examine('gpu'))
        assert found.status == 'FAILED' and found.detail.count('\n') == 0
        assert (
            'no kernel image' in found.detail and 'capability 12.0' in found.detail and 'sm_80, sm_90' in found.detail
        )
        assert found.remedy.startswith('pip install --upgrade torch')

    def test_one_that_fails_for_another_reason(self, cuda, monkeypatch):
        def fail(*size, device):
            raise RuntimeError('CUDA error: out of memory')

        cuda.get_arch_list = lambda: ['sm_120']
        monkeypatch.setattr(torch, 'ones', fail)
        found = only(examine('gpu'))
        assert found.status == 'FAILED' and 'out of memory' in found.detail and 'nvidia-smi' in found.remedy

    @pytest.mark.parametrize(('built', 'visible', 'words'), [
        (None, None, ['not built for CUDA', 'pip install --force-reinstall torch']),
        ('13.0', None, ['570.1', 'CUDA 13.0', 'driver is too old', 'update the driver']),
        ('13.0', '-1', ["CUDA_VISIBLE_DEVICES='-1'", 'unset CUDA_VISIBLE_DEVICES']),
    ], ids=['cpu build', 'driver', 'hidden'])  # fmt: skip
    def test_one_that_torch_does_not_see(self, cuda, monkeypatch, built, visible, words):
        def is_available():
            import warnings

            warnings.warn('the NVIDIA driver is too old', stacklevel=1)
            return False

        cuda.is_available = is_available
        monkeypatch.setattr(torch.version, 'cuda', built)
        monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
        if visible is not None:
            monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
        found = only(examine('gpu'))
        assert found.status == 'warning'
        assert not [word for word in words if word not in str(found)]

    def test_none(self, cuda, monkeypatch):
        cuda.is_available = lambda: False
        monkeypatch.setattr(stack, '_driver', lambda: '')
        assert only(examine('gpu')) == Finding('gpu', 'ok', 'none: training runs on the CPU')
        assert examine('mmcv ops, gpu') == []

    @pytest.mark.parametrize(('capability', 'built', 'expected'), [
        ((8, 6), ['sm_80', 'sm_90'], True),
        ((8, 9), ['sm_80'], True),
        ((7, 5), ['sm_80', 'sm_90'], False),
        ((9, 0), ['sm_80', 'sm_86'], False),
        ((12, 0), ['sm_90', 'compute_90'], True),
        ((12, 0), ['sm_120'], True),
        ((12, 0), ['sm_100a', 'compute_120'], True),
        ((8, 0), ['sm_86'], False),
        ((8, 0), ['compute_90'], False),
    ])  # fmt: skip
    def test_which_architectures_serve(self, capability, built, expected):
        assert stack.is_built_for(capability, built) is expected


class TestSystem:
    def test_two_distributions_of_one_package(self, tmp_path, monkeypatch):
        for name in ('mmengine', 'onedl-mmengine'):
            info = tmp_path / f'{name.replace("-", "_")}-9.9.dist-info'
            info.mkdir()
            (info / 'METADATA').write_text(f'Name: {name}\nVersion: 9.9\n')
            (info / 'top_level.txt').write_text('mmengine\n')
        monkeypatch.setattr(sys, 'path', [str(tmp_path)])
        found = only(system._duplicates())
        assert found.status == 'warning' and 'mmengine and onedl-mmengine both install mmengine' in found.detail
        assert found.remedy.startswith('pip uninstall -y mmengine onedl-mmengine, then pip install')

    def test_versions_newer_than_tested(self, monkeypatch):
        assert only(system._tested()).status == 'ok'
        monkeypatch.setattr(system, '_installed', lambda: {'torch': '2.12.0+cpu', 'numpy': '2.2.9', 'ruff': '99.0'})
        found = only(system._tested())
        assert found.status == 'warning' and 'torch 2.12.0+cpu (2.11.0)' in found.detail
        assert 'ruff' not in str(found) and 'numpy' not in str(found)
        assert found.remedy == 'if something fails: pip install torch==2.11.0'
        monkeypatch.setattr(system, '_installed', dict)
        assert list(system._tested()) == []

    def test_mim_files(self, tmp_path, monkeypatch):
        assert system._mim().status == 'ok'
        monkeypatch.setattr(system, 'PACKAGE', tmp_path / 'mmstvit')
        mim = tmp_path / 'mmstvit' / '.mim'
        mim.mkdir(parents=True)
        (mim / 'tools').symlink_to('../../tools')  # dangling: the checkout has moved
        found = system._mim()
        assert found.status == 'warning' and 'lacks configs, tools, model-index.yml' in found.detail
        (tmp_path / 'tools').mkdir()
        (mim / 'configs').mkdir()
        (mim / 'model-index.yml').touch()
        assert 'any config' in system._mim().detail

    def test_a_package_that_tools_would_not_find(self, tmp_path, monkeypatch):
        assert system._installation().status == 'ok'
        monkeypatch.setattr(system, 'PACKAGE', tmp_path / 'mmstvit')
        found = system._installation()
        assert found.status == 'warning' and str(ROOT / 'mmstvit') in found.detail
        monkeypatch.setattr(
            sys, 'executable', os.path.realpath(sys.executable)
        )  # the interpreter below the environment
        found = system._installation()
        assert found.status == 'FAILED' and 'pip install -e' in found.remedy

    def test_little_shared_memory(self, monkeypatch):
        monkeypatch.setattr(system.shutil, 'disk_usage', lambda folder: Usage(2**26, 0, 2**26))
        found = only(system._shared_memory('/'))
        assert found.status == 'warning' and '0.06 GiB' in found.detail and '--shm-size' in found.remedy
        monkeypatch.setattr(system.shutil, 'disk_usage', lambda folder: Usage(2**33, 0, 2**33))
        assert only(system._shared_memory('/')).status == 'ok'
        assert list(system._shared_memory('/nowhere')) == []

    @pytest.mark.parametrize(('soft', 'hard', 'remedy'), [
        (256, resource.RLIM_INFINITY, 'ulimit -n 4096'),
        (256, 512, 'ulimit -n 512'),
        (256, 256, 'raise the hard limit'),
    ])  # fmt: skip
    def test_few_open_files(self, monkeypatch, soft, hard, remedy):
        monkeypatch.setattr(resource, 'getrlimit', lambda what: (soft, hard))
        found = only(system._open_files())
        assert found.status == 'warning' and found.remedy.startswith(remedy)
        monkeypatch.setattr(resource, 'getrlimit', lambda what: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert only(system._open_files()).status == 'ok'

    def test_disk(self, tmp_path, monkeypatch):
        folder = tmp_path / 'a' / 'b'
        assert system.disk('disk', folder, 1).status == 'ok'
        assert not folder.parent.exists()
        monkeypatch.setattr(system.shutil, 'disk_usage', lambda folder: Usage(2**40, 0, 10**9))
        assert system.disk('disk', folder).status == 'warning'
        assert system.disk('disk', folder, 10**8).status == 'ok'
        found = system.disk('disk', folder, 6 * 10**8)
        assert found.status == 'FAILED' and 'two checkpoints take 1.1 GiB' in found.detail
        (tmp_path / 'a').touch()
        found = system.disk('disk', folder, 1)
        assert found.status == 'FAILED' and str(tmp_path / 'a') in found.detail


class Dies(training._Parts):
    """A dataset that takes its worker with it."""

    def __getitem__(self, index):
        os._exit(7)


class TestTraining:
    NANO = ROOT / 'configs' / 'mask_rcnn' / 'mask-rcnn_stvit-nano_fpn_scenes.py'
    SMALL = ROOT / 'configs' / 'mask_rcnn' / 'mask-rcnn_stvit-small_fpn_1x_coco.py'

    def test_workers(self, monkeypatch):
        assert only(examine('workers')).status == 'ok'
        monkeypatch.setattr(training, '_Parts', Dies)
        found = only(examine('workers'))
        assert found.status == 'FAILED' and 'worker' in found.detail and 'num_workers=0' in found.remedy

    def test_a_config_that_could_train(self, scenes, tmp_path, monkeypatch):
        monkeypatch.chdir(link_scenes(tmp_path, scenes))
        findings = examine('config', self.NANO)
        assert {f.status for f in findings} == {'ok'}
        names = ['config', 'model', 'pretrained', 'data, train', 'data, val', 'data, test', 'work dir']
        assert [f.name for f in findings] == names
        assert sorted(p.name for p in tmp_path.iterdir()) == ['data']

    def test_each_thing_that_a_config_lacks(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / 'data' / 'coco' / 'val2017').mkdir(parents=True)
        (tmp_path / 'data' / 'coco' / 'annotations').mkdir()
        (tmp_path / 'data' / 'coco' / 'annotations' / 'instances_val2017.json').touch()
        found = {f.name: f for f in examine('config', self.SMALL)}
        assert found['pretrained'].status == 'FAILED' and 'stvit_to_mm.py' in found['pretrained'].detail
        assert found['data, train'].status == 'FAILED' and 'instances_train2017.json' in found['data, train'].detail
        assert found['data, val'].status == 'ok'
        options = ['test_dataloader.dataset.ann_file=gone.json']
        found = {f.name: f for f in examine('config', self.SMALL, options=options)}
        assert found['data, test'].status == 'warning' and 'gone.json' in found['data, test'].detail
        options = ['model.backbone.init_cfg=None', 'model.backbone.arch=smal']
        found = {f.name: f for f in examine('config', self.SMALL, options=options)}
        assert found['model'].status == 'FAILED' and "'smal'" in found['model'].detail
        assert 'pretrained' not in found

    def test_several_configs_of_which_some_are_none(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path('broken.py').write_text('default_scope = 1 / 0\n')
        findings = examine('config', 'nowhere.py', 'broken.py', self.NANO)
        assert findings[0].status == 'FAILED' and 'nowhere.py does not exist' in findings[0].detail
        assert findings[1].status == 'FAILED' and 'division by zero' in findings[1].detail
        assert [f.config for f in findings] == ['nowhere.py', 'broken.py'] + [str(self.NANO)] * 7

    def test_a_logger_that_is_not_installed(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setitem(sys.modules, 'wandb', None)
        options = ['visualizer.vis_backends.1.type=WandbVisBackend']
        found = {f.name: f for f in examine('config', self.NANO, options=options)}
        assert found['visualizer'].status == 'FAILED' and found['visualizer'].remedy == 'pip install wandb'


def test_report_and_exit_code(monkeypatch, capsys, tmp_path):
    findings = [Finding('a', 'ok', 'fine'), Finding('b', 'warning', 'hm', 'do this')]
    assert (exit_code(findings), summary(findings)) == (0, 'training can start: 1 ok, 1 warning, 0 failed')
    findings.append(Finding('c', 'FAILED', 'no', 'do that'))
    assert (exit_code(findings), summary(findings)) == (1, 'training cannot start: 1 ok, 1 warning, 1 failed')
    monkeypatch.setattr('mmstvit.doctor.__main__.ask', lambda *args: iter(findings))
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert 'FAILED   c                 no' in lines
    assert lines[lines.index('FAILED   c                 no') + 1].strip() == '→ do that'
    assert lines[-1].startswith('training cannot start')


def test_every_check_needs_such_as_come_before_it():
    names = list(PROBES)
    assert all(names.index(need) < names.index(name) for name in names for need in PROBES[name].needs)
