"""What mmstvit needs at run time, checked by what is importable.

The original OpenMMLab packages and their maintained OneDL continuation have the same import names, so installed
distributions say nothing: a version is read off the module itself.
"""

import importlib
from pathlib import Path
from types import ModuleType

# import name -> (lowest version that works, what to install)
CORE = {
    'torch': ('2.4.0', 'pip install "torch>=2.4"'),
    'mmengine': ('0.10.0', 'pip install "onedl-mmengine>=0.10.8"'),
    'mmcv': ('2.0.0', 'pip install onedl-mim && mim install onedl-mmcv (CUDA), or make env (CPU)'),
}
# The libraries a config can run in; the import name is also the `default_scope`.
LIBRARIES = {
    'mmdet': ('3.0.0', 'pip install onedl-mmdetection'),
    'mmseg': ('1.0.0', 'pip install onedl-mmsegmentation'),
    'mmpretrain': ('1.0.0', 'pip install onedl-mmpretrain torchvision'),
}


def reinstall(remedy: str) -> str:
    """The command that installs anew: pip alone does nothing about a version that fits, broken or not."""
    return remedy if ' mim ' in remedy else remedy.replace('pip install', 'pip install --force-reinstall')


def require(name: str, minimum: str, remedy: str) -> ModuleType:
    """Import a package and check its version.

    Args:
        name: Import name.
        minimum: Lowest version that works.
        remedy: The command that installs or mends it, for the message.

    Returns:
        The module.

    Raises:
        ImportError: It is missing, broken or too old; the message says which, and has the remedy.
    """
    # Here, so that the doctor can read the tables above where nothing is installed.
    from packaging.version import InvalidVersion, Version

    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise ImportError(
                f'mmstvit needs {name}, and importing it fails because {error.name} is missing. Run: {remedy}'
            ) from error
        raise ImportError(f'mmstvit needs {name} >= {minimum}, which is not installed. Run: {remedy}') from error
    except Exception as error:  # a broken binary raises OSError, a library's own version check AssertionError
        raise ImportError(
            f'mmstvit needs {name} >= {minimum}; it is installed but does not import: {type(error).__name__}: {error}. '
            f'Its parts do not fit together. Run: {reinstall(remedy)}'
        ) from error
    version = getattr(module, '__version__', None)
    try:
        parsed = Version(str(version))
    except InvalidVersion:
        raise ImportError(
            f'mmstvit needs {name} >= {minimum}; what is importable under that name ({module!r}) has the version '
            f'{version!r} and is not the package. Run: {remedy}'
        ) from None
    if parsed < Version(minimum):
        raise ImportError(f'mmstvit needs {name} >= {minimum}, but {version} is installed. Run: {remedy}')
    return module


def check_core() -> None:
    """Check torch, mmengine and mmcv; raises ImportError naming the piece and the command that mends it."""
    for name, (minimum, remedy) in CORE.items():
        require(name, minimum, remedy)


def require_library(name: str) -> ModuleType:
    """Import mmdet, mmseg or mmpretrain, checked like :func:`check_core`, with mmcv's compiled ops.

    Args:
        name: Import name, which is also the library's ``default_scope``.

    Returns:
        The module.

    Raises:
        ImportError: It, or mmcv's ops, are missing or too old; the message has the command that mends it.
        ValueError: ``name`` is none of the three.
    """
    if name not in LIBRARIES:
        raise ValueError(f'{name!r} is not a library that mmstvit plugs into; those are {sorted(LIBRARIES)}.')
    minimum, remedy = LIBRARIES[name]
    try:
        importlib.import_module('mmcv._ext')
    except ImportError as error:
        raise ImportError(
            f'{name} needs mmcv with compiled ops, but mmcv._ext does not import ({error}). mmcv was built without '
            f'ops or against another torch. Run: {CORE["mmcv"][1]}'
        ) from error
    return require(name, minimum, remedy)


def tool_command(tool: str) -> str:
    """Return the command that runs a tool, for messages.

    Args:
        tool: Path below ``tools/``, such as ``'model_converters/stvit_to_mm.py'``.

    Returns:
        ``python tools/…`` in a checkout; with the full path in ``mmstvit/.mim`` where mmstvit is installed as a wheel.
    """
    package = Path(__file__).resolve().parent
    in_checkout = (package.parent / 'tools' / tool).exists() and (package.parent / 'setup.py').exists()
    folder = Path('tools') if in_checkout else package / '.mim' / 'tools'
    return f'{"bash" if tool.endswith(".sh") else "python"} {folder / tool}'
