"""Backbones that a benchmark has to survive, or to refuse: imported by the configs of its tests."""

import os
import signal

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmstvit import STViT


@MODELS.register_module()
class Wrong(STViT):
    """Off by one part in a thousand in its third map."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = super().forward(x)
        return *maps[:2], maps[2] * 1.001, maps[3]


class Pyramid(nn.Module):
    """Four maps of the simplest kind."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.scale * nn.functional.avg_pool2d(x, stride) for stride in (4, 8, 16, 32))


@MODELS.register_module()
class Mortal(Pyramid):
    """Killed by images wider than 64, as by a system without memory left."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if x.shape[3] > 64:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


@MODELS.register_module()
class Greedy(Pyramid):
    """Asks for more memory than there is."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x.new_empty(2**50),)


@MODELS.register_module()
class Narrow(Pyramid):
    """Returns three maps."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return super().forward(x)[:3]
