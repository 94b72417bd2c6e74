"""Contract with users' checkpoints: keys, shapes and order of every state dict are those of a file.

A refactor that renames, reshapes, adds or drops a weight breaks the checkpoints that people have. One that changes the
order of parameters breaks resuming, because optimizers number them. The order was changed once, before the first
release: norm2 comes before pos_embed, so that mmcv.cnn.fuse_conv_bn does not fold the norm into that convolution. If a
change is intended, make sure that old checkpoints still load, write a line into CHANGELOG.md, and regenerate the file::

    python -m tests.test_state_dict
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from mmstvit import STViT, STViTNeck
from mmstvit.arch import ARCHS

from .helpers import DATA, meta_classifier

FILE = DATA / 'state_dict_keys.json'
Shapes = dict[str, list[int]]


def build(arch: str) -> dict[str, Shapes]:
    """Return today's keys and shapes of the backbone, in both forms, and of the neck and head of the classifier."""
    with torch.device('meta'):
        backbone, neck = STViT(arch), STViTNeck(ARCHS[arch].channels[-1])
        head = torch.nn.Linear(1024, 1000)  # mmpretrain's LinearClsHead keeps it under `fc`
    contract = {
        'backbone': shapes(backbone),
        'neck': shapes(neck),
        'head': {f'fc.{k}': v for k, v in shapes(head).items()},
    }
    if arch == 'nano':  # the keys of the deploy form follow the same rules in every architecture
        contract |= {'backbone, deploy=True': shapes(STViT(arch, deploy=True))}
        contract |= {'neck, deploy=True': shapes(STViTNeck(ARCHS[arch].channels[-1], deploy=True))}
    return contract


def shapes(module: torch.nn.Module) -> Shapes:
    return {key: list(value.shape) for key, value in module.state_dict().items()}


def differences(actual: Mapping[str, list[int]], pinned: Mapping[str, list[int]]) -> list[str]:
    """Return a line for each kind of change; an empty list if the contract is kept."""
    gone = [key for key in pinned if key not in actual]
    new = [key for key in actual if key not in pinned]
    reshaped = [
        f'{key} {pinned[key]} → {actual[key]}' for key in pinned if key in actual and actual[key] != pinned[key]
    ]
    lines = [
        f'{len(keys)} {what}: {", ".join(keys[:5])}{", …" if len(keys) > 5 else ""}'
        for what, keys in (('gone', gone), ('new', new), ('of another shape', reshaped))
        if keys
    ]
    if not lines and list(actual) != list(pinned):
        first = next(a for a, b in zip(actual, pinned, strict=True) if a != b)
        lines.append(f'in another order, from {first} on')
    return lines


def pinned() -> dict[str, dict[str, Shapes]]:
    return json.loads(FILE.read_text())


@pytest.mark.parametrize('arch', list(ARCHS))
def test_keys_shapes_and_order_are_those_of_the_contract(arch):
    changes = []
    contract, today = pinned().get(arch, {}), build(arch)
    for part in dict.fromkeys([*contract, *today]):
        changes += [f'{part}: {line}' for line in differences(today.get(part, {}), contract.get(part, {}))]
    assert not changes, (
        f"STViT-{arch} no longer has the state dict of users' checkpoints:\n"
        + '\n'.join(changes)
        + '\nIf that is intended, see the top of tests/test_state_dict.py.'
    )


def test_pinned_architectures_exist():
    assert set(pinned()) == set(ARCHS)


@pytest.mark.parametrize('arch', list(ARCHS))
def test_the_classifier_of_mmpretrain_has_these_keys(arch):
    actual = shapes(meta_classifier(arch))
    parts = {part: pinned()[arch][part] for part in ('backbone', 'neck', 'head')}
    expected = {f'{part}.{key}': shape for part, keys in parts.items() for key, shape in keys.items()}
    assert differences(actual, expected) == []


@pytest.mark.parametrize(
    ('change', 'line'),
    [
        (
            lambda d: {('x.' if 'convs.0' in k else '') + k: v for k, v in d.items()},
            '2 gone: patch_embed.convs.0.weight, ',
        ),
        (lambda d: {**d, 'stages.0.0.norm1.bias': [5]}, '1 of another shape: stages.0.0.norm1.bias [32] → [5]'),
        (lambda d: dict(reversed(d.items())), 'in another order, from '),
    ],
    ids=['renamed', 'reshaped', 'reordered'],
)
def test_every_kind_of_change_is_found(change, line):
    contract = pinned()['nano']['backbone']
    assert differences(contract, contract) == []
    assert differences(change(dict(contract)), contract)[0].startswith(line)


def regenerate(file: Path) -> None:
    """Write today's state dicts, one key per line."""
    text = json.dumps({arch: build(arch) for arch in ARCHS}, indent=1)
    file.write_text(re.sub(r'\[[\d\s,]*\]', lambda shape: ''.join(shape[0].split()), text) + '\n')


if __name__ == '__main__':
    regenerate(FILE)
