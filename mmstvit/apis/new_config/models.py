"""Our models: the configs to inherit from, and the recipe that each of them comes with."""

import os
from dataclasses import dataclass

import torch

from mmstvit.checkpoint import read_backbone, recognize_arch
from mmstvit.errors import UserError
from mmstvit.fileio import is_local

from .options import Data, Options

SIZES = ('nano', 'small', 'base', 'large')


@dataclass(frozen=True)
class Family:
    """Models that differ in size.

    Args:
        task: The task that they are for.
        config: Their configs, with ``{}`` for what differs.
        nano: That part of the nano size.
        other: That part of another size, with ``{}`` for it.
    """

    task: str
    config: str
    nano: str
    other: str


FAMILIES = {
    'mask-rcnn': Family('instances', 'mask_rcnn/mask-rcnn_stvit-{}.py', 'nano_fpn_scenes', '{}_fpn_1x_coco'),
    'cascade-mask-rcnn': Family(
        'instances',
        'cascade_mask_rcnn/cascade-mask-rcnn_stvit-{}.py',
        'nano_fpn_scenes',
        '{}_fpn_4conv1fc-giou_ms-3x_coco',
    ),
    'faster-rcnn': Family('instances', 'faster_rcnn/faster-rcnn_stvit-{}.py', 'nano_fpn_scenes', '{}_fpn_1x_coco'),
    'upernet': Family('segments', 'upernet/stvit-{}.py', 'nano_upernet_scenes', '{}_upernet_8xb2-160k_ade20k-512x512'),
    'stvit': Family('classes', 'imagenet/stvit-{}.py', 'nano_scenes', '{}_8xb128_in1k'),
}


@dataclass(frozen=True)
class Recipe:
    """Numbers of a task and size that the data do not decide alone.

    Args:
        lr: Learning rate of the base config, for ``base_batch`` images.
        base_batch: See ``lr``.
        batch: Images per iteration.
        iterations: Aimed length of the training run.
        min_epochs: Shortest length.
        side: Largest short side of an image; longer images are made smaller.
    """

    lr: float
    base_batch: int
    batch: int
    iterations: int
    min_epochs: int
    side: int


# (task, is nano): a nano is for a CPU, the others for one GPU.
RECIPES = {
    ('instances', True): Recipe(0.002, 8, 4, 800, 12, 256),
    ('segments', True): Recipe(0.002, 8, 4, 800, 12, 256),
    ('classes', True): Recipe(0.002, 32, 32, 800, 12, 128),
    ('instances', False): Recipe(1e-4, 16, 4, 3000, 12, 800),
    ('segments', False): Recipe(6e-5, 16, 8, 4000, 12, 512),
    ('classes', False): Recipe(1e-3, 1024, 64, 3000, 20, 224),
}


@dataclass(frozen=True)
class Model:
    """The model of a new config.

    Args:
        family: Key of :data:`FAMILIES`.
        size: One of :data:`SIZES`.
        weights: Checkpoint that the backbone starts from; None is a random start.
    """

    family: str
    size: str
    weights: str | None = None

    @property
    def name(self) -> str:
        """Such as ``'mask-rcnn-small'``, a value of ``--model``."""
        return f'{self.family}-{self.size}'

    @property
    def base(self) -> str:
        """The config to inherit from, below ``configs``."""
        family = FAMILIES[self.family]
        return family.config.format(family.nano if self.size == 'nano' else family.other.format(self.size))

    @property
    def recipe(self) -> Recipe:
        """The numbers of its task and size."""
        return RECIPES[FAMILIES[self.family].task, self.size == 'nano']


def choose_model(data: Data, options: Options) -> tuple[Model, str]:
    """Choose the model that the options ask for, or one that suits the data and this machine.

    Returns:
        The model, and the reason for its size.

    Raises:
        UserError: ``--model`` is unknown or for another task, or ``--weights`` are of another size.
    """
    family, size = _parse(options.model)
    fitting = [name for name, value in FAMILIES.items() if value.task == data.task and _fits(name, data)]
    if family is not None and family not in fitting:
        why = 'the annotations have no masks' if FAMILIES[family].task == data.task else f'the data are {data.task}'
        raise UserError(f'--model {family} does not fit: {why}.', f'Choose one of: {", ".join(fitting)}.')
    weights, arch = _read_weights(options.weights)
    if arch is not None and size not in (None, arch):
        raise UserError(f'{weights} holds STViT-{arch}, but --model asks for {size}.', f'Set --model {arch}')
    reason = 'asked for'
    if size is None and arch is not None:
        size, reason = arch, 'the size of --weights'
    elif size is None and torch.cuda.is_available():
        size, reason = 'small', 'this machine has a GPU'
    elif size is None:
        size, reason = 'nano', 'this machine has no GPU'
    default = 'mask-rcnn' if data.with_mask else 'faster-rcnn'
    return Model(family or (default if data.task == 'instances' else fitting[0]), size, weights), reason


def _parse(model: str | None) -> tuple[str | None, str | None]:
    """Split ``--model`` into family and size."""
    known = {key: (key, None) for key in FAMILIES} | {size: (None, size) for size in SIZES}
    known |= {f'{family}-{size}': (family, size) for family in FAMILIES for size in SIZES}
    if model is not None and model not in known:
        raise UserError(
            f'--model {model} is not a model of ours.',
            f'Name a family ({", ".join(FAMILIES)}), a size ({", ".join(SIZES)}) or both, such as mask-rcnn-small.',
        )
    return known.get(model, (None, None))


def _fits(family: str, data: Data) -> bool:
    return data.task != 'instances' or data.with_mask or family == 'faster-rcnn'


def _read_weights(weights: str | None) -> tuple[str | None, str | None]:
    """Return the absolute path of the weights, and the size of their backbone; an address stays unread."""
    if weights is None or not is_local(weights):
        return weights, None
    path = os.path.abspath(os.path.expanduser(weights))
    arch = recognize_arch(read_backbone(path).weights)
    if arch not in SIZES:
        raise UserError(f'{weights} holds an STViT with {arch}, which is none of {", ".join(SIZES)}.')
    return path, arch
