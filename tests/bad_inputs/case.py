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
    """A command that cannot be carried out, run in a folder that has ``configs``, ``tools`` and an empty data set.

    Args:
        section: Of the table.
        what: What is wrong, for people.
        command: The command line, without ``python``.
        says: What the message must have.
        code: The exit code.
        prepare: Writes the bad input into the working directory.
    """

    section: str
    what: str
    command: str
    says: str
    code: int
    prepare: Callable[[], None]


SECTIONS = ('Checkpoints', 'Configs', 'Data', 'Command lines')
CASES: list[Case] = []


def nothing() -> None:
    """For commands that are wrong without any file."""


def case(section: str, what: str, command: str, says: str, code: int = 1) -> Callable[[Callable[[], None]], None]:
    """Add a case; returned is a decorator for the function that writes its input, if there is any."""
    assert what not in {case.what for case in CASES}
    index = len(CASES)
    CASES.append(Case(section, what, command, says, code, nothing))

    def add(prepare: Callable[[], None]) -> None:
        CASES[index] = dataclasses.replace(CASES[index], prepare=prepare)

    return add


@functools.cache
def _weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build_model(load_config('imagenet/stvit-nano_scenes')).state_dict()


def weights() -> dict[str, Tensor]:
    """Weights of CONFIG's model; the tensors are new ones."""
    return {name: tensor.clone() for name, tensor in _weights().items()}


def save(content: object, name: str) -> Path:
    torch.save(content, name)
    return Path(name)
