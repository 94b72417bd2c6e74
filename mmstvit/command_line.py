"""The command lines of the tools: their parser, the options that they share, and their errors.

Nothing here imports torch at once: a tool parses its arguments first, and then imports in ``main()`` what it needs.
"""

import argparse
import contextlib
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from .dependencies import COMMANDS, DependencyError, check_core, tool_command
from .errors import UserError, one_line, save_traceback
from .interrupts import Interrupted, Interrupts, interrupt

CONFIG_SUFFIXES = ('.py', '.yml', '.yaml', '.json')
# Of checkpoints, exported files and configs.
_MODEL_SUFFIXES = ('.pth', '.pt', '.bin', '.ckpt', '.safetensors', '.onnx', '.xml', *CONFIG_SUFFIXES)


def make_parser(doc: str, prog: str | None = None, epilog: str | None = None) -> argparse.ArgumentParser:
    """Return a parser whose help begins with the docstring of a tool, and set up OpenMP for the process.

    Threads of OpenMP spin while they wait, and take the cores that other processes need. The library reads its settings
    when torch is imported; those of the user stay.

    Args:
        doc: The docstring. Its examples, ``python tools/…``, become ``mmstvit …`` if that command was typed.
        prog: The command; by default the one that was typed.
        epilog: Text below the options.
    """
    if 'OMP_WAIT_POLICY' not in os.environ:
        os.environ.setdefault('GOMP_SPINCOUNT', '1000')
    doc = re.sub(r'::$', ':', doc.replace('``', ''), flags=re.MULTILINE)
    if sys.argv[0].startswith('mmstvit '):
        names = {script: f'mmstvit {name}' for name, script in COMMANDS.items()}
        doc = re.sub(r'python tools/(\S+)', lambda found: names.get(found[1]) or tool_command(found[1]), doc)
    formatter = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(prog, description=doc, epilog=epilog, formatter_class=formatter)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add OpenMMLab's ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_KeyValues,
        help='override settings of the config, as key=value pairs. A list is key="[a,b]" or key=a,b; nested lists and '
        'tuples such as key="[(a,b),(c,d)]" are allowed. The quotation marks are necessary; no white space is '
        'allowed.',
    )


class _KeyValues(argparse.Action):
    """MMEngine's action, with an error of argparse for a pair without a value and for a key that cannot be one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        for pair in values:
            key, equals, _ = pair.partition('=')
            if not equals:
                parser.error(f'{option_string} needs key=value, but got {pair!r}')
            if not re.fullmatch(r'[\w-]+(\.[\w-]+)*', key):
                parser.error(f'{option_string} needs a key such as model.backbone.arch, without quotes, but got {key}')
        with user_errors():
            from mmengine.config import DictAction
        DictAction(self.option_strings, self.dest)(parser, namespace, values, option_string)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that OpenMMLab's ``train.py`` and ``test.py`` have in common."""
    add_cfg_options(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # torch.distributed.launch passes --local-rank, torchrun sets LOCAL_RANK.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_ignore(parser: argparse.ArgumentParser) -> None:
    """Add ``--ignore``."""
    parser.add_argument(
        '--ignore',
        action='append',
        metavar='KIND',
        help='go on in spite of findings of this kind, such as "missing files"; may be repeated (docs/data.md)',
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument('--device', default='auto', help='cpu, cuda, cuda:1, … (auto: a GPU if there is one)')


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust-checkpoint``."""
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='load checkpoints even if that executes code in them: only from people whom you trust',
    )


def add_paths(parser: argparse.ArgumentParser, src: str, dst: str) -> None:
    """Add the files of a converter, ``src`` and ``dst``, with these help texts, and ``--force``."""
    parser.add_argument('src', type=Path, help=src)
    parser.add_argument('dst', type=Path, help=dst)
    parser.add_argument('--force', action='store_true', help='overwrite the file if it exists')


def positive(text: str) -> int:
    """Return a whole number of 1 or more, as a type of argparse."""
    return _whole(text, 1)


def count(text: str) -> int:
    """Return a whole number of 0 or more, as a type of argparse."""
    return _whole(text, 0)


def _whole(text: str, minimum: int) -> int:
    if not text.isdecimal() or int(text) < minimum:
        raise argparse.ArgumentTypeError(f'must be a whole number of {minimum} or more, but got {text}')
    return int(text)


def order_arguments(
    model: str, inputs: Sequence[str], suffixes: Sequence[str] = _MODEL_SUFFIXES
) -> tuple[str, list[str]]:
    """Return model and inputs of a command in that order, also where the model was typed last.

    Args:
        model: What was typed first.
        inputs: What was typed after it.
        suffixes: Suffixes by which a model is told from inputs; of a command that takes a config first, its suffixes.
    """
    first, last = (Path(name).suffix.lower() in suffixes for name in (model, inputs[-1]))
    return (inputs[-1], [model, *inputs[:-1]]) if last and not first else (model, list(inputs))


def order_config(args: argparse.Namespace, other: str = 'checkpoint') -> argparse.Namespace:
    """Return the arguments of a command with the config under ``config``, also where it was typed after ``other``."""
    args.config, (found,) = order_arguments(args.config, [getattr(args, other)], CONFIG_SUFFIXES)
    setattr(args, other, found)
    return args


def print_rows(rows: Mapping[str, object]) -> None:
    """Print names and values in two columns."""
    width = max(map(len, rows))
    print_lines(f'  {name:<{width}}  {one_line(str(value))}' for name, value in rows.items())


def print_lines(lines: Iterable[str]) -> None:
    """Print lines, of which the reader may take some only."""
    try:
        print('\n'.join(lines), flush=True)
    except BrokenPipeError:  # the reader (head, less) has gone; Python would complain again when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Check that PyTorch, MMEngine and mmcv can be imported; print errors that the user can fix.

    These are :class:`UserError` and its subclasses, and ImportError. They end the process with
    ``error: <problem> <remedy>`` and the exit code 1. Of an error in code of the user's own, the message names a file
    with the traceback. So do errors of files, such as a full disk, and of a data loader's worker that was killed. A
    signal ends the process with 128 and its number, and one line.
    """
    try:
        with Interrupts(interrupt):
            check_core()
            # mmcv's, of every call with Pillow, which is how MMPreTrain's color transforms call it (tried: 2.3.6)
            warnings.filterwarnings('ignore', "Only use 'alpha' for pillow backend")
            yield
            sys.stdout.flush()
    except BrokenPipeError:  # the program that reads the output has ended, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (Exception, Interrupted) as error:
        code = _explain(error)
        if code is None:
            raise
        if isinstance(code, str):
            _tell_torchrun(code)
        sys.exit(code)


def _tell_torchrun(message: str) -> None:
    """Write a message where torchrun reads it, which shows it again below its own traceback."""
    if file := os.environ.get('TORCHELASTIC_ERROR_FILE'):
        content = dict(message=message, extraInfo=dict(timestamp=int(time.time())))
        with contextlib.suppress(OSError):  # the disk may be full
            Path(file).write_text(json.dumps(dict(message=content)))


def _explain(error: BaseException) -> str | int | None:
    """Return the message with which a command ends, or its exit code after a signal; None for an error of our own."""
    cause = error
    while cause is not None and not isinstance(cause, Interrupted):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:  # libraries may catch it and raise an error of theirs
        if cause.saved or os.environ.get('RANK', '0') == '0':
            print(one_line(f'interrupted. {cause.saved}'.rstrip()), file=sys.stderr)
        return 128 + cause.number
    if isinstance(error, DependencyError):
        return f'error: {error}'
    if isinstance(error, (UserError, ImportError)):
        from .compat import worker_message

        return f'error: {worker_message(error)}{save_traceback(error)}'
    text = ''
    if isinstance(error, OSError):
        text = f'{error.filename}: {error.strerror}' if error.filename else error.strerror or str(error)
    elif isinstance(error, RuntimeError) and str(error).startswith('DataLoader worker (pid'):  # torch 2.6 to 2.14
        text = f'{str(error).partition(". ")[0]}; often memory has run out. Use fewer of them (num_workers)'
    return one_line(f'error: {text}.{save_traceback(error, always=True)}') if text else None
