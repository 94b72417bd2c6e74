"""Install PyTorch, the OpenMMLab stack and mmstvit into the environment of this Python; called by setup_env.py.

An environment that setup_env.py created gets the versions of requirements/tested.txt. To any other environment it only
adds missing packages: nothing but an old setuptools is upgraded, and packages with the same import name (the original
OpenMMLab distributions, a prebuilt mmcv) stay, because two distributions with one import name overwrite each other.
"""

import argparse
import importlib.metadata
import importlib.util
import re
import sys
import tempfile
from pathlib import Path

from setup_env import MARKER, PINS, ROOT, check_python, log

sys.path.append(str(ROOT))  # mmstvit is not installed yet

from mmstvit import install_mmcv
from mmstvit.install_mmcv import InstallError, pip, run_python

# Installed first: mmcv is built with the first six, and a change of the last three must not be left to the resolver.
BASE = ['pip', 'setuptools', 'wheel', 'packaging', 'ninja', 'psutil', 'torch', 'torchvision', 'numpy']
# Distribution of the OneDL line -> import name, which the original distribution has, too.
STACK = {
    'onedl-mmengine': 'mmengine',
    'onedl-mmdetection': 'mmdet',
    'onedl-mmsegmentation': 'mmseg',
    'onedl-mmpretrain': 'mmpretrain',
}


def read_pins() -> dict[str, str]:
    """Read requirements/tested.txt: distribution name to version."""
    return dict(re.findall(r'^([\w-]+)==(\S+)', PINS.read_text(), re.MULTILINE))


def installed() -> dict[str, str]:
    """Return normalized name and version of every distribution in this environment."""
    found = {d.metadata['Name']: d.version for d in importlib.metadata.distributions() if d.metadata['Name']}
    return {re.sub('[-_.]+', '-', name).lower(): version for name, version in found.items()}


def add(names: list[str], pins: dict[str, str], ours: bool) -> None:
    """Install the missing packages, and in an environment of ours those of another version than the pinned one."""
    have = installed()
    if ours:  # a local version label such as +cu130 does not count
        have = {name: version for name, version in have.items() if version.partition('+')[0] == pins.get(name)}
    elif int(have.get('setuptools', '0').partition('.')[0]) < 77:  # cannot build mmcv and mmstvit
        have.pop('setuptools', None)
    wanted = [f'{name}=={pins[name]}' for name in names if name not in have]
    if not wanted:
        return
    log(f'installing {", ".join(wanted)}')
    # Python compiles what it imports; compiling all 21,000 files would take a third of pip's time.
    options = ['--no-compile'] if ours else []
    with tempfile.NamedTemporaryFile('w', suffix='.txt') as constraints:  # nothing may pull another torch in
        constraints.writelines(f'{name}=={have.get(name, version)}\n' for name, version in pins.items())
        constraints.flush()
        pip('install', *options, '--constraint', constraints.name, *wanted)


def add_packages(pins: dict[str, str], ours: bool) -> None:
    """Install all pinned packages but mmcv, and no package of the OneDL line over an original one."""
    add(BASE, pins, ours)
    if run_python('import torch, torchvision').returncode:
        raise InstallError('torch and torchvision do not fit together. Install both from the same source.')
    have = installed()
    kept = [name for name, module in STACK.items() if name not in have and importlib.util.find_spec(module)]
    if kept:
        log(f'keeping the installed {", ".join(STACK[name] for name in kept)}')
    add([name for name in pins if name not in (*BASE, install_mmcv.NAME, *kept)], pins, ours)


def fill() -> None:
    """Install everything into the environment of this Python."""
    check_python(sys.version_info[:3], sys.executable)
    install_mmcv.check()  # before the long downloads
    add_packages(read_pins(), (Path(sys.prefix) / MARKER).exists())
    install_mmcv.install()
    pip('install', '--quiet', '--no-deps', '--no-build-isolation', '--editable', ROOT)
    names = ', '.join(['torch', 'torchvision', *STACK.values(), 'mmcv', 'mmstvit'])
    done = run_python(f'import {names}; mmstvit.STViT; print(*[(m.__name__, m.__version__) for m in ({names})])')
    if done.returncode:
        raise InstallError(f'the packages are installed, but cannot be imported:\n{done.stderr}')
    log(install_mmcv.last_line(done.stdout))


if __name__ == '__main__':
    argparse.ArgumentParser(description=__doc__.split('\n')[0]).parse_args()  # --help must not install anything
    try:
        fill()
    except InstallError as error:
        sys.exit(f'[setup] error: {error}')
