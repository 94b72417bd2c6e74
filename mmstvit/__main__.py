"""The command ``mmstvit``: runs the scripts of ``tools/``, the page and the doctor from wherever they are installed."""

import ast
import difflib
import sys
from pathlib import Path
from types import ModuleType

from .dependencies import COMMANDS
from .version import __version__

PACKAGE = Path(__file__).resolve().parent


def find_script(name: str) -> Path:
    """Return the script of a command; ``.mim`` is a link to the checkout in an editable install."""
    tool = PACKAGE / '.mim' / 'tools' / COMMANDS[name]
    return tool if tool.exists() else PACKAGE / COMMANDS[name]


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
    command, *arguments = sys.argv[1:] or ['--help']
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
