"""A bad input and the command that gets it."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mmstvit.apis import build_model

from ..helpers import load_config

CONFIG = 'configs/imagenet/stvit-nano_scenes.py'
TEST = f'tools/test.py {CONFIG}'
TRAIN = f'tools/train.py {CONFIG}'


@dataclasses.dataclass(frozen=True)
class Case:
    """A command that must be refused, run in a folder that has ``configs``, ``tools`` and data for CONFIG.

    Args:
        what: What is wrong.
        command: The command line, without ``python``.
        words: What the message must contain: the path, the key, the value, the remedy.
        code: The exit code.
        prepare: Writes the bad input into the working directory.
    """

    what: str
    command: str
    words: tuple[str, ...]
    code: int
    prepare: Callable[[], object]


CASES: list[Case] = []


def nothing() -> None:
    """For commands that are wrong without any file."""


def case(
    what: str, command: str, *words: str, code: int = 1, config: str = ''
) -> Callable[[Callable[[], object]], None]:
    """Add a case, with the text of ``mine.py`` if any; returns a decorator for a function that writes other inputs."""
    assert words and what not in {case.what for case in CASES}
    index = len(CASES)
    CASES.append(Case(what, command, words, code, (lambda: Path('mine.py').write_text(config)) if config else nothing))

    def add(prepare: Callable[[], object]) -> None:
        CASES[index] = dataclasses.replace(CASES[index], prepare=prepare)

    return add


@functools.cache
def _weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build_model(load_config('imagenet/stvit-nano_scenes')).state_dict()


def weights(**changed: Tensor) -> dict[str, Tensor]:
    """Return weights of CONFIG's model, as new tensors; ``changed`` replaces some, with ``__`` for dots."""
    replaced = {name.replace('__', '.'): tensor for name, tensor in changed.items()}
    return {**{name: tensor.clone() for name, tensor in _weights().items()}, **replaced}


def save(content: object, name: str) -> Path:
    """Write a checkpoint into the working directory."""
    torch.save(content, name)
    return Path(name)
