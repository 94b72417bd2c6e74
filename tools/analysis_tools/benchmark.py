"""Compare time and memory of backbones and detectors in one interleaved run on one device.

Example::

    python tools/analysis_tools/benchmark.py stvit-small naive-small swin-tiny --batch-size 8
"""

import argparse
import ast
import contextlib
import copy
import ctypes
import gc
import json
import os
import platform
import random
import re
import shlex
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from math import sqrt
from pathlib import Path

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mmstvit import STViT
from mmstvit.apis import read_config, user_errors
from mmstvit.arch import ARCHS, suggest
from mmstvit.dependencies import require_library
from mmstvit.errors import UserError
from mmstvit.models.published import PublishedSTViT
from mmstvit.ops import describe

# Other backbones as detectors use them: library and arguments.
OTHERS = {
    'swin-tiny': ('mmdet', dict(type='SwinTransformer', drop_path_rate=0.0)),
    'convnext-tiny': (
        'mmpretrain',
        dict(type='ConvNeXt', arch='tiny', out_indices=(0, 1, 2, 3), gap_before_final_norm=False, drop_path_rate=0.0),
    ),
}
NAMES = [*(f'stvit-{arch}' for arch in ARCHS), *(f'naive-{arch}' for arch in ARCHS), *OTHERS]
DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
SWITCHES = ('deploy', 'whole', *DTYPES)
# Rounding errors of features and of gradients.
TOLERANCES = {'fp32': (1e-5, 1e-4), 'bf16': (0.02, 0.05), 'fp16': (0.003, 0.01)}
CHECKED_SHAPE = (2, 3, 93, 75)  # no stage's map is a multiple of its cells
MIB = 2**20
RATIO = "median over rounds of (time / the baseline's time in the same round)"

EPILOG = f"""\
entries:
  {', '.join(NAMES)}
  CONFIG.py or mmdet::FOLDER/CONFIG.py for the backbone of a config
  naive-* is the published algorithm without optimization, on the weights of stvit-*.

options follow the name, each with a plus sign:
  stvit-small+deploy                in deploy form
  stvit-small+bf16                  in another precision than --dtype
  stvit-small+stoken_size=8,4,2,1   an argument of the backbone: a Python literal, else a string
  stvit-small+OMP_NUM_THREADS=1     an environment variable of its process
  CONFIG.py+whole                   the whole detector of the config; with random weights it finds no objects, so its
                                    mask head does not run at inference

Every entry has its own process. In every round each takes one step, in random order, while the others wait. A step is a
forward pass or, with --mode train, a forward and backward pass and a step of AdamW, on random images and weights. All
stvit-* are first compared with the published algorithm; the run stops if one disagrees. Memory is what a step adds at
its peak to parameters, optimizer state and images. On CPU it is resident memory of a separate process, whose malloc
returns every freed block of 64 KiB or more, so that fragmentation (10-50 %) does not count.
"""


@dataclass(frozen=True)
class Entry:
    """One thing to measure: ``NAME[+OPTION…]`` in its parts."""

    text: str
    name: str
    arguments: dict[str, object]
    variables: dict[str, str]
    switches: list[str]


def parse_entry(text: str) -> Entry:
    """Parse ``NAME[+OPTION…]``; raises UserError if the name or an option is unknown."""
    name, *options = text.split('+')
    if name not in NAMES and not name.endswith('.py'):
        raise UserError(
            f'Unknown backbone {name!r}.{suggest(name, NAMES)}',
            f'Choose from {", ".join(NAMES)}, or give a config: CONFIG.py or mmdet::FOLDER/CONFIG.py',
        )
    entry = Entry(text, name, {}, {}, [])
    for option in options:
        key, _, value = option.partition('=')
        if not value:
            entry.switches.append(option)
        elif key.isupper():
            entry.variables[key] = value
        else:
            try:
                entry.arguments[key] = ast.literal_eval(value)
            except (SyntaxError, ValueError):
                entry.arguments[key] = value
    if not set(entry.switches) <= set(SWITCHES) or len(set(entry.switches) & set(DTYPES)) > 1:
        raise UserError(f'{text}: an option is {", ".join(SWITCHES)} or key=value, with one precision at most.')
    return entry


def build(entry: Entry) -> nn.Module:
    """Build the model of an entry with the weights of seed 0; raises UserError if that is impossible."""
    family, _, size = entry.name.partition('-')
    if entry.name in NAMES:
        scope, cfg = OTHERS.get(entry.name, ('mmstvit', dict(type=STViT, arch=asdict(ARCHS.get(size, ARCHS['nano'])))))
        if scope != 'mmstvit':
            require_library(scope)
        if family == 'naive' and 'with_cp' in entry.arguments:
            raise UserError(f'{entry.text}: the published algorithm here has no with_cp.')
        model = backbone = ConfigDict(cfg)
    else:
        cfg = read_config(entry.name, None)
        scope, backbone = cfg.default_scope, cfg.model.get('backbone')
        if backbone is None:
            raise UserError(f'{entry.text}: the config does not have a model.backbone.')
        backbone.pop('init_cfg', None)
        model = cfg.model if 'whole' in entry.switches else backbone
    backbone.update(entry.arguments)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        try:
            return MODELS.build(model)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise UserError(f'{entry.text} cannot be built: {error}') from error


def finish(entry: Entry, model: nn.Module) -> nn.Module:
    """Turn a model as built into the one to measure: in deploy form, or the published algorithm on its weights."""
    if 'deploy' in entry.switches:
        if model.training or not hasattr(model, 'switch_to_deploy'):
            raise UserError(f'{entry.text}: deploy needs --mode inference and a backbone with switch_to_deploy().')
        model.switch_to_deploy()
    return PublishedSTViT(model) if entry.name.startswith('naive-') else model


def backward(features: Sequence[Tensor]) -> None:
    """Run the backward pass of a loss in which every entry of every map has a random weight.

    The mean of a map would not do: after a LayerNorm it is 0 for every input, and so are its gradients.
    """
    generator = torch.Generator().manual_seed(2)
    weights = [(torch.randn(x.shape, generator=generator) / x.numel() ** 0.5).to(x) for x in features]
    torch.autograd.backward(features, weights)


def check_agreement(
    model: STViT, finish: Callable[[nn.Module], nn.Module], dtype: str, device: str = 'cpu'
) -> dict[str, tuple[float, float]]:
    """Compare a model with the published algorithm in fp32 on random weights, in training mode with all gradients.

    The error of a tensor is the norm of the difference over that of the expected value; of a bias, over that of the
    weight beside it if that is larger: a bias before BatchNorm has no gradient but rounding errors. Allowed are
    :data:`TOLERANCES` and, under autocast, twice the error of the published algorithm under the same autocast.

    Args:
        model: The model in training form, in the mode in which it is measured; its weights are overwritten.
        finish: A function that turns the model into the one that is measured.
        dtype: Precision of that one.
        device: Device to compute on.

    Returns:
        Error and allowed error by tensor, of those that disagree.
    """
    _randomize(model)
    image = torch.randn(CHECKED_SHAPE, generator=torch.Generator().manual_seed(1)).to(device)

    def compute(finish: Callable[[nn.Module], nn.Module], dtype: str) -> dict[str, Tensor]:
        x, twin = image.clone().requires_grad_(model.training), copy.deepcopy(model).to(device)
        with torch.set_grad_enabled(model.training), _precision(dtype, device):
            features = finish(twin)(x)
        results = {f'feature map {i}': y.detach().double() for i, y in enumerate(features)}
        if model.training:
            backward(features)
            grads = {'image': x.grad, **{name: p.grad for name, p in twin.named_parameters()}}
            results |= {f'gradient of {name}': g.double() for name, g in grads.items() if g is not None}
        return results

    def errors(actual: dict[str, Tensor]) -> dict[str, float]:
        sizes = {name: x.norm().item() for name, x in expected.items()}
        found = dict.fromkeys({**expected, **actual}, float('inf'))
        for name in expected.keys() & actual.keys():
            size = max(sizes[name], sizes.get(name.removesuffix('bias') + 'weight', 0.0))
            found[name] = (actual[name] - expected[name]).norm().item() / size
        return found

    expected = compute(PublishedSTViT, 'fp32')
    rounding = errors(compute(PublishedSTViT, dtype)) if dtype != 'fp32' else {}
    allowed = {name: TOLERANCES[dtype][name.startswith('g')] + 2 * rounding.get(name, 0.0) for name in expected}
    found = errors(compute(finish, dtype))
    # Not `>`: NaN disagrees, too.
    return {n: (e, allowed.get(n, 0.0)) for n, e in found.items() if not e <= allowed.get(n, 0.0)}


@torch.no_grad()
def _randomize(model: STViT) -> None:
    """Give norms and layer scales values of order 1, so that no branch is hidden; disable dropout."""
    generator = torch.Generator().manual_seed(1)
    model.set_drop_path_rate(0.0)
    for module in model.modules():
        if hasattr(module, 'attn_drop_rate'):
            module.attn_drop_rate = 0.0
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for name, tensor in model.state_dict().items():
        if tensor.dim() == 1 and name.endswith(('weight', 'var', 'gamma1', 'gamma2')):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.dim() == 1:
            tensor.normal_(std=0.1, generator=generator)


def _precision(dtype: str, device: str) -> torch.autocast:
    return torch.autocast(torch.device(device).type, DTYPES[dtype], enabled=dtype != 'fp32')


class Bench:
    """The model of an entry, measured in this process.

    Args:
        text: The entry.
        options: Namespace with the options of the command line.
        for_memory: Measure memory in this process, with a slower malloc, and not time.
    """

    def __init__(self, text: str, options: argparse.Namespace, for_memory: bool) -> None:
        self.entry = parse_entry(text)
        self.train, self.batch_size, self.device = options.mode == 'train', options.batch_size, options.device
        self.dtype = next((switch for switch in self.entry.switches if switch in DTYPES), options.dtype)
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32
        if for_memory and platform.libc_ver()[0] == 'glibc':
            ctypes.CDLL(None).mallopt(-3, 64 * 1024)  # M_MMAP_THRESHOLD: larger blocks have pages of their own

    def check(self) -> None:
        """Check that an STViT agrees with the published algorithm; raises UserError."""
        model = build(self.entry)
        if not isinstance(model, STViT) or self.entry.name.startswith('naive-'):
            return
        wrong = check_agreement(model.train(self.train), lambda m: finish(self.entry, m), self.dtype, self.device)
        for name, (error, allowed) in wrong.items():
            raise UserError(
                f'{self.entry.text} disagrees with the published algorithm and is not timed: {name} is off by '
                f'{error:.2g} of its size in {self.dtype}; {allowed:.2g} is allowed.'
            )

    def prepare(self, *shape: int) -> int:
        """Build the model and images of a height and width, and take a step; return the number of parameters."""
        built = build(self.entry).to(self.device)
        built.train(self.train)  # some backbones return None
        model = finish(self.entry, built)
        if 'whole' in self.entry.switches:
            self._run = self._detector_step(model, shape)
        else:
            size = (self.batch_size, 3, *shape)
            images = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(self.device)
            self._run = lambda: model(images)
        if self.train:
            learned = [p for p in model.parameters() if p.requires_grad]
            self._optimizer = torch.optim.AdamW(learned, lr=1e-6, weight_decay=0.05, fused=True)
        self.step()
        return sum(p.numel() for p in model.parameters())

    def _detector_step(self, model: nn.Module, shape: Sequence[int]) -> Callable[[], Sequence[Tensor]]:
        """Return the forward pass of a detector of MMDetection, with 10 boxes per image; in training, the loss."""
        from mmdet.testing import demo_mm_inputs

        n = self.batch_size
        batch = demo_mm_inputs(n, [(3, *shape)] * n, [10] * n, num_classes=2, with_mask=True, device=self.device)

        def run() -> Sequence[Tensor]:
            data = model.data_preprocessor(copy.deepcopy(batch), self.train)
            result = model(**data, mode='loss' if self.train else 'predict')
            return [model.parse_losses(result)[0]] if self.train else result

        return run

    def step(self) -> float:
        """Take a step; return its time in seconds."""
        start = self._now()
        with torch.set_grad_enabled(self.train):
            with _precision(self.dtype, self.device):
                outputs = self._run()
            if self.train:
                backward(outputs)
                self._optimizer.step()
                self._optimizer.zero_grad()
        return self._now() - start

    def _now(self) -> float:
        if self.device.startswith('cuda'):
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def memory(self) -> int:
        """Take a step; return the bytes that it adds at its peak to what was held before."""
        gc.collect()
        if self.device.startswith('cuda'):
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            self.step()
            return torch.cuda.max_memory_allocated(self.device) - before
        if platform.libc_ver()[0] == 'glibc':
            ctypes.CDLL(None).malloc_trim(0)
        Path('/proc/self/clear_refs').write_text('5')  # of Linux: the peak starts from here
        before = _peak_memory()
        self.step()
        return _peak_memory() - before


def _peak_memory() -> int:
    return 1024 * int(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())[1])


def serve(text: str, options: dict, for_memory: bool) -> None:
    """Call the methods of a :class:`Bench` that standard input names, a JSON list per line, until it is closed."""
    replies = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # libraries print to standard output
    with contextlib.suppress(OSError):  # if memory runs out, Linux shall end this process, not its parent
        Path('/proc/self/oom_score_adj').write_text('1000')
    bench = Bench(text, argparse.Namespace(**options), for_memory)
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        try:
            reply = {'result': getattr(bench, method)(*arguments)}
        except (UserError, ImportError) as error:
            reply = {'refused': str(error)}
        except Exception as error:  # a model may raise anything
            traceback.print_exc()
            reply = {'error': f'{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}'}
        print(json.dumps(reply), file=replies, flush=True)


@dataclass
class Row:
    """Results of an entry on images of one shape (height and width); times in seconds, memory in bytes."""

    label: str
    shape: tuple[int, int]
    parameters: int | None = None
    memory: int | None = None
    seconds: list[float] = field(default_factory=list)  # one per round
    error: str | None = None

    def summarize(self, baseline: 'Row') -> dict[str, float | None]:
        """Return median and interquartile range, :data:`RATIO`, and the ratio of memory to that of the baseline."""
        result = dict.fromkeys(('median', 'spread', 'ratio', 'memory_ratio'))
        if self.seconds and not self.error:
            result['median'] = statistics.median(self.seconds)
            if len(self.seconds) > 1:
                first, _, third = statistics.quantiles(self.seconds, n=4, method='inclusive')
                result['spread'] = third - first
            if not baseline.error:
                result['ratio'] = statistics.median(map(float.__truediv__, self.seconds, baseline.seconds))
        if self.memory and baseline.memory:
            result['memory_ratio'] = self.memory / baseline.memory
        return result


class Worker:
    """A process that serves the :class:`Bench` of an entry; a failure goes into the entry's row and ends the calls.

    Args:
        entry: The entry.
        row: Its row.
        options: The options of the command line.
        for_memory: See :class:`Bench`.
    """

    def __init__(self, entry: Entry, row: Row, options: dict, for_memory: bool) -> None:
        self.row = row
        command = [
            sys.executable,
            str(Path(__file__).resolve()),
            '--serve',
            json.dumps([entry.text, options, for_memory]),
        ]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._process = subprocess.Popen(command, env={**os.environ, **entry.variables}, **pipes)

    def call(self, *call: object) -> float | int | None:
        """Call a method of the bench and wait for the result, None after a failure; raises UserError."""
        if self.row.error:
            return None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(call), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        reply = json.loads(line) if line else {}
        if 'refused' in reply:
            raise UserError(reply['refused'])
        if not line:
            code = self._process.wait()
            reply['error'] = f'killed by signal {-code}; out of memory?' if code < 0 else f'ended with exit code {code}'
        self.row.error = reply.get('error')
        return reply.get('result')

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def measure(entries: Sequence[Entry], args: argparse.Namespace, shape: Sequence[int]) -> list[Row]:
    """Measure entries on images of one shape; an entry that fails has a row that says so.

    Raises:
        UserError: An STViT disagrees with the published algorithm, or an entry cannot be built.
    """
    texts = [entry.text for entry in entries]
    labels = [f'{t} ({texts[: i + 1].count(t)})' if t in texts[:i] else t for i, t in enumerate(texts)]
    rows = [Row(label, tuple(shape)) for label in labels]
    with contextlib.ExitStack() as stack:

        def start(entry: Entry, row: Row, for_memory: bool) -> Worker:
            return stack.enter_context(contextlib.closing(Worker(entry, row, vars(args), for_memory)))

        for entry, row in zip(entries, rows, strict=True):
            print(f'{row.label} at {shape[0]}×{shape[1]}: check, memory', file=sys.stderr)
            worker = start(entry, row, for_memory=True)
            worker.call('check')
            row.parameters, row.memory = worker.call('prepare', *shape), worker.call('memory')
            worker.close()
        print(f'time at {shape[0]}×{shape[1]}', file=sys.stderr)
        alive = [pair for pair in zip(entries, rows, strict=True) if not pair[1].error]
        workers = [start(entry, row, for_memory=False) for entry, row in alive]
        for worker in workers:
            worker.call('prepare', *shape)
        order = random.Random(0)
        for number in range(args.warmup + args.rounds):
            for worker in order.sample(workers, len(workers)):
                seconds = worker.call('step')
                if number >= args.warmup and seconds is not None:
                    worker.row.seconds.append(seconds)
    return rows


def describe_environment(args: argparse.Namespace) -> dict[str, str]:
    """Return the versions, processors and variables that times depend on."""
    modules = [sys.modules[name] for name in ('mmstvit', 'torch', 'mmengine', 'mmcv') if name in sys.modules]
    info = Path('/proc/cpuinfo')
    names = re.findall(r'model name\s*: (.+)', info.read_text()) if info.is_file() else []
    variables = {
        k: v for k, v in sorted(os.environ.items()) if re.match('(G?OMP|KMP|MKL|ONEDNN|CUDA|TORCH|MMSTVIT)_', k)
    }
    return {
        'software': ', '.join(
            [f'python {platform.python_version()}', *(f'{m.__name__} {m.__version__}' for m in modules)]
        ),
        'cpu': f'{names[0] if names else platform.machine()}, {torch.backends.cpu.get_cpu_capability()}',
        'gpu': torch.cuda.get_device_name(args.device) if args.device.startswith('cuda') else 'not used',
        'threads': f'{args.threads or torch.get_num_threads()} of {os.cpu_count()}',
        'variables': ' '.join(f'{k}={v}' for k, v in variables.items()) or 'none',
        'backend': describe(args.device, DTYPES[args.dtype]),
    }


def format_table(rows: Sequence[Row], baseline: Row, batch_size: int) -> str:
    """Return the rows of one shape as text."""

    def number(value: float | None, digits: int, scale: float = 1.0) -> str:
        return '–' if value is None else f'{value * scale:.{digits}f}'

    lines = [('entry', 'M params', 'ms', '± ms', 'images/s', 'time ×', 'MiB', 'MiB ×')]
    for row in rows:
        median, spread, ratio, memory_ratio = row.summarize(baseline).values()
        cells = (row.parameters, 2, 1e-6), (median, 1, 1e3), (spread, 1, 1e3), (median and batch_size / median, 2)
        cells += (ratio, 3), (row.memory, 0, 1 / MIB), (memory_ratio, 3)
        lines.append((row.label, *(number(*cell) for cell in cells)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ['  '.join([f'{n:<{widths[0]}}', *map('{:>{}}'.format, cells, widths[1:])]) for n, *cells in lines]
    return '\n'.join([*text, *(f'{row.label}: {row.error}' for row in rows if row.error)])


def plot(table: Sequence[Sequence[Row]], title: str, file: str) -> None:
    """Draw time and memory: bars for one shape, curves over the side of the image for several."""
    from matplotlib.figure import Figure  # without pyplot: no display, no state

    figure = Figure(figsize=(12, 5), layout='constrained')
    figure.suptitle(title)
    values = {
        'time of a step, ms': lambda row: (row.summarize(row)['median'] or 0) * 1e3,
        'peak memory of a step, MiB': lambda row: (row.memory or 0) / MIB,
    }
    for panel, (name, value) in zip(figure.subplots(1, 2), values.items(), strict=True):
        if len(table) == 1:
            panel.bar_label(panel.barh([row.label for row in table[0]], [value(row) for row in table[0]]), fmt='%.1f')
            panel.invert_yaxis()
            panel.set_xlabel(name)
            continue
        for rows in zip(*table, strict=True):
            points = sorted((sqrt(row.shape[0] * row.shape[1]), value(row)) for row in rows if value(row))
            panel.loglog([x for x, _ in points], [y for _, y in points], marker='o', label=rows[0].label)
        sides = sorted({sqrt(rows[0].shape[0] * rows[0].shape[1]) for rows in table})
        panel.set_xticks(sides, [f'{side:.0f}' for side in sides])
        panel.minorticks_off()
        panel.set(xlabel='side of the image, √(H·W)', ylabel=name)
        panel.grid(alpha=0.3)
        panel.legend()
    figure.savefig(file, dpi=120)


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('entries', nargs='+', metavar='ENTRY', help='what to measure; see below')
    add('--mode', choices=['inference', 'train'], default='inference', help='what a step is')
    add('--dtype', choices=[*DTYPES], default='fp32', help='autocast below fp32; no TF32')
    add('--shape', type=int, nargs=2, action='append', metavar=('H', 'W'), help='image size (224 224); repeatable')
    add('--batch-size', type=int, default=1, help='images per step')
    add('--device', default='cpu', help='such as cpu or cuda:0')
    add('--rounds', type=int, default=20, help='steps to time of every entry')
    add('--warmup', type=int, default=2, help='steps before them')
    add('--threads', type=int, help="threads of the CPU; default: PyTorch's")
    add('--baseline', metavar='ENTRY', help='entry that ratios refer to; default: the first')
    add('--json', metavar='FILE', help='write all results')
    add('--plot', metavar='FILE', help='draw them: bars for one shape, curves for several')
    args = parser.parse_args()
    args.shape = args.shape or [[224, 224]]
    return args


def check_args(args: argparse.Namespace) -> None:
    """Check the command line before anything starts; raises UserError."""
    for name, least in (('batch_size', 1), ('rounds', 1), ('warmup', 0), ('threads', 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise UserError(f'--{name.replace("_", "-")} must be {least} or more, but got {value}.')
    for shape in args.shape:
        if min(shape) < 1:
            raise UserError(f'--shape must be two positive numbers, but got {shape[0]} {shape[1]}.')
    if args.baseline is not None and args.baseline not in args.entries:
        raise UserError(f'--baseline must be one of {args.entries}, but got {args.baseline!r}.')
    for file in (args.json, args.plot):
        if file and not Path(file).absolute().parent.is_dir():
            raise UserError(f'{file} cannot be written: its folder does not exist.')
    known = ['cpu', 'cuda', *(f'cuda:{i}' for i in range(torch.cuda.device_count()))]
    if args.device not in (known if torch.cuda.is_available() else ['cpu']):
        raise UserError(f'--device {args.device} does not exist on this machine; use cpu or cuda.')


def main() -> None:
    """Measure and report."""
    if sys.argv[1:2] == ['--serve']:
        serve(*json.loads(sys.argv[2]))
        return
    args = parse_args()
    with user_errors():
        check_args(args)
        entries = [parse_entry(text) for text in args.entries]
        table = [measure(entries, args, shape) for shape in args.shape]
    baseline = args.entries.index(args.baseline) if args.baseline else 0
    environment = {'command': shlex.join(['python', *sys.argv]), **describe_environment(args)}
    for name, value in environment.items():
        print(f'{name:<10} {value}')
    for rows in table:
        size = f'{args.batch_size} × 3 × {rows[0].shape[0]} × {rows[0].shape[1]}'
        print(f'\n{size}, {args.mode}, {args.dtype}, {args.rounds} rounds, ± interquartile range')
        print(format_table(rows, rows[baseline], args.batch_size))
    print(f'\ntime × is the {RATIO}; baseline: {args.entries[baseline]}')
    if args.json:
        results = [{**asdict(row), **row.summarize(rows[baseline])} for rows in table for row in rows]
        content = {'environment': environment, 'baseline': args.entries[baseline], 'ratio': RATIO, 'results': results}
        Path(args.json).write_text(json.dumps(content, indent=2) + '\n')
    if args.plot:
        plot(table, f'{args.batch_size} images, {args.mode}, {args.dtype}, {args.device}', args.plot)


if __name__ == '__main__':
    main()
