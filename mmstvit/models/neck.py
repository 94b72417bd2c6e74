"""The neck of the STViT classifier, between backbone and linear head."""

import torch.nn.functional as F
from torch import Tensor, nn

from mmstvit.arch import positive_integer
from mmstvit.layers.fold import affine_of, fold_after
from mmstvit.registry import MODELS

from .deploy import Deployable


@MODELS.register_module()
class STViTNeck(Deployable):
    """1×1 convolution → BatchNorm → SiLU → global average pooling.

    Args:
        in_channels: Channels of the backbone's last stage.
        out_channels: Channels of the pooled vector; 1024 in the paper.
        deploy: Build the deploy form, with the norm folded into the convolution, for checkpoints written by
            tools/model_converters/reparameterize_model.py. It cannot be trained.
        init_cfg: Initialization config of MMEngine; None keeps PyTorch's, as the official implementation does.

    Raises:
        ValueError: A number of channels is not a positive integer, or ``deploy`` is neither True nor False.
    """

    training_keys = r'norm\.'
    common_keys = r'conv\.'

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 1024,
        deploy: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        in_channels = positive_integer('in_channels', in_channels)
        out_channels = positive_integer('out_channels', out_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 1)
        self.norm = nn.BatchNorm2d(out_channels)
        if not isinstance(deploy, bool):
            raise ValueError(f'deploy must be True or False, but got {deploy!r}.')
        if deploy:
            self.switch_to_deploy()

    def _fold(self) -> None:
        fold_after(self.conv, *affine_of(self.norm))
        self.norm = nn.Identity()

    def forward(self, inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor]:
        """Pool the last map.

        Args:
            inputs: The map (B, in_channels, H, W), or the backbone's tuple that ends with it.

        Returns:
            The pooled vectors (B, out_channels), in a tuple as MMPreTrain's heads expect.

        Raises:
            ValueError: There is no such map.
        """
        x = inputs[-1] if isinstance(inputs, (tuple, list)) and inputs else inputs
        if not isinstance(x, Tensor) or x.dim() != 4 or x.shape[1] != self.conv.in_channels:
            got = tuple(x.shape) if isinstance(x, Tensor) else x
            raise ValueError(
                f'STViTNeck needs a map (B, {self.conv.in_channels}, H, W), or a tuple ending with one, but got '
                f"{got!r}. Its in_channels must be those of the backbone's last output."
            )
        x = F.silu(self.norm(self.conv(x)))
        return (x.mean(dim=(2, 3)),)
