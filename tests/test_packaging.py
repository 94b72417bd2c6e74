"""What an installed mmstvit brings: metadata, configs and tools where mim looks for them."""

import subprocess
import sys
import zipfile
from importlib.metadata import metadata, requires
from pathlib import Path

import mmengine
import modelindex
import pytest

import mmstvit

from .helpers import ROOT, run_python


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    """A wheel built from a copy of the tracked files, so that the checkout stays clean."""
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('wheel')
    for name in (
        'mmstvit',
        'configs',
        'tools',
        'setup.py',
        'pyproject.toml',
        'README.md',
        'LICENSE',
        'MANIFEST.in',
        'model-index.yml',
    ):
        copy = ['cp', '-r', ROOT / name, source]
        subprocess.run(copy, check=True)
    command = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '--wheel-dir', out, source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob('mmstvit-*.whl')
    return built


def test_a_wheel_holds_every_config_and_tool(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ('configs', 'tools'):
        files = [p.relative_to(ROOT) for p in (ROOT / folder).rglob('*') if p.suffix in ('.py', '.sh', '.yml')]
        assert len(files) > 5
        missing = [str(file) for file in files if f'mmstvit/.mim/{file}' not in names]
        assert not missing
    assert 'mmstvit/.mim/model-index.yml' in names
    modules = [p.relative_to(ROOT) for p in (ROOT / 'mmstvit').rglob('*.py') if '.mim' not in p.parts]
    assert not [str(module) for module in modules if str(module) not in names]
    assert not [name for name in names if '__pycache__' in name or name.startswith('tests')]


def test_an_editable_install_links_configs_and_tools_into_the_checkout():
    mim = Path(mmstvit.__file__).parent / '.mim'
    if not mim.is_symlink() and not any(p.is_symlink() for p in mim.iterdir()):
        pytest.skip('mmstvit is not installed in editable mode')
    for name in ('configs', 'tools'):
        assert (mim / name).resolve() == ROOT / name
        assert not Path((mim / name).readlink()).is_absolute()


@pytest.mark.parametrize('base', ['_base_/datasets/scenes_instance.py', 'mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py'])
def test_other_projects_can_inherit_from_our_configs(tmp_path, base):
    (tmp_path / 'mine.py').write_text(f"_base_ = 'mmstvit::{base}'\n")
    code = "import mmstvit; from mmengine.config import Config; print(Config.fromfile('mine.py').dataset_type)"
    done = run_python(code, tmp_path)
    assert done.stdout.strip() == 'CocoDataset', done.stderr


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


def test_the_model_index_tells_what_a_model_costs_and_is_trained_on(models):
    for model in models:
        metadata = model['Metadata']
        assert metadata['Training Data'] in ('ImageNet-1k', 'COCO', 'ADE20K', 'bundled scenes')
        assert ('Epochs' in metadata) != ('Iterations' in metadata)
        assert metadata['FLOPs'] > metadata['Parameters'] > 1e6  # plain numbers, not millions


def test_mim_reads_the_model_index(models):
    """With the reader that mim and MMPreTrain use; it collects what is wrong instead of raising."""
    index = modelindex.load(str(ROOT / 'model-index.yml'))
    assert index.check(silent=True) == []
    assert [model.name for model in index.models] == [model['Name'] for model in models]
    assert {model.in_collection for model in index.models} == {collection.name for collection in index.collections}
    for model in index.models:
        assert model.full_model.paper['URL'] == 'https://arxiv.org/abs/2211.11167'


def test_metadata_states_ranges_and_forces_no_openmmlab_distribution():
    assert metadata('mmstvit')['Version'] == mmstvit.__version__
    always = [r for r in requires('mmstvit') if 'extra ==' not in r]
    assert 'torch>=2.4' in always
    assert not [r for r in always if 'mm' in r or 'onedl' in r]
    onedl = [r for r in requires('mmstvit') if 'extra == "onedl"' in r]
    for name in ('onedl-mmengine', 'onedl-mmdetection', 'onedl-mmsegmentation', 'onedl-mmpretrain'):
        assert any(r.startswith(name) for r in onedl)
    # pip would build mmcv in isolation, without torch and so without ops.
    assert not [r for r in onedl if 'mmcv' in r]
