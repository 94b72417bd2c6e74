"""One backbone in a process of its own: what :mod:`mmstvit.analysis.benchmark` asks it to do.

A process of its own, so that no backbone sees the memory, the caches, the compiled code or the death of another. The
matrix product that tells the peak of the processor has one, too.
"""

import contextlib
import ctypes
import gc
import multiprocessing
import platform
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from mmstvit.apis import UserError
from mmstvit.models import STViT
from mmstvit.ops.cpu import dense

from .agreement import AUTOCAST_DTYPES, backward, check_agreement, in_dtype
from .backbones import Entry, build_backbone
from .counter import count_macs
from .profiling import profile

NUM_MAPS = 4
# AdamW as in the recipes, fused, at a rate that leaves the weights where they are.
_OPTIMIZER = dict(lr=1e-6, weight_decay=0.05, fused=True)
# (M, K, N) of the product (M, K) × (K, N) that tells the peak: large enough to run at it, by the type of the device.
PROBES = {'cpu': (64 * 64, 1024, 1024), 'cuda': (8192, 8192, 8192)}

_STATUS = Path('/proc/self/status')
_CLEAR_REFS = Path('/proc/self/clear_refs')
_M_MMAP_THRESHOLD = -3  # glibc's malloc.h


@dataclass(frozen=True)
class Setting:
    """What all backbones of a run have in common.

    Args:
        train: Whether a step is forward, backward and AdamW in training mode, or forward in evaluation mode.
        dtype: ``'fp32'``, or ``'bf16'`` or ``'fp16'`` for autocast; weights are fp32.
        compile: Whether every backbone runs through ``torch.compile``.
        batch_size: Images per step.
        device: As ``torch.device`` names it.
        threads: Threads of the CPU; None for PyTorch's default.
    """

    train: bool = False
    dtype: str = 'fp32'
    compile: bool = False
    batch_size: int = 1
    device: str = 'cpu'
    threads: int | None = None


class Bench:
    """A backbone on its bench.

    Args:
        entry: The backbone.
        setting: How to run it.
    """

    def __init__(self, entry: Entry, setting: Setting) -> None:
        self.entry = entry
        self.setting = setting if entry.dtype is None else replace(setting, dtype=entry.dtype)
        self.device = _set_up(setting)
        self.compiled = entry.compile or setting.compile

    def check(self) -> dict[str, float] | None:
        """Compare a backbone of ours with the published algorithm; see :func:`check_agreement`.

        Returns:
            The largest errors; None for a backbone that is not ours, or is the published algorithm.

        Raises:
            UserError: They disagree.
        """
        model = build_backbone(self.entry)
        if not isinstance(model, STViT):
            return None
        setting = self.setting
        errors = check_agreement(self.entry.text, model, self._finish, setting.train, setting.dtype, self.device)
        self._forget_compiled()
        return errors

    def prepare(self, shape: Sequence[int]) -> dict[str, int]:
        """Build the backbone and its images, and take one step, which allocates the optimiser's state.

        Args:
            shape: Height and width of the images.

        Returns:
            ``parameters``, the number of them.

        Raises:
            UserError: The backbone cannot run, or does not return four maps.
        """
        self.backbone = build_backbone(self.entry).to(self.device)
        self.backbone.train(self.setting.train)  # some return nothing
        parameters = sum(p.numel() for p in self.backbone.parameters())
        if self.setting.train:
            learned = [p for p in self.backbone.parameters() if p.requires_grad]
            self.optimizer = torch.optim.AdamW(learned, **_OPTIMIZER)
        self.forward = in_dtype(self._finish(self.backbone), self.setting.dtype, self.device)
        size = (self.setting.batch_size, 3, *shape)
        self.images = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(self.device)
        self.cotangents = None
        maps = self._step()
        if not isinstance(maps, (tuple, list)) or len(maps) != NUM_MAPS:
            count = len(maps) if isinstance(maps, (tuple, list)) else 'no tuple of'
            raise UserError(
                f'{self.entry.text} returns {count} feature maps, and a detector needs {NUM_MAPS}. Perhaps it has an '
                f'argument for it: {self.entry.text}+out_indices=0,1,2,3'
            )
        return dict(parameters=parameters)

    def count(self, shape: Sequence[int]) -> int | str:
        """Count the floating-point operations of a step, on the meta device.

        Two for every multiply-accumulate of the forward pass, see :mod:`mmstvit.analysis.counter`; in training three
        times as many, as the backward pass has two products of the same size for each of the forward pass. What is
        computed again in the backward pass, or not at all because it is frozen, makes no difference.

        Args:
            shape: Height and width of the images.

        Returns:
            Their number, or why a backbone cannot be counted that runs.
        """
        backbone = build_backbone(self.entry)
        self._deploy(backbone)
        backbone.to('meta').train(False)
        images = torch.empty(self.setting.batch_size, 3, *shape, device='meta')
        try:
            macs = count_macs(backbone, lambda: backbone(images))
        except RuntimeError as error:  # it looks at values, or an operator of its own has no meta kernel
            return str(error).strip().partition('\n')[0]
        return 2 * sum(kinds.total() for kinds in macs.values()) * (3 if self.setting.train else 1)

    def _finish(self, backbone: nn.Module) -> Callable[[Tensor], tuple[Tensor, ...]]:
        """From a backbone as built to what is timed."""
        self._deploy(backbone)
        return torch.compile(backbone) if self.compiled else backbone

    def _deploy(self, backbone: nn.Module) -> None:
        if not self.entry.deploy:
            return
        if self.setting.train:
            raise UserError(f'{self.entry.text}: what is deployed does not train; use --mode inference.')
        if not hasattr(backbone, 'switch_to_deploy'):
            raise UserError(f'{self.entry.text}: {type(backbone).__name__} has no switch_to_deploy().')
        backbone.switch_to_deploy()

    def _forget_compiled(self) -> None:
        """Else the next shape is compiled as one of varying size."""
        if self.compiled:
            torch.compiler.reset()

    def _step(self) -> Sequence[Tensor]:
        with record_function('forward'), torch.set_grad_enabled(self.setting.train):
            maps = self.forward(self.images)
        if self.setting.train:
            with record_function('backward'):
                self.cotangents = backward(maps, self.cotangents)
            with record_function('optimizer'):
                self.optimizer.step()
                self.optimizer.zero_grad()
        return maps

    def step(self) -> tuple[float, float]:
        """Take a step.

        Returns:
            Its time, and the time that processors spent on it, all threads together; in seconds. On CPU, less than
            ``threads`` times as much says that others used the processors; on a GPU, that it did not wait for Python.
        """
        return _timed(self._step, self.device)

    def memory(self) -> dict[str, int | str]:
        """Take a step and see how far memory grows above what was held before it.

        Held before are parameters, the optimiser's state, images and the weights of the loss; a step adds activations,
        gradients and the workspace of the kernels, and its peak counts.

        Returns:
            ``bytes``, and ``source``, where they come from.
        """
        gc.collect()
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            self._step()
            torch.cuda.synchronize(self.device)
            growth = torch.cuda.max_memory_allocated(self.device) - before
            return dict(bytes=growth, source='torch.cuda.max_memory_allocated')
        return peak_growth(self._step)

    def profile(self) -> dict[str, list[dict]]:
        """Where a step spends its time; see :func:`mmstvit.analysis.profiling.profile`."""
        return profile(self._step, None if self.compiled else self.backbone, self.device)

    def release(self) -> None:
        """Let go of what :meth:`prepare` made."""
        self.backbone = self.forward = self.optimizer = self.images = self.cotangents = None
        gc.collect()
        self._forget_compiled()
        _trim()
        if self.device.type == 'cuda':
            torch.cuda.empty_cache()


class Probe:
    """A large matrix product through the fastest kernel that the package knows, for what the processor can do.

    Args:
        setting: Its type, device and threads.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.device = _set_up(setting)

    def prepare(self) -> None:
        """Make the matrices, and multiply once."""
        rows, inner, columns = PROBES[self.device.type]
        options = dict(device=self.device, dtype=AUTOCAST_DTYPES.get(self.setting.dtype, torch.float32))
        if self.device.type == 'cpu':
            x = torch.randn(1, 64, rows // 64, inner, **options)
            weight = torch.randn(columns, inner, **options)
            self._product = lambda: dense.linear(x, weight, None)
        else:
            x, weight = torch.randn(rows, inner, **options), torch.randn(inner, columns, **options)
            self._product = lambda: torch.mm(x, weight)
        self._product()

    def step(self) -> tuple[float, float]:
        """Multiply; returns what :meth:`Bench.step` returns."""
        return _timed(self._product, self.device)


def _set_up(setting: Setting) -> torch.device:
    if setting.threads is not None:
        torch.set_num_threads(setting.threads)
    # fp32 means fp32: on CUDA, convolutions would round to TF32 by default.
    torch.backends.cudnn.allow_tf32 = False
    return torch.device(setting.device)


def _timed(step: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds that a step takes, and that processors spend on it."""
    _synchronize(device)
    start, cpu_start = time.perf_counter(), time.process_time()
    step()
    _synchronize(device)
    return time.perf_counter() - start, time.process_time() - cpu_start


def _synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def steady_malloc() -> None:
    """Let glibc give every block of 64 KiB or more pages of its own, which it returns when the block is freed.

    By default the heap keeps what is freed: the peak then depends on how it happens to be fragmented (seen: 10–50 %
    above what the step holds, another number every time). It costs time: for processes that measure memory alone.
    """
    if platform.libc_ver()[0] == 'glibc':
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 64 * 1024)


def _trim() -> None:
    """Return free memory to the system."""
    if platform.libc_ver()[0] == 'glibc':
        ctypes.CDLL(None).malloc_trim(0)


def peak_growth(step: Callable[[], object]) -> dict[str, int | str]:
    """How far the process's resident memory grows during a call, at its peak.

    Linux tells it exactly: the peak can be reset. Elsewhere only the peak since the process began is known, and the
    growth is that of the peak: too low where earlier steps needed more.

    Returns:
        ``bytes``, and ``source``, which of the two.
    """
    _trim()
    try:
        _CLEAR_REFS.write_text('5')  # VmHWM := VmRSS
    except OSError:
        unit = 1 if platform.system() == 'Darwin' else 1024
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        step()
        growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        return dict(bytes=growth * unit, source='ru_maxrss, growth of the peak')
    before = _high_water_mark()
    step()
    return dict(bytes=_high_water_mark() - before, source='VmHWM')


def _high_water_mark() -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith('VmHWM'))
    return int(line.split()[1]) * 1024


@dataclass(frozen=True)
class Failure:
    """An exception in the worker.

    Args:
        message: Its type and first line, or the whole message of a UserError.
        refused: Whether it is a UserError, an error of the command and not of the backbone.
    """

    message: str
    refused: bool


def serve(connection: Connection, entry: Entry | None, setting: Setting, for_memory: bool) -> None:
    """Main function of a worker: call the methods of a :class:`Bench`, or of a :class:`Probe` where there is no entry,
    by name until the other end is closed.
    """
    # When memory runs out, Linux shall end this process and not the one that reports it.
    with contextlib.suppress(FileNotFoundError):
        Path('/proc/self/oom_score_adj').write_text('1000')
    if for_memory:
        steady_malloc()
    bench = Probe(setting) if entry is None else Bench(entry, setting)
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            result = getattr(bench, method)(*arguments)
        except (UserError, ImportError) as error:
            connection.send(Failure(str(error), refused=True))
            return
        except Exception as error:  # whatever a backbone may raise: reported over there, with its traceback here
            lines = str(error).strip().splitlines()
            connection.send(Failure(f'{type(error).__name__}: {lines[0] if lines else ""}', refused=False))
            raise
        connection.send(result)


class Worker:
    """The parent's end of a worker; the process starts at once.

    Args:
        entry: The backbone; None for the probe of the peak.
        setting: How to run it.
        for_memory: Whether to measure memory in it, with a slower malloc, and not time.
    """

    def __init__(self, entry: Entry | None, setting: Setting, for_memory: bool = False) -> None:
        context = multiprocessing.get_context('spawn')
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, entry, setting, for_memory), daemon=True)
        self._process.start()
        theirs.close()

    def call(self, method: str, *arguments: object) -> object:
        """Call a method of the worker's :class:`Bench` or :class:`Probe` and wait for it.

        Raises:
            UserError: The command is at fault.
            WorkerError: The backbone failed, or took its process with it.
        """
        try:
            self._connection.send((method, arguments))
            result = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise WorkerError(_epitaph(self._process.exitcode)) from None
        if not isinstance(result, Failure):
            return result
        if result.refused:
            raise UserError(result.message)
        raise WorkerError(result.message)

    def close(self) -> None:
        """End the process, if it has not ended by itself."""
        self._connection.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


class WorkerError(Exception):
    """A backbone failed in its process; the message says how, in one line."""


def _epitaph(exitcode: int) -> str:
    if exitcode == -9:
        return 'out of memory or killed (signal 9)'
    if exitcode < 0:
        return f'killed by signal {-exitcode}'
    return f'its process ended with exit code {exitcode}'
