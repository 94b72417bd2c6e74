"""Run tools in processes that are forked from one in which the libraries are already imported.

Importing them takes most of the time of a short run. What runs is a process of its own in all other respects: it can
be killed, fail, or be one of several that train together.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import random
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .helpers import free_port
from .in_process import shorten_logs

ROOT = Path(__file__).resolve().parents[1]
GRACE = 20  # seconds that the other processes have when one of several has failed, as with a launcher


@functools.cache
def server() -> subprocess.Popen:
    """Start the process that forks others; it ends with this one."""
    env = {**os.environ, 'GOMP_SPINCOUNT': '1000', 'PYTHONWARNINGS': 'ignore'}
    command = [sys.executable, '-m', 'tests.fork_server']
    process = subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    atexit.register(process.stdin.close)
    return process


def fork(
    tool: str,
    *args: object,
    cwd: Path,
    env: dict[str, str] | None = None,
    processes: int = 1,
    kill_when: Path | None = None,
    timeout: float = 400,
    code: int = 0,
) -> subprocess.CompletedProcess[str]:
    """Run ``tools/<tool>`` in forked processes, and check how they end.

    Args:
        tool: Path of a Python script below ``tools``.
        *args: Its arguments.
        cwd: Working directory.
        env: Additional environment variables; ``PYTHONPATH`` works.
        processes: Number of processes that train together, as torchrun starts them.
        kill_when: Send SIGKILL as soon as this path exists.
        timeout: Seconds.
        code: The expected return code: the first that is not 0; negative for a signal.

    Returns:
        Output of all processes.
    """
    env = dict(env or {})
    if processes > 1:
        args = args if tool == 'predict.py' else (*args, '--launcher', 'pytorch')
        env |= {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': free_port()['PORT'], 'WORLD_SIZE': str(processes)}
        env['TORCHELASTIC_RUN_ID'] = 'tests'  # by which PyTorch knows torchrun
    with tempfile.TemporaryDirectory() as folder:
        request = dict(
            tool=str(ROOT / 'tools' / tool),
            args=[*map(str, args)],
            cwd=str(cwd),
            env=env,
            processes=processes,
            kill_when=kill_when and str(kill_when),
            timeout=timeout,
            folder=folder,
        )
        print(json.dumps(request), file=server().stdin, flush=True)
        ended = int(server().stdout.readline())
        outputs = [''.join(p.read_text() for p in sorted(Path(folder).glob(f'{s}_*'))) for s in ('out', 'err')]
    assert ended == code, f'{tool} ended with {ended}:\n{outputs[0][-1000:]}\n{outputs[1][-3000:]}'
    return subprocess.CompletedProcess([tool, *args], ended, *outputs)


def preload() -> None:
    """Import what the tools would import."""
    for module in ('mmdet.models', 'mmpretrain.models', 'mmseg.models', 'mmstvit.apis', 'mmstvit.engine'):
        importlib.import_module(module)
    shorten_logs()
    gc.freeze()  # a collection then skips the libraries


def serve() -> None:
    """Answer requests, one JSON object per line, with a return code."""
    preload()
    for line in sys.stdin:
        request = json.loads(line)
        pids = []
        for rank in range(request['processes']):
            pids.append(os.fork())
            if pids[-1] == 0:
                become(request, rank)
                return  # the interpreter ends as that of any script
        print(wait(pids, request), flush=True)


def become(request: dict, rank: int) -> None:
    """Run the tool in this process."""
    os.setpgid(0, 0)
    for stream, name in (
        (0, os.devnull),
        (1, f'{request["folder"]}/out_{rank}'),
        (2, f'{request["folder"]}/err_{rank}'),
    ):
        file = os.open(name, os.O_RDWR | os.O_CREAT)
        os.dup2(file, stream)
        os.close(file)
    os.chdir(request['cwd'])
    os.environ.update(request['env'])
    sys.path[:0] = filter(None, request['env'].get('PYTHONPATH', '').split(os.pathsep))
    if request['processes'] > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    random.seed()
    sys.modules['numpy'].random.seed()
    sys.argv = [request['tool'], *request['args']]
    runpy.run_path(request['tool'], run_name='__main__')


def wait(pids: list[int], request: dict) -> int:
    """Wait for processes, and kill those that run too long."""
    deadline = time.monotonic() + request['timeout']
    result = 0
    while pids:
        time.sleep(0.002)
        if time.monotonic() > deadline or (request['kill_when'] and os.path.exists(request['kill_when'])):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
        for pid in list(pids):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                pids.remove(pid)
                code = os.waitstatus_to_exitcode(status)
                if code != 0:
                    deadline = min(deadline, time.monotonic() + GRACE)
                    result = result or code
    return result


if __name__ == '__main__':
    serve()
