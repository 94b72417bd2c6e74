"""STViT, the backbone of "Vision Transformer with Super Token Sampling" (CVPR 2023)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmstvit.arch import NUM_STAGES, check_rate, is_number, per_stage, positive_integer, resolve_arch
from mmstvit.checkpoint import adapt_init_cfg, check_backbone, select_backbone
from mmstvit.fileio import Checkpoint, LoadReport
from mmstvit.layers import ConvStem, Downsample, STViTBlock, cast_weights, checkpoint, count_batches, draw_drop_path
from mmstvit.registry import MODELS

from .deploy import Deployable

# The stages have strides 4 to 32; of an image below 32 pixels the last one would see less than one token.
MIN_SIDE = 32


@MODELS.register_module()
class STViT(Deployable):
    """STViT backbone.

    A PyTorch implementation of `Vision Transformer with Super Token Sampling <https://arxiv.org/abs/2211.11167>`_,
    equal to the official implementation in values and gradients.

    Args:
        arch: ``'small'``, ``'base'`` or ``'large'`` of the paper, ``'nano'`` (ours, for tests and small data), or a
            dict with one entry per stage under ``channels``, ``depths`` and ``num_heads``. Optional keys are
            ``stoken_size`` (default ``(8, 4, 1, 1)``), ``layer_scale_init_value`` (default: no layer scale) and the
            single number ``mlp_ratio`` (default 4).
        in_channels: Channels of the image.
        out_indices: Stages to return, in increasing order; negative ones count from the last. Stages after the
            last one returned are not built.
        n_iter: Sampling iterations, one number or one per stage.
        stoken_size: Sides of a super token's cell, in tokens, one per stage; replaces the value of ``arch``. 1 is
            global attention. With ``(8, 4, 2, 1)`` the third stage, whose global attention dominates the cost of large
            images, has super tokens too. No weight depends on it: every checkpoint of the arch loads. In Table 7 of the
            paper, such a model trained on ImageNet has a top-1 accuracy that is lower by 1.0.
        drop_rate: Dropout after the attention's projection and in the FFN.
        attn_drop_rate: Dropout of the attention weights.
        drop_path_rate: Stochastic depth of the last block; it rises linearly from 0 at the first block.
        frozen_stages: Stages that do not learn: -1 none, 0 the stem, k the stem and the first k stages, each with
            the downsampling before it. Their BatchNorms keep their statistics.
        norm_eval: Keep the statistics of all BatchNorms during training.
        with_cp: Recompute the blocks in the backward pass to save memory. Values, gradients and BatchNorm statistics
            stay the same. On CPU, FFNs and attention over large maps are always recomputed, a strip at a time, because
            that is faster than writing their hidden maps to memory: a training step at 800×1333 takes 1/3.5 of the time
            and 0.2 of the memory of the published algorithm (docs/speed.md). On a GPU nothing is recomputed unless this
            is True.
        deploy: Build the deploy form, which :meth:`switch_to_deploy` makes of a trained backbone: the norms after a
            downsampling and before an FFN, the layer scales and the identities beside depthwise convolutions are folded
            into the weights. It loads checkpoints written by tools/model_converters/reparameterize_model.py and cannot
            be trained.
        init_cfg: Initialization config of MMEngine. The default None keeps PyTorch's initialization of convolutions and
            linear layers, as the official implementation does. ``dict(type='Pretrained', checkpoint=PATH)`` accepts a
            published checkpoint as well as ours, of a whole model or of the backbone; see :meth:`init_weights`.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> model = STViT('small').eval()
        >>> [tuple(x.shape) for x in model(torch.rand(1, 3, 224, 224))]
        [(1, 64, 56, 56), (1, 128, 28, 28), (1, 320, 14, 14), (1, 512, 7, 7)]
    """

    training_keys = r'stages\.\d+\.\d+\.norm2\.'
    common_keys = r'stages\.\d+\.\d+\.ffn\.fc1\.'

    def __init__(
        self,
        arch: str | Mapping = 'small',
        in_channels: int = 3,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        n_iter: int | Sequence[int] = 1,
        stoken_size: Sequence[int] | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        deploy: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.arch = resolve_arch(arch)
        if stoken_size is not None:
            self.arch = dataclasses.replace(self.arch, stoken_size=per_stage('stoken_size', stoken_size, int, 1))
        self.in_channels = positive_integer('in_channels', in_channels)
        self.out_indices = _check_out_indices(out_indices)
        num_stages = self.out_indices[-1] + 1
        n_iters = per_stage('n_iter', (n_iter,) * NUM_STAGES if isinstance(n_iter, int) else n_iter, int, 1)
        for name, rate in (('drop_rate', drop_rate), ('attn_drop_rate', attn_drop_rate)):
            check_rate(name, rate)
        if not is_number(frozen_stages, int) or frozen_stages not in range(-1, num_stages + 1):
            raise ValueError(
                f'frozen_stages must be -1 (nothing), 0 (the stem) or up to {num_stages} (the stages built for '
                f'out_indices={self.out_indices}), but got {frozen_stages!r}.'
            )
        for name, flag in (('norm_eval', norm_eval), ('with_cp', with_cp), ('deploy', deploy)):
            if not isinstance(flag, bool):
                raise ValueError(f'{name} must be True or False, but got {flag!r}.')
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp

        channels, depths = self.arch.channels, self.arch.depths
        self.patch_embed = ConvStem(in_channels, channels[0])
        self.downsamples = nn.ModuleList(Downsample(channels[i], channels[i + 1]) for i in range(num_stages - 1))
        self.stages = nn.ModuleList()
        for i in range(num_stages):
            blocks = [
                STViTBlock(
                    channels[i],
                    self.arch.num_heads[i],
                    self.arch.stoken_size[i],
                    n_iter=n_iters[i],
                    mlp_ratio=self.arch.mlp_ratio,
                    drop_rate=drop_rate,
                    attn_drop_rate=attn_drop_rate,
                    layer_scale_init_value=self.arch.layer_scale_init_value[i],
                )
                for _ in range(depths[i])
            ]
            self.stages.append(nn.ModuleList(blocks))
        self.set_drop_path_rate(drop_path_rate)
        self._freeze_stages()
        if deploy:
            self.switch_to_deploy()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps.

        Args:
            x: Images, (B, in_channels, H, W) with H, W ≥ 32, in any memory format.

        Returns:
            One contiguous NCHW map per entry of ``out_indices``; stage i has shape
            (B, channels[i], ⌈H / 2^(i+2)⌉, ⌈W / 2^(i+2)⌉).

        Raises:
            ValueError: The input has another rank or number of channels, or is smaller than 32×32.
            TypeError: The input is not a floating-point tensor.
        """
        self._check_input(x)
        count_batches(self)
        drop_path = iter(self.draw_drop_path(x))
        outs = []
        for i, blocks in enumerate(self.stages):
            embed = self.downsamples[i - 1] if i > 0 else self.patch_embed
            # Stage by stage: DistributedDataParallel sends the gradients of one while the next one is computed.
            with cast_weights(x, embed, blocks):
                x = embed(x)  # (B, H, W, C)
                for block in blocks:
                    inputs = x, next(drop_path)
                    x = checkpoint(block, *inputs) if self.with_cp and torch.is_grad_enabled() else block(*inputs)
            if i in self.out_indices:
                # mmcv's RoIAlign reads channels_last memory as if it were NCHW, without an error.
                outs.append(x.permute(0, 3, 1, 2).contiguous())
        return tuple(outs)

    def _check_input(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(
                f'STViT needs a tensor of images (B, {self.in_channels}, H, W), but got {type(x).__name__}. '
                f'An array becomes one with torch.as_tensor.'
            )
        if not x.is_floating_point():
            raise TypeError(
                f'STViT needs floating-point images, but got {x.dtype}. Normalize them first; in a config the data '
                f'preprocessor does it.'
            )
        if x.dim() != 4:
            raise ValueError(
                f'STViT needs a batch of images (B, {self.in_channels}, H, W), but got a tensor of shape '
                f'{tuple(x.shape)}. Add the batch dimension with x[None] if it is a single image.'
            )
        if x.shape[1] != self.in_channels:
            raise ValueError(
                f'STViT was built with in_channels={self.in_channels}, but got a tensor of shape {tuple(x.shape)} '
                f'with {x.shape[1]} channels. The layout is (B, C, H, W).'
            )
        if x.shape[2] < MIN_SIDE or x.shape[3] < MIN_SIDE:
            raise ValueError(
                f'STViT needs images of at least {MIN_SIDE}×{MIN_SIDE}, but got {x.shape[2]}×{x.shape[3]}. '
                f'Resize or pad the input.'
            )

    def init_weights(self) -> None:
        """Initialize the weights by ``init_cfg``; a pretrained file is read without executing it.

        ``dict(type='Pretrained', checkpoint=PATH)`` takes the backbone's weights from a published checkpoint or from
        one of ours, with or without ``prefix``. A table of loaded, missing and unexpected weights is logged.

        Raises:
            CheckpointError: The file cannot be used, or does not have all weights that this backbone needs.
        """
        given = self.init_cfg
        self.init_cfg = adapt_init_cfg(given)
        try:
            super().init_weights()
        finally:
            self.init_cfg = given

    @staticmethod
    def select_pretrained(checkpoint: Checkpoint, prefix: str | None = None) -> Checkpoint:
        """Return the backbone's weights in a checkpoint, see :func:`mmstvit.checkpoint.select_backbone`."""
        return select_backbone(checkpoint, prefix)

    def check_weights(self, report: LoadReport, prefix: str) -> None:
        """Refuse weights that leave a part of the backbone uninitialized.

        Args:
            report: What would be loaded.
            prefix: Prefix of the backbone in the model.

        Raises:
            CheckpointError: Weights are missing, of another architecture or of the other form.
        """
        super().check_weights(report, prefix)
        check_backbone(report, self.state_dict(), prefix, self.in_channels)

    def _freeze_stages(self) -> None:
        if self.frozen_stages < 0:
            return
        frozen = [self.patch_embed, *self.stages[: self.frozen_stages]]
        frozen += self.downsamples[: max(self.frozen_stages - 1, 0)]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)

    def _fold(self) -> None:
        for module in (*self.downsamples, *(block for blocks in self.stages for block in blocks)):
            module.switch_to_deploy()

    def train(self, mode: bool = True) -> 'STViT':
        """Set the training mode; frozen stages, and with ``norm_eval`` all BatchNorms, stay in evaluation mode.

        Raises:
            FormError: ``mode`` is True and the backbone is in deploy form.
        """
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def set_drop_path_rate(self, rate: float) -> None:
        """Set stochastic depth: 0 at the first block, rising linearly to ``rate`` at the last of the architecture.

        Args:
            rate: Stochastic depth of the last block, in [0, 1).

        Raises:
            ValueError: The rate is out of range.
        """
        check_rate('drop_path_rate', rate)
        self.drop_path_rate = rate

    def draw_drop_path(self, x: Tensor) -> Sequence[Tensor | None]:
        """Draw the factors of stochastic depth for images, see :func:`mmstvit.layers.draw_drop_path`.

        The rate rises over all blocks of the architecture, whichever stages are built.
        """
        return draw_drop_path(self.drop_path_rate if self.training else 0.0, sum(self.arch.depths), x)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Get the layer-wise depth of a parameter, for layer-wise learning-rate decay.

        The stem is layer 0, the blocks follow one by one, a downsampling belongs to the block after it, and parameters
        outside the backbone belong to the last layer.

        Args:
            param_name: Name of the parameter.
            prefix: Prefix of the backbone's parameters in the model, such as ``'backbone.'``.

        Returns:
            The depth of the parameter and the number of layers.
        """
        depths = self.arch.depths[: len(self.stages)]
        num_layers = sum(depths) + 2
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        group, *indices = param_name[len(prefix) :].split('.')
        if group == 'patch_embed':
            return 0, num_layers
        if group == 'downsamples':
            return sum(depths[: int(indices[0]) + 1]) + 1, num_layers
        if group == 'stages':
            return sum(depths[: int(indices[0])]) + int(indices[1]) + 1, num_layers
        return num_layers - 1, num_layers


def _check_out_indices(out_indices: Any) -> tuple[int, ...]:
    indices = [out_indices] if is_number(out_indices, int) else out_indices
    valid = isinstance(indices, Sequence) and len(indices) > 0
    valid = valid and all(is_number(i, int) and -NUM_STAGES <= i < NUM_STAGES for i in indices)
    if valid:
        indices = tuple(i % NUM_STAGES for i in indices)
        valid = list(indices) == sorted(set(indices))
    if not valid:
        raise ValueError(
            f'out_indices must name stages 0 to {NUM_STAGES - 1} (or -{NUM_STAGES} to -1), at least one, in increasing '
            f'order and each once, but got {out_indices!r}.'
        )
    return indices
