"""The wheel, the command ``mmstvit``, the editable install, and the model index that mim reads."""

import email
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import mmengine
import modelindex
import pytest

import mmstvit
from mmstvit.dependencies import CORE

from .helpers import ROOT

PAPER = 'https://arxiv.org/abs/2211.11167'


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    """A wheel, built from a source distribution, built from a copy so that the checkout stays clean."""
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('wheel')
    files = ['setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'MANIFEST.in', 'model-index.yml']
    subprocess.run(['cp', '-r', *(ROOT / name for name in ('mmstvit', 'configs', 'tools', *files)), source], check=True)
    build = 'import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])'
    subprocess.run([sys.executable, '-c', build, out], cwd=source, check=True, capture_output=True)
    (sdist,) = out.glob('mmstvit-*.tar.gz')
    command = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '--wheel-dir', out, sdist]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob('mmstvit-*.whl')
    return built


@pytest.mark.long
def test_a_wheel_holds_every_config_and_tool(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ('configs', 'tools'):
        files = [p.relative_to(ROOT) for p in (ROOT / folder).rglob('*') if p.suffix in ('.py', '.sh', '.yml')]
        assert len(files) > 5
        missing = [str(file) for file in files if f'mmstvit/.mim/{file}' not in names]
        assert not missing
    assert {
        'mmstvit/.mim/model-index.yml',
        'mmstvit/py.typed',
        'mmstvit/apis/new_config/templates/config.py.in',
        'mmstvit/app/page.css',
        'mmstvit/app/page.html',
        'mmstvit/app/page.js',
    } <= names
    modules = [p.relative_to(ROOT) for p in (ROOT / 'mmstvit').rglob('*.py') if '.mim' not in p.parts]
    assert not [str(module) for module in modules if str(module) not in names]
    assert not [name for name in names if '__pycache__' in name or name.startswith('tests')]


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory) -> Path:
    """The ``bin`` of an environment that has mmstvit from the wheel, and other packages from that of this process."""
    folder = tmp_path_factory.mktemp('clean')
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob('lib/python*/site-packages')
    # Added by a .pth file, a folder's own .pth files are not read, among them that of the editable mmstvit.
    (packages / 'others.pth').write_text('\n'.join(path for path in sys.path if path.endswith('site-packages')))
    command = [sys.executable, '-m', 'pip', '--python', folder / 'bin' / 'python', 'install', '--no-deps', wheel]
    subprocess.run(command, check=True, capture_output=True)
    return folder / 'bin'


def run(installed: Path, *command: object, cwd: Path) -> str:
    """Run a command of the environment, and return what it prints."""
    env = {**os.environ, 'PATH': f'{installed}{os.pathsep}{os.environ["PATH"]}', 'PYTHONWARNINGS': 'ignore'}
    env.pop('PYTHONPATH', None)
    done = subprocess.run([*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.long
def test_a_wheel_trains_without_a_checkout(installed, workspace):
    options = ['train_dataloader.dataset.indices=8', 'train_dataloader.batch_size=8', 'train_cfg.max_epochs=1']
    options += ['val_cfg=None', 'val_dataloader=None', 'val_evaluator=None']
    command = ['mmstvit', 'train', 'mmstvit::imagenet/stvit-nano_scenes.py', '--work-dir', 'run']
    run(installed, *command, '--cfg-options', *options, cwd=workspace)
    assert (workspace / 'run' / 'epoch_1.pth').is_file()
    code = 'from mmstvit import doctor; print(doctor.check_installation())'
    assert run(installed, 'python', '-c', code, cwd=workspace).startswith(str(installed.parent))


def test_an_editable_install_links_configs_and_tools_into_the_checkout():
    mim = Path(mmstvit.__file__).parent / '.mim'
    if not mim.is_symlink() and not any(p.is_symlink() for p in mim.iterdir()):
        pytest.skip('mmstvit is not installed in editable mode')
    for name in ('configs', 'tools'):
        assert (mim / name).resolve() == ROOT / name
        assert not Path((mim / name).readlink()).is_absolute()


@pytest.fixture(scope='module')
def models() -> list[dict]:
    """All entries of the metafiles that the model index names."""
    index = mmengine.load(ROOT / 'model-index.yml')
    return [model for file in index['Import'] for model in mmengine.load(ROOT / file)['Models']]


def test_the_model_index_lists_every_config_once_and_claims_no_weights(models):
    configs = {str(p.relative_to(ROOT)) for p in (ROOT / 'configs').rglob('*.py') if '_base_' not in p.parts}
    assert {model['Config'] for model in models} == configs
    assert len({model['Name'] for model in models}) == len(models) == len(configs)
    assert all(Path(model['Config']).stem == model['Name'] for model in models)
    assert not [model for model in models if 'Weights' in model or 'Results' in model]


def test_mim_reads_the_model_index(models):
    """Read it with the package that mim and MMPreTrain use, which collects faults instead of raising."""
    index = modelindex.load(str(ROOT / 'model-index.yml'))
    assert index.check(silent=True) == []
    assert [model.name for model in index.models] == [model['Name'] for model in models]
    assert {model.in_collection for model in index.models} == {collection.name for collection in index.collections}
    for model in index.models:
        assert model.full_model.paper['URL'] == PAPER


@pytest.mark.long
def test_the_metadata_of_a_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
        metadata = email.message_from_bytes(archive.read(name))
    assert (metadata['Version'], metadata['Requires-Python']) == (mmstvit.__version__, '>=3.10')
    assert f'Paper, {PAPER}' in metadata.get_all('Project-URL')
    requirements = metadata.get_all('Requires-Dist')
    always = [r for r in requirements if 'extra ==' not in r]
    minimum = '.'.join(CORE['torch'][0].split('.')[:2])
    assert f'torch>={minimum}' in always
    # The original and the OneDL distributions of the OpenMMLab packages overwrite each other.
    assert not [r for r in always if 'mm' in r or 'onedl' in r]
    onedl = [r for r in requirements if 'extra == "onedl"' in r]
    for name in ('onedl-mmengine', 'onedl-mmdetection', 'onedl-mmsegmentation', 'onedl-mmpretrain'):
        assert any(r.startswith(name) for r in onedl)
    # pip would build mmcv in isolation, without torch and so without its operators.
    assert not [r for r in onedl if 'mmcv' in r]
