"""Checks that import what may be broken, in a process of their own: a crash or a hang there is a finding here.

The doctor asks, the process answers with JSON lines on its standard output. When it dies, another one goes on with the
check behind the one it died of.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..dependencies import CORE, reinstall
from . import stack, training
from .findings import FAILED, WARNING, Finding

TIMEOUT = 300  # seconds for all checks of one process


@dataclass(frozen=True)
class Probe:
    """A check.

    Args:
        run: Yields findings; whatever it raises is a finding too.
        needs: Probes without which there is nothing to look at.
        remedy: What mends it when it raises something, or dies.
        fault: The status of the finding then.
    """

    run: Callable[[stack.State], Iterator[Finding]]
    needs: tuple[str, ...] = ()
    remedy: str = ''
    fault: str = FAILED


_CORE = ('torch', 'mmengine', 'mmcv')
_REINSTALL = f'{sys.executable} -m pip install -e {Path(__file__).resolve().parents[2]}'
PROBES = {
    'torch': Probe(stack.check_torch, remedy=reinstall(CORE['torch'][1])),
    'gpu': Probe(
        stack.check_gpu, ('torch',), 'nvidia-smi; if that works: pip install --force-reinstall torch torchvision'
    ),
    'torchvision': Probe(stack.check_torchvision, ('torch',), 'pip install --force-reinstall torch torchvision'),
    'mmengine': Probe(stack.check_mmengine, ('torch',), reinstall(CORE['mmengine'][1])),
    'mmcv': Probe(stack.check_mmcv, ('mmengine',), CORE['mmcv'][1]),
    'mmcv ops': Probe(stack.check_mmcv_ops, ('mmcv',), CORE['mmcv'][1]),
    'mmcv ops, gpu': Probe(stack.check_mmcv_ops_on_gpu, ('mmcv ops', 'gpu'), CORE['mmcv'][1]),
    'mmstvit': Probe(stack.check_mmstvit, _CORE, _REINSTALL),
    'backend': Probe(stack.check_backend, ('mmstvit', 'gpu'), 'MMSTVIT_BACKEND=torch'),
    'libraries': Probe(stack.check_libraries, ('mmstvit', 'mmcv ops')),
    'workers': Probe(training.check_workers, ('torch',), '--cfg-options train_dataloader.num_workers=0'),
    'data': Probe(training.check_data_sets, ('mmstvit',)),
    'config': Probe(training.check_configs, ('mmstvit', 'libraries')),
    'collect_env': Probe(stack.collect_environment, ('mmengine',), fault=WARNING),
}


@dataclass
class _Request:
    """What the doctor asks of a process."""

    probes: list[str]
    configs: list[str]
    cfg_options: list[str]
    broken: list[str] = field(default_factory=list)


def ask(configs: list[str], cfg_options: list[str], facts: dict[str, str]) -> Iterator[Finding]:
    """Run all checks.

    Args:
        configs: Paths of the configs to check.
        cfg_options: What overrides their settings.
        facts: What the report says of the environment; more is added to it.

    Yields:
        Findings, as they come.
    """
    request = _Request(list(PROBES), configs, cfg_options)
    while request.probes:
        reason = yield from _converse(request, facts)
        if request.probes:
            name = request.probes.pop(0)
            request.broken.append(name)
            yield Finding(name, PROBES[name].fault, reason, PROBES[name].remedy)


def _converse(request: _Request, facts: dict[str, str]) -> Iterator[Finding]:
    """Pass on what one process finds, and strike off what it has done; returns how it ended."""
    command = [sys.executable, '-m', f'{__package__}', '--probe', json.dumps(vars(request))]
    with (
        tempfile.TemporaryFile('w+') as noise,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=noise, text=True) as process,
    ):
        watch = threading.Timer(TIMEOUT, process.kill)
        watch.start()
        for line in process.stdout:
            kind, content = json.loads(line)
            if kind == 'finding':
                yield Finding(**content)
            elif kind == 'facts':
                facts.update(content)
            else:
                request.probes.remove(content['name'])
                if content['broken']:
                    request.broken.append(content['name'])
        code = process.wait()
        late = not watch.is_alive()
        watch.cancel()
        noise.seek(0)
        last = noise.read().strip().rpartition('\n')[2]
    said = f'; its last words: {last}' if last else ''
    if late:
        return f'it did not end within {TIMEOUT} s'
    if code < 0:
        return f'the process that tried it was killed by {signal.Signals(-code).name}{said}'
    return f'the process that tried it ended with exit code {code}{said}'


def answer(text: str) -> None:
    """The other side: run the checks of a request and write what they find.

    Args:
        text: The request as JSON.
    """
    request = _Request(**json.loads(text))
    # What libraries print must not come between the findings: their standard output is from now on the error output.
    with os.fdopen(os.dup(sys.stdout.fileno()), 'w') as channel:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

        def tell(kind: str, content: dict) -> None:
            print(json.dumps([kind, content]), file=channel, flush=True)

        state = stack.State(request.configs, request.cfg_options, set(request.broken))
        for name in request.probes:
            broken = False
            for finding in _examine(name, state):
                tell('finding', vars(finding))
                broken |= finding.status == FAILED
            if broken:
                state.broken.add(name)
            if state.facts:
                tell('facts', state.facts)
            tell('done', dict(name=name, broken=name in state.broken))


def _examine(name: str, state: stack.State) -> Iterator[Finding]:
    probe = PROBES[name]
    missing = [need for need in probe.needs if need in state.broken]
    if missing:
        state.broken.add(name)
        yield Finding(name, WARNING, f'not checked: that needs {missing[0]}')
        return
    try:
        yield from probe.run(state)
    except ImportError as error:  # those of mmstvit.dependencies end in the command
        detail, _, remedy = str(error).partition(' Run: ')
        yield Finding(name, probe.fault, detail, remedy or probe.remedy)
    except Exception as error:  # a broken package raises whatever it likes
        yield Finding(name, probe.fault, f'{type(error).__name__}: {error}', probe.remedy)
