"""What mmstvit needs at run time, checked by what is importable.

The original OpenMMLab packages and their maintained OneDL continuation have the same import names, so installed
distributions say nothing: a version is read off the module itself.
"""

import importlib
import re
from types import ModuleType

# import name -> (lowest version that works, what to install)
_CORE = {
    'torch': ('2.4.0', 'pip install "torch>=2.4"'),
    'mmengine': ('0.10.0', 'pip install "onedl-mmengine>=0.10.8"'),
    'mmcv': ('2.0.0', 'pip install onedl-mim && mim install onedl-mmcv'),
}
# The libraries a config can run in; the import name is also the `default_scope`.
LIBRARIES = {
    'mmdet': ('3.0.0', 'pip install onedl-mmdetection'),
    'mmseg': ('1.0.0', 'pip install onedl-mmsegmentation'),
    'mmpretrain': ('1.0.0', 'pip install onedl-mmpretrain torchvision'),
}


def _number(version: str) -> tuple[int, ...]:
    """Leading numbers of a version: '2.11.0+cu130' -> (2, 11, 0)."""
    return tuple(map(int, re.match(r'[\d.]*\d', version).group().split('.')))


def _require(name: str, minimum: str, remedy: str) -> ModuleType:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise ImportError(
                f'mmstvit needs {name}, and importing it fails because {error.name} is missing. Install it with: '
                f'{remedy}'
            ) from error
        raise ImportError(f'mmstvit needs {name} >= {minimum}, which is not installed. Run: {remedy}') from error
    version = getattr(module, '__version__', None)
    if version is None:
        raise ImportError(
            f'mmstvit needs {name} >= {minimum}; what is importable under that name ({module.__path__}) is not the '
            f'package: it has no version. Run: {remedy}'
        )
    if _number(version) < _number(minimum):
        raise ImportError(f'mmstvit needs {name} >= {minimum}, but {version} is installed. Run: {remedy}')
    return module


def check_core() -> None:
    """Check torch, mmengine and mmcv; raises ImportError naming the piece and the command that mends it."""
    for name, (minimum, remedy) in _CORE.items():
        _require(name, minimum, remedy)


def require_library(name: str) -> ModuleType:
    """Import mmdet, mmseg or mmpretrain, checked like :func:`check_core`, with mmcv's compiled ops.

    Args:
        name: Import name, which is also the library's ``default_scope``.

    Returns:
        The module.

    Raises:
        ImportError: It, or mmcv's ops, are missing or too old; the message has the command that mends it.
    """
    minimum, remedy = LIBRARIES[name]
    try:
        importlib.import_module('mmcv._ext')
    except ImportError as error:
        raise ImportError(
            f'{name} needs mmcv with compiled ops, but mmcv._ext does not import ({error}). mmcv was built without '
            f'ops or against another torch. Run: {_CORE["mmcv"][1]}'
        ) from error
    return _require(name, minimum, remedy)
