"""Dependencies and the ``.mim`` folder; ``pyproject.toml`` has everything else."""

import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM_FILES = ['configs', 'tools', 'model-index.yml']


class BuildWithMim(build_py):
    """Put configs and tools into ``mmstvit/.mim``, where ``mim`` and ``_base_ = 'mmstvit::…'`` look for them.

    A wheel gets copies. An editable install gets relative links into the checkout, so that edits take effect.
    """

    def run(self) -> None:
        """Build the package, then the folder."""
        super().run()
        if self.editable_mode:
            mim = ROOT / 'mmstvit' / '.mim'
            shutil.rmtree(mim, ignore_errors=True)
            mim.mkdir()
            for name in MIM_FILES:
                (mim / name).symlink_to(os.path.relpath(ROOT / name, mim))
        else:
            mim = Path(self.build_lib) / 'mmstvit' / '.mim'
            shutil.rmtree(mim, ignore_errors=True)
            mim.mkdir(parents=True)
            for name in MIM_FILES:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, mim / name, ignore=shutil.ignore_patterns('__pycache__'))
                else:
                    shutil.copy(ROOT / name, mim / name)


# Without mmcv: pip would build it in isolation, without torch, and so without its operators. Without torchvision: each
# release needs one version of torch, and pip would replace the installed one. docs/install.md has both.
onedl = [
    'onedl-mmengine>=0.10.8',
    'onedl-mmdetection>=3.5.1',
    'onedl-mmsegmentation>=1.4.2',
    'onedl-mmpretrain>=1.3',
    'faster-coco-eval',
]
# pip builds this mmcv in isolation, without operators; classifiers do not need them.
classifiers = ['onedl-mmengine>=0.10.8', 'onedl-mmcv>=2.3', 'onedl-mmpretrain>=1.3']
scenes = ['scikit-learn>=1.3', 'scikit-image>=0.22', 'opencv-python', 'pycocotools', 'tqdm', 'tensorboard']
safetensors = ['safetensors>=0.4']
export = ['onnx>=1.16', 'onnxslim>=0.1.90', 'onnxruntime>=1.18', 'openvino>=2024.4']
heic = ['pillow-heif>=1.0']
docs = ['sphinx>=8.1,<9', 'myst-nb>=1.3', 'sphinx-copybutton>=0.5', 'furo']
tests = [
    *safetensors,
    *export,
    *heic,
    *docs,
    'nbclient',
    'ipykernel',
    'playwright>=1.50',
    'pytest>=8',
    'pytest-xdist>=3.8',
    'hypothesis>=6.100',
]

setup(
    # Without mmengine and mmcv: the original and the OneDL distributions have the same import names, and pip would
    # overwrite one with the other. `mmstvit.dependencies` checks what can be imported.
    install_requires=['torch>=2.6', 'numpy', 'defusedxml>=0.7', 'orjson>=3.10', 'packaging', 'pyyaml'],
    extras_require={
        'classifiers': classifiers,
        'docs': docs,
        'export': export,
        'heic': heic,
        'onedl': onedl,
        'safetensors': safetensors,
        'scenes': scenes,
        'tests': scenes + tests,
        'dev': scenes + tests + ['ruff', 'pre-commit'],
    },
    cmdclass={'build_py': BuildWithMim},
)
