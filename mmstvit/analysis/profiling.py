"""Where a step of a backbone spends its time: by stage, forward and backward, and by operator."""

import bisect
from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.autograd import DeviceType
from torch.autograd.profiler_util import EventList
from torch.profiler import ProfilerActivity, record_function

from .published import PublishedSTViT

# Parts of a step, which its caller marks with record_function.
PARTS = ('forward', 'backward', 'optimizer')
NUM_OPERATORS = 20

_NODE = 'autograd::engine::evaluate_function'  # one node of the graph, with what it calls


def profile(step: Callable[[], object], backbone: nn.Module | None, device: torch.device) -> dict[str, list[dict]]:
    """Profile one step, after one to warm up.

    Args:
        step: Takes the step; marks :data:`PARTS` with ``record_function``.
        backbone: Its modules of the first or, where those are lists, second level are the stages; None for no stages
            (compiled code does not keep them apart).
        device: Where it computes; on a GPU times are those of its kernels.

    Returns:
        ``stages``: ``name``, ``forward_ms`` and ``backward_ms`` of each stage, then ``elsewhere`` (what lies outside
        of the stages), ``all`` and, where there is one, ``optimizer``. ``operators``: ``name``, ``calls`` and ``ms`` of
        those that take longest, without what they call.
    """
    names, hooks = [], []
    if isinstance(backbone, PublishedSTViT):
        names = list(_stages(backbone.model))  # which it marks itself
    elif backbone is not None:
        stages = _stages(backbone)
        names = list(stages)
        hooks = [hook for name, modules in stages.items() for module in modules for hook in _mark(name, module)]
    on_gpu = device.type == 'cuda'
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    try:
        step()
        with torch.profiler.profile(activities=activities) as result:
            step()
            if on_gpu:
                torch.cuda.synchronize(device)
    finally:
        for hook in hooks:
            hook.remove()
    return dict(
        stages=_by_stage(result.events(), names, 'device_time_total' if on_gpu else 'cpu_time_total'),
        operators=_by_operator(result.key_averages(), {*names, *PARTS}, on_gpu),
    )


def _stages(backbone: nn.Module) -> dict[str, list[nn.Module]]:
    """The modules that a backbone calls, by the name of the stage."""
    stages = {}
    for name, child in backbone.named_children():
        if isinstance(child, (nn.ModuleList, nn.Sequential)):
            stages |= {f'{name}.{i}': list(_called(part)) for i, part in child.named_children()}
        else:
            stages[name] = [child]
    return stages


def _called(module: nn.Module) -> Iterator[nn.Module]:
    """A module; of a list, which is never called itself, those inside."""
    if isinstance(module, nn.ModuleList):
        for child in module:
            yield from _called(child)
    else:
        yield module


def _mark(name: str, module: nn.Module) -> tuple:
    """Record a module's calls under a name; returns the hooks."""
    running = []

    def enter(*_: object) -> None:
        running.append(record_function(name))
        running[-1].__enter__()

    def leave(*_: object) -> None:
        running.pop().__exit__(None, None, None)

    return module.register_forward_pre_hook(enter), module.register_forward_hook(leave)


def _by_stage(events: EventList, names: list[str], clock: str) -> list[dict]:
    """Times by stage; a node of the graph has the number of the operator that made it, and so finds its stage."""
    events = [event for event in events if event.device_type == DeviceType.CPU]
    forward, backward = defaultdict(float), defaultdict(float)
    marks = sorted((e.time_range.start, e.time_range.end, e.name) for e in events if e.name in names)
    starts = [start for start, _, _ in marks]
    stage_of = {}
    for event in events:
        if event.name in names or event.name in PARTS:
            (backward if event.name == 'backward' else forward)[event.name] += getattr(event, clock)
        elif event.sequence_nr >= 0 and not event.name.startswith(_NODE):
            place = bisect.bisect_right(starts, event.time_range.start) - 1
            if place >= 0 and event.time_range.end <= marks[place][1]:
                stage_of.setdefault(event.sequence_nr, marks[place][2])
    for event in events:
        if event.name.startswith(_NODE) and event.sequence_nr in stage_of:
            backward[stage_of[event.sequence_nr]] += getattr(event, clock)
    rows = [(name, forward[name], backward[name]) for name in names if forward[name]]
    if rows:
        inside = [sum(times) for times in list(zip(*rows, strict=True))[1:]]
        rows.append(('elsewhere', forward['forward'] - inside[0], backward['backward'] - inside[1]))
    rows.append(('all', forward['forward'], backward['backward']))
    if 'optimizer' in forward:
        rows.append(('optimizer', forward['optimizer'], 0.0))
    return [dict(name=name, forward_ms=there / 1e3, backward_ms=back / 1e3) for name, there, back in rows]


def _by_operator(averages: EventList, marks: set[str], on_gpu: bool) -> list[dict]:
    clock = 'self_device_time_total' if on_gpu else 'self_cpu_time_total'
    operators = [average for average in averages if average.key not in marks and getattr(average, clock) > 0]
    operators.sort(key=lambda average: -getattr(average, clock))
    return [dict(name=a.key, calls=a.count, ms=getattr(a, clock) / 1e3) for a in operators[:NUM_OPERATORS]]
