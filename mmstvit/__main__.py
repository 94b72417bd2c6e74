"""The command ``mmstvit``: runs the scripts of ``tools/``, the page and the doctor from wherever they are installed."""

import ast
import difflib
import sys
from pathlib import Path
from types import ModuleType

from .dependencies import COMMANDS, find_installed
from .errors import UserError
from .version import __version__

PACKAGE = Path(__file__).resolve().parent
_MODULES = ('app', 'doctor', 'install-mmcv')  # commands whose scripts are modules of the package


def find_script(name: str) -> Path:
    """Return the script of a command: in the package, or among the tools of the installation; raises UserError."""
    return PACKAGE / COMMANDS[name] if name in _MODULES else find_installed(f'tools/{COMMANDS[name]}')


def summarize(script: Path) -> str:
    """Return the first line of a script's docstring."""
    return ast.get_docstring(ast.parse(script.read_text(encoding='utf-8'))).splitlines()[0].replace('``', '')


def usage() -> str:
    """Return the list of commands."""
    width = max(map(len, COMMANDS))
    lines = [f'  {name:<{width}}  {summarize(find_script(name))}' for name in COMMANDS]
    return '\n'.join(['usage: mmstvit COMMAND [ARGUMENTS], mmstvit COMMAND --help, mmstvit --version', '', *lines])


def run_script(script: Path) -> None:
    """Run a script as ``python SCRIPT`` does, but keep ``sys.argv[0]``: argparse takes the program's name from it."""
    module = sys.modules['__main__'] = ModuleType('__main__')
    module.__file__ = str(script)
    if '.mim' not in script.parts:  # a module of the package, which imports relative to it
        module.__package__ = '.'.join(script.relative_to(PACKAGE.parent).parts[:-1])
    exec(compile(script.read_text(encoding='utf-8'), script, 'exec'), module.__dict__)


def main() -> int:
    """Run the command that the first argument names, with the other arguments."""
    try:
        return _run(*sys.argv[1:] or ['--help'])
    except UserError as error:  # the tools are not installed
        print(f'error: {error}', file=sys.stderr)
        return 1


def _run(command: str, *arguments: str) -> int:
    if command in ('-h', '--help'):
        print(usage())
    elif command == '--version':
        print(__version__)
    elif command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f' Did you mean {near[0]}?' if near else ''
        print(f'error: mmstvit has no command {command!r}.{hint}\n{usage()}', file=sys.stderr)
        return 2
    else:
        sys.argv = [f'mmstvit {command}', *arguments]
        run_script(find_script(command))
    return 0


if __name__ == '__main__':
    sys.exit(main())
