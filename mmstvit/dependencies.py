"""Check the packages that mmstvit needs at run time by importing them.

The original OpenMMLab packages and their OneDL continuation have the same import names, so the name of an installed
distribution does not tell which one is used: the version is read from the imported module.
"""

import importlib
from pathlib import Path
from types import ModuleType

from .errors import UserError

_PACKAGE = Path(__file__).resolve().parent


# Import name -> (lowest supported version, command that installs it).
CORE = {
    'torch': ('2.6.0', 'pip install "torch>=2.6"'),
    'mmengine': ('0.10.0', 'pip install "onedl-mmengine>=0.10.8"'),
    'mmcv': ('2.0.0', 'mmstvit install-mmcv'),
}
# The libraries that can run a config; the import name is also the `default_scope`.
LIBRARIES = {
    'mmdet': ('3.0.0', 'pip install onedl-mmdetection'),
    'mmseg': ('1.0.0', 'pip install onedl-mmsegmentation'),
    'mmpretrain': ('1.0.0', 'pip install onedl-mmpretrain torchvision'),
}
# Commands of `mmstvit` -> path of the script below tools/, or in the package.
COMMANDS = {
    'new-config': 'new_config.py',
    'verify': 'misc/verify_dataset.py',
    'train': 'train.py',
    'test': 'test.py',
    'predict': 'predict.py',
    'super-tokens': 'visualizations/vis_super_tokens.py',
    'export': 'deployment/export.py',
    'list': 'misc/list_configs.py',
    'app': 'app/__main__.py',
    'scenes': 'dataset_converters/scenes.py',
    'doctor': 'doctor.py',
    'install-mmcv': 'install_mmcv.py',
}


class DependencyError(UserError, ImportError):
    """A package that mmstvit needs is missing, broken or too old."""


def reinstall(command: str) -> str:
    """Return the command that installs a package again, although that version of it is there."""
    if command == CORE['mmcv'][1]:
        return f'{command} --force'
    return command.replace('pip install', 'pip install --force-reinstall')


def require(name: str, minimum: str, command: str) -> ModuleType:
    """Import a package and check its version.

    Args:
        name: Import name.
        minimum: Lowest supported version.
        command: Command that installs the package, for the remedy.

    Returns:
        The module.

    Raises:
        DependencyError: The package is missing, broken or too old.
    """
    needed, remedy = f'mmstvit needs {name} >= {minimum}', f'Run: {command}'
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise DependencyError(f'{needed}, which is not installed.', remedy) from error
        raise DependencyError(f'{needed}, but importing it fails: {error.name} is not installed.', remedy) from error
    except Exception as error:  # a broken binary raises OSError, a library's own version check AssertionError
        raise DependencyError(
            f'{needed}. It is installed, but importing it fails: {type(error).__name__}: {error}.',
            f'Run: {reinstall(command)}',
        ) from error
    # Imported here, so that the tables above can be read where nothing is installed.
    from packaging.version import InvalidVersion, Version

    version = getattr(module, '__version__', None)
    try:
        parsed = Version(str(version))
    except InvalidVersion:
        raise DependencyError(
            f'{needed}, but the module imported under that name has the version {version!r} and is another package: '
            f'{module!r}.',
            remedy,
        ) from None
    if parsed < Version(minimum):
        raise DependencyError(f'{needed}, but {version} is installed.', remedy)
    return module


def check_core() -> None:
    """Check torch, mmengine and mmcv; raises :class:`DependencyError`."""
    for name, (minimum, command) in CORE.items():
        require(name, minimum, command)


def require_library(name: str) -> ModuleType:
    """Import mmdet, mmseg or mmpretrain, and check its version and, except for mmpretrain, mmcv's compiled operators.

    Args:
        name: Import name, which is also the library's ``default_scope``.

    Returns:
        The module.

    Raises:
        DependencyError: The library or mmcv's compiled operators are missing, broken or too old.
        ValueError: ``name`` is not one of the three.
    """
    if name not in LIBRARIES:
        raise ValueError(f'The library must be one of {sorted(LIBRARIES)}, but got {name!r}.')
    minimum, command = LIBRARIES[name]
    if name != 'mmpretrain':  # its classifiers run with mmcv-lite
        try:
            importlib.import_module('mmcv._ext')
        except ImportError as error:
            raise DependencyError(
                f'{name} needs mmcv with compiled operators, but importing mmcv._ext fails: {error}. mmcv was built '
                f'without operators or for another version of torch.',
                f'Run: {reinstall(CORE["mmcv"][1])}',
            ) from error
    return require(name, minimum, command)


def find_installed(path: str) -> Path:
    """Return a file of ``mmstvit/.mim``, where an installation puts, or links, configs and tools.

    Args:
        path: Path below ``.mim``.

    Raises:
        UserError: It is not there.
    """
    file = _PACKAGE / '.mim' / path
    if not file.exists():
        raise UserError(
            f'{file} does not exist: mmstvit is imported from sources that are not installed.',
            'Install it: pip install -e . in the checkout, or its wheel.',
        )
    return file


def tool_command(tool: str) -> str:
    """Return the command that runs a tool, for messages.

    Args:
        tool: Path below ``tools/``, such as ``'model_converters/stvit_to_mm.py'``.

    Returns:
        ``python tools/…`` in a checkout. Where mmstvit is installed as a wheel ``mmstvit …``, or else the full path in
        ``mmstvit/.mim``.
    """
    in_checkout = (_PACKAGE.parent / 'tools' / tool).exists() and (_PACKAGE.parent / 'setup.py').exists()
    for name, script in COMMANDS.items():
        if script == tool and not in_checkout:
            return f'mmstvit {name}'
    folder = Path('tools') if in_checkout else _PACKAGE / '.mim' / 'tools'
    return f'{"bash" if tool.endswith(".sh") else "python"} {folder / tool}'
