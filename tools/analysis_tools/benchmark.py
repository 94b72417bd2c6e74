"""Compare time and memory of backbones and detectors in one interleaved run on one device.

Example::

    python tools/analysis_tools/benchmark.py stvit-small naive-small swin-tiny --batch-size 8
"""

# ruff: noqa: E402

import argparse
import ast
import contextlib
import copy
import ctypes
import functools
import inspect
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import nan
from pathlib import Path

from mmstvit.arch import ARCHS
from mmstvit.command_line import count, make_parser, positive, user_errors
from mmstvit.errors import UserError, suggest
from mmstvit.version import __version__

# Other backbones: configs that have them. They run without stochastic depth.
OTHERS = {
    'swin-tiny': 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
    'convnext-tiny': 'mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
}
NAMES = [*(f'stvit-{arch}' for arch in ARCHS), *(f'naive-{arch}' for arch in ARCHS), *OTHERS]
DTYPES = {'fp32': 'float32', 'bf16': 'bfloat16', 'fp16': 'float16'}
SWITCHES = ('deploy', 'whole', *DTYPES)
# Rounding errors of features and of gradients.
TOLERANCES = {'fp32': (1e-5, 1e-4), 'bf16': (0.02, 0.05), 'fp16': (0.003, 0.01)}
CHECKED_SHAPE = (2, 3, 93, 75)  # no stage's map is a multiple of its cells
NO_DROPOUT = dict(drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0.0)
MIB = 2**20

EPILOG = f"""\
entries:
  {', '.join(NAMES)}
  CONFIG.py or mmdet::FOLDER/CONFIG.py for the backbone of a config
  FILE.onnx or .xml, an exported file in its own runtime on the CPU
  naive-* is the published algorithm without optimization, on the weights of stvit-*.

options follow the name, each with a plus sign:
  stvit-small+deploy                in deploy form
  stvit-small+bf16                  in another precision than --dtype
  stvit-small+stoken_size=8,4,2,1   an argument of the backbone: a Python literal, else a string
  stvit-small+OMP_NUM_THREADS=1     an environment variable of its process
  CONFIG.py+whole                   the whole detector of the config; its RPN and its box head choose from random scores
                                    and shifts of seed 0, so that every entry has the same proposals and objects

Every entry has its own process. In every round each takes its steps, in random order, while the others wait. A step is
a forward pass or, with --mode train, a forward and backward pass and a step of AdamW, on random images and weights. An
stvit-* that disagrees with the published algorithm is not timed. Memory is what a step adds at its peak to parameters,
optimizer state and images. On CPU (Linux) it is resident memory of a separate process, whose malloc returns every freed
block of 64 KiB or more, so that fragmentation (10-50 %) does not count. The exit code is 1 if an entry failed.
"""


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, epilog=EPILOG)
    add = parser.add_argument
    add('entries', nargs='+', metavar='ENTRY', help='what to measure; see below')
    add('--mode', choices=['inference', 'train'], default='inference', help='what a step is')
    add('--dtype', choices=[*DTYPES], default='fp32', help='autocast below fp32; no TF32')
    add('--shape', type=positive, nargs=2, action='append', metavar=('H', 'W'), help='image (224 224); repeatable')
    add('--batch-size', type=positive, default=1, help='images per step')
    add('--device', default='cpu', help='such as cpu or cuda:0')
    add('--rounds', type=positive, default=20, help='rounds to time')
    add('--warmup', type=count, default=2, help='rounds before them')
    add('--steps', type=positive, help='steps in a row that a round times; default: 1, on a GPU 10')
    add('--threads', type=positive, help="threads of the CPU; default: PyTorch's")
    add('--baseline', metavar='ENTRY', help='entry that ratios refer to; default: the first')
    add('--json', metavar='FILE', help='write all results')
    args = parser.parse_args()
    args.shape = args.shape or [[224, 224]]
    args.steps = args.steps or (1 if args.device == 'cpu' else 10)
    args.baseline = args.baseline or args.entries[0]
    if args.baseline not in args.entries:
        parser.error(f'--baseline must be one of {args.entries}, but got {args.baseline!r}')
    return args


if __name__ == '__main__' and sys.argv[1:2] != ['--serve']:
    parse_args()  # answers --help and refuses wrong options before the imports below, which take seconds

import mmengine
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mmstvit import STViT
from mmstvit.apis import read_config
from mmstvit.deployment import ExportedFile, is_exported
from mmstvit.models.published import PublishedSTViT
from mmstvit.ops import describe


@dataclass(frozen=True)
class BenchmarkEntry:
    """One thing to measure: ``NAME[+OPTION…]`` in its parts."""

    text: str
    name: str
    arguments: dict[str, object] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    switches: list[str] = field(default_factory=list)


def parse_entry(text: str) -> BenchmarkEntry:
    """Parse ``NAME[+OPTION…]``; raises UserError if the name or an option is unknown."""
    name, *options = text.split('+')
    if name not in NAMES and not name.endswith('.py') and not is_exported(name):
        raise UserError(
            f'Unknown backbone {name!r}.{suggest(name, NAMES)}',
            f'Choose from {", ".join(NAMES)}, or give a config: CONFIG.py or mmdet::FOLDER/CONFIG.py',
        )
    entry = BenchmarkEntry(text, name, dict(drop_path_rate=0.0) if name in OTHERS else {})
    for option in options:
        key, _, value = option.partition('=')
        if not value:
            entry.switches.append(option)
        elif key.isupper():
            entry.variables[key] = value
        else:
            entry.arguments[key] = value
            with contextlib.suppress(SyntaxError, ValueError):
                entry.arguments[key] = ast.literal_eval(value)
    if not set(entry.switches) <= set(SWITCHES) or len(set(entry.switches) & set(DTYPES)) > 1:
        raise UserError(f'{text}: an option is {", ".join(SWITCHES)} or key=value, with one precision at most.')
    return entry


def build_entry(entry: BenchmarkEntry) -> nn.Module:
    """Build the model of an entry with the weights of seed 0."""
    if is_exported(entry.name):
        model, file = nn.Module(), ExportedFile(entry.name)
        model.forward = lambda images: list(file.run(images.numpy()).values())
        return model
    if entry.name in NAMES and entry.name not in OTHERS:
        scope, cfg = 'mmstvit', dict(backbone=dict(type=STViT, arch=asdict(ARCHS[entry.name.partition('-')[2]])))
    else:
        config = read_config(OTHERS.get(entry.name, entry.name), None)
        scope, cfg = config.default_scope, config.model
    backbone = {**cfg['backbone'], 'init_cfg': None, **entry.arguments}
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build({**cfg, 'backbone': backbone} if 'whole' in entry.switches else backbone)


def finish(entry: BenchmarkEntry, model: nn.Module) -> nn.Module:
    """Turn a model as built into the one to measure: in deploy form, or the published algorithm on its weights."""
    if 'deploy' in entry.switches:
        if model.training or not hasattr(model, 'switch_to_deploy'):
            raise UserError('deploy needs --mode inference and a backbone with switch_to_deploy().')
        model.switch_to_deploy()
    return PublishedSTViT(model) if entry.name.startswith('naive-') else model


def autocast(dtype: str, device: str) -> torch.autocast:
    """Return the context of a precision."""
    return torch.autocast(torch.device(device).type, getattr(torch, DTYPES[dtype]), enabled=dtype != 'fp32')


def random_gradients(maps: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients of a loss in which every entry of every map has a random weight.

    The mean of a map would not do: after a LayerNorm it is 0 for every input, and so are its gradients.
    """
    generator = torch.Generator().manual_seed(2)
    return [(torch.randn(x.shape, generator=generator) / x.numel() ** 0.5).to(x) for x in maps]


def check_agreement(model: STViT, finish: Callable[[nn.Module], nn.Module], dtype: str, device: str = 'cpu') -> None:
    """Compare a model with the published algorithm in fp32 on random weights, in training mode with all gradients.

    The error of a tensor is the norm of the difference over that of the expected value; of a bias, over that of the
    layer's weight if that is larger: a bias before BatchNorm has no gradient but rounding errors. Allowed are
    :data:`TOLERANCES` and, under autocast, twice the error of the published algorithm under the same autocast.

    Args:
        model: The model in training form, in the mode in which it is measured; its weights are overwritten.
        finish: A function that turns the model into the one that is measured.
        dtype: Precision of that one.
        device: Device to compute on.

    Raises:
        UserError: They disagree.
    """
    torch.manual_seed(1)
    for name, tensor in model.to(device).state_dict().items():
        if tensor.dim() == 1:  # norms and layer scales of order 1, so that no branch is hidden
            nn.init.uniform_(tensor, -0.5, 0.5).add_(not name.endswith(('bias', 'mean')))
    image = torch.randn(CHECKED_SHAPE, generator=torch.Generator().manual_seed(1)).to(device)

    def compute(finish: Callable[[nn.Module], nn.Module], dtype: str) -> dict[str, Tensor]:
        x, copied = image.clone().requires_grad_(model.training), copy.deepcopy(model)
        with torch.set_grad_enabled(model.training), autocast(dtype, device):
            maps = finish(copied)(x)
        results = {f'feature map {i}': y for i, y in enumerate(maps)}
        if model.training:
            torch.autograd.backward(maps, random_gradients(maps))
            tensors = {'image': x, **dict(copied.named_parameters())}
            results |= {
                f'gradient of {k}': torch.zeros_like(p) if p.grad is None else p.grad for k, p in tensors.items()
            }
        return {name: y.detach().double() for name, y in results.items()}

    expected, rounded, actual = compute(PublishedSTViT, 'fp32'), compute(PublishedSTViT, dtype), compute(finish, dtype)
    for name, y in expected.items():
        size = max(y.norm(), expected.get(name.removesuffix('bias') + 'weight', y).norm()).clamp(min=1e-30)
        allowed = TOLERANCES[dtype][name.startswith('g')] + 2 * ((rounded[name] - y).norm() / size).item()
        error = ((actual[name] - y).norm() / size).item()
        if not error <= allowed:  # not `>`: NaN disagrees, too
            raise UserError(
                f'disagrees with the published algorithm and is not timed: {name} is off by {error:.2g} of its size '
                f'in {dtype}; {allowed:.2g} is allowed.'
            )


@functools.cache
def draw_outputs(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Draw scores or shifts of boxes from seed 0."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)


def fix_boxes(model: nn.Module) -> None:
    """Let every dense head and box head choose boxes from scores and shifts of seed 0, not from its own.

    Proposals and objects of random weights depend on the backbone: some find 8 objects, some 100, and heads that follow
    would have other work. Losses still come from the head's own outputs.
    """

    def select(original: Callable, signature: inspect.Signature, *args: object, **kwargs: object) -> object:
        call = signature.bind(*args, **kwargs)
        for name in ('cls_scores', 'bbox_preds'):
            call.arguments[name] = [draw_outputs(x.shape, x.dtype, x.device) for x in call.arguments[name]]
        return original(*call.args, **call.kwargs)

    for head in model.modules():
        original = getattr(head, 'predict_by_feat', None)
        signature = original and inspect.signature(original)
        if signature and {'cls_scores', 'bbox_preds'} <= signature.parameters.keys():
            head.predict_by_feat = functools.partial(select, original, signature)


def prepare_detector(model: nn.Module, args: argparse.Namespace) -> Callable[[], Sequence[Tensor]]:
    """Return the forward pass of a detector of MMDetection with fixed boxes; in training, its loss for 10 per image."""
    from mmdet.testing import demo_mm_inputs

    fix_boxes(model)
    shapes, boxes = [(3, *args.shape)] * args.batch_size, [10] * args.batch_size
    batch = demo_mm_inputs(args.batch_size, shapes, boxes, num_classes=2, with_mask=True, device=args.device)

    def forward() -> Sequence[Tensor]:
        data = model.data_preprocessor(copy.deepcopy(batch), model.training)
        outputs = model(**data, mode='loss' if model.training else 'predict')
        return [model.parse_losses(outputs)[0]] if model.training else outputs

    return forward


def prepare_step(entry: BenchmarkEntry, args: argparse.Namespace) -> tuple[nn.Module, Callable[[], None]]:
    """Build the model and images of an entry, and take a step; return the model and the step."""
    train = args.mode == 'train'
    built = build_entry(entry).to(args.device)
    built.train(train)  # some backbones return None
    model = finish(entry, built)
    images = torch.randn(args.batch_size, 3, *args.shape, generator=torch.Generator().manual_seed(0)).to(args.device)
    forward = prepare_detector(model, args) if 'whole' in entry.switches else functools.partial(model, images)
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-6, weight_decay=0.05, fused=True) if train else None
    gradients = []

    def step() -> None:
        with torch.set_grad_enabled(train), autocast(args.dtype, args.device):
            outputs = forward()
        if train:
            gradients[:] = gradients or random_gradients(outputs)
            torch.autograd.backward(outputs, gradients)
            optimizer.step()
            optimizer.zero_grad()

    step()
    return model, step


def measure_time(step: Callable[[], None], args: argparse.Namespace) -> float:
    """Return the seconds of a step."""
    synchronize = functools.partial(torch.cuda.synchronize, args.device) if args.device != 'cpu' else lambda: None
    synchronize()
    start = time.perf_counter()
    for _ in range(args.steps):
        step()
    synchronize()
    return (time.perf_counter() - start) / args.steps


def measure_memory(step: Callable[[], None], args: argparse.Namespace) -> int:
    """Return the bytes that a step adds at its peak to what was held before."""
    if args.device != 'cpu':
        torch.cuda.reset_peak_memory_stats(args.device)
        before = torch.cuda.memory_allocated(args.device)
        step()
        return torch.cuda.max_memory_allocated(args.device) - before
    ctypes.CDLL(None).malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')  # the peak starts from here
    peaks = []
    for run in (lambda: None, step):
        run()
        peaks.append(1024 * int(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())[1]))
    return peaks[1] - peaks[0]


def work(entry: BenchmarkEntry, args: argparse.Namespace, first: bool) -> Iterator[object]:
    """Check an entry and yield its parameters and memory if this is its first process; then yield times."""
    args.dtype = next((switch for switch in entry.switches if switch in DTYPES), args.dtype)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32
    if first and isinstance(build_entry(entry), STViT):
        model = build_entry(replace(entry, arguments=entry.arguments | NO_DROPOUT)).train(args.mode == 'train')
        check_agreement(model, functools.partial(finish, entry), args.dtype, args.device)
    model, step = prepare_step(entry, args)
    if first:
        yield sum(p.numel() for p in model.parameters()), measure_memory(step, args)
    while True:
        yield measure_time(step, args)


def serve_results(text: str, options: dict, first: bool) -> None:
    """Print a result of :func:`work`, or why there is none, as JSON for every line of standard input."""
    replies = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # libraries print to standard output
    with contextlib.suppress(OSError):  # if memory runs out, Linux shall end this process, not its parent
        Path('/proc/self/oom_score_adj').write_text('1000')
    results = work(parse_entry(text), argparse.Namespace(**options), first)
    for _ in sys.stdin:
        try:
            reply = next(results), None
        except Exception as error:  # a model may raise anything
            traceback.print_exc()
            reply = None, f'{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}'
        print(json.dumps(reply), file=replies, flush=True)


@dataclass
class BenchmarkResult:
    """Results of an entry on images of one shape (height and width); times in seconds, memory in bytes."""

    label: str
    shape: Sequence[int]
    parameters: int | None = None
    memory: int | None = None
    seconds: list[float] = field(default_factory=list)  # one per round
    error: str | None = None

    @property
    def median(self) -> float:
        """Median of the rounds; NaN without any."""
        return statistics.median(self.seconds or [nan])


def request_results(
    entry: BenchmarkEntry, row: BenchmarkResult, args: argparse.Namespace, first: bool
) -> Iterator[object]:
    """Yield the results of :func:`work` in a process of its own; a failure goes into the row and ends them."""
    call = json.dumps([entry.text, {**vars(args), 'shape': row.shape}, first])
    # The process that measures memory gives large blocks pages of their own, which makes malloc slow.
    variables = {**os.environ, **({'MALLOC_MMAP_THRESHOLD_': str(64 * 1024)} if first else {}), **entry.variables}
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables, text=True)
    process = subprocess.Popen([sys.executable, __file__, '--serve', call], **pipes)
    try:
        while not row.error:
            with contextlib.suppress(BrokenPipeError):
                print(file=process.stdin, flush=True)
            line = process.stdout.readline()
            code = 0 if line else process.wait()
            died = f'killed by signal {-code}; out of memory?' if code < 0 else f'exit code {code}'
            result, row.error = json.loads(line) if line else (None, died)
            if not row.error:
                yield result
    finally:
        process.kill()
        process.communicate()


def measure(entries: Sequence[BenchmarkEntry], args: argparse.Namespace, shape: Sequence[int]) -> list[BenchmarkResult]:
    """Measure entries on images of one shape; an entry that fails has a result that says so."""
    rows = [BenchmarkResult(entry.text, shape) for entry in entries]
    for entry, row in zip(entries, rows, strict=True):
        print(f'{row.label} at {shape[0]}×{shape[1]}: check, memory', file=sys.stderr)
        with contextlib.closing(request_results(entry, row, args, first=True)) as worker:
            row.parameters, row.memory = next(worker, (None, None))
    print(f'time at {shape[0]}×{shape[1]}', file=sys.stderr)
    sound = [(entry, row) for entry, row in zip(entries, rows, strict=True) if not row.error]
    workers = [(row, request_results(entry, row, args, first=False)) for entry, row in sound]
    order = random.Random(0)
    for number in range(args.warmup + args.rounds):
        for row, worker in order.sample(workers, len(workers)):
            seconds = next(worker, None)
            if number >= args.warmup and seconds is not None:
                row.seconds.append(seconds)
    for _, worker in workers:
        worker.close()
    return rows


def collect_environment(args: argparse.Namespace) -> dict[str, object]:
    """Return the versions, processors and variables that times depend on."""
    cpu = re.search(r'model name\s*: (.+)', Path('/proc/cpuinfo').read_text())
    pattern = re.compile('(G?OMP|KMP|MKL|ONEDNN|CUDA|TORCH|MMSTVIT)_')
    return {
        'command': shlex.join(['python', *sys.argv]),
        'software': f'mmstvit {__version__}, torch {torch.__version__}, mmengine {mmengine.__version__}',
        'cpu': f'{cpu[1] if cpu else platform.machine()}, {torch.backends.cpu.get_cpu_capability()}',
        'gpu': torch.cuda.get_device_name(args.device) if args.device != 'cpu' else 'not used',
        'threads': f'{args.threads or torch.get_num_threads()} of {os.cpu_count()}',
        'variables': ' '.join(f'{k}={v}' for k, v in sorted(os.environ.items()) if pattern.match(k)) or 'none',
        'backend': describe(args.device, getattr(torch, DTYPES[args.dtype])),
    }


def format_table(rows: Sequence[BenchmarkResult], baseline: BenchmarkResult, batch_size: int) -> str:
    """Return the results of one shape as text."""
    lines = [('entry', 'M params', 'ms', '± ms', 'images/s', 'time ×', 'MiB', 'MiB ×')]
    for row in rows:
        first, _, third = statistics.quantiles(row.seconds, method='inclusive') if len(row.seconds) > 1 else [nan] * 3
        ratio = statistics.median(map(float.__truediv__, row.seconds or [nan], baseline.seconds or [nan]))
        memory = row.memory or nan
        values = f'{(row.parameters or nan) / 1e6:.2f} {row.median * 1e3:.2f} {(third - first) * 1e3:.2f} '
        values += (
            f'{batch_size / row.median:.2f} {ratio:.3f} {memory / MIB:.0f} {memory / (baseline.memory or nan):.3f}'
        )
        lines.append((row.label, *values.replace('nan', '–').split()))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ['  '.join([f'{n:<{widths[0]}}', *map('{:>{}}'.format, cells, widths[1:])]) for n, *cells in lines]
    return '\n'.join([*text, *(f'{row.label}: {row.error}' for row in rows if row.error)])


def main() -> int:
    """Measure and report; returns 1 if an entry failed."""
    args = parse_args()
    with user_errors():
        entries = [parse_entry(text) for text in args.entries]
        if args.device != 'cpu' and not torch.cuda.is_available():
            raise UserError(f'--device {args.device} needs a CUDA GPU, and PyTorch finds none.')
    if args.json:
        Path(args.json).absolute().parent.mkdir(parents=True, exist_ok=True)
    table = [measure(entries, args, shape) for shape in args.shape]
    environment = collect_environment(args)
    for name, value in environment.items():
        print(f'{name:<10} {value}')
    settings = f'batch of {args.batch_size}, {args.mode}, {args.dtype}, {args.device}, {args.rounds} rounds'
    for (height, width), rows in zip(args.shape, table, strict=True):
        print(f'\n{height}×{width}, {settings}, ± interquartile range')
        print(format_table(rows, rows[args.entries.index(args.baseline)], args.batch_size))
    if any('whole' in entry.switches for entry in entries):
        print('\nwhole detectors: proposals and objects are the same for every entry, chosen from scores of seed 0')
    print(f'\n×: relative to {args.baseline}; of time, the median over rounds of the ratio within a round')
    results = [asdict(row) for rows in table for row in rows]
    if args.json:
        content = {'environment': environment, 'baseline': args.baseline, 'results': results}
        Path(args.json).write_text(json.dumps(content, indent=2) + '\n')
    return int(any(row['error'] for row in results))


if __name__ == '__main__':
    if sys.argv[1:2] == ['--serve']:
        serve_results(*json.loads(sys.argv[2]))
    else:
        sys.exit(main())
