"""Signals end a command in order, with their exit code and one line; a second one at once."""

import errno
import signal

import pytest

from mmstvit.command_line import user_errors
from mmstvit.interrupts import Interrupted, Interrupts


def test_a_signal_is_noted_and_a_second_one_interrupts():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts() as interrupts:
        assert not interrupts.number
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.number == signal.SIGTERM
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_exit_code_and_one_line_even_if_a_library_catches_it(number, code, capsys):
    with pytest.raises(SystemExit) as ended, user_errors():
        try:
            signal.raise_signal(number)
        except BaseException as error:  # as MMEngine does around the formatter of configs
            raise SyntaxError('of a library') from error
    assert ended.value.code == code
    assert capsys.readouterr().err == 'interrupted.\n'


@pytest.mark.parametrize(
    ('error', 'message'),
    [
        (OSError(errno.ENOSPC, 'No space left on device'), 'error: No space left on device. The traceback is in '),
        (OSError(errno.EROFS, 'Read-only file system', 'run/a\n.log'), r'error: run/a\n.log: Read-only file system.'),
        (
            RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. '),
            'error: DataLoader worker (pid 7) is',
        ),
    ],
)
def test_errors_of_the_machine_are_one_line(error, message):
    with pytest.raises(SystemExit) as ended, user_errors():
        raise error
    assert ended.value.code.startswith(message) and '\n' not in ended.value.code


def test_other_errors_keep_their_traceback():
    with pytest.raises(RuntimeError, match='a fault of ours'), user_errors():
        raise RuntimeError('a fault of ours')
