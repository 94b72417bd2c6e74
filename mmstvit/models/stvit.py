"""STViT, the backbone of "Vision Transformer with Super Token Sampling" (CVPR 2023)."""

import contextlib
import dataclasses
import functools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.utils.checkpoint as cp
from packaging.version import Version
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmstvit.layers import ConvStem, Downsample, STViTBlock
from mmstvit.registry import MODELS

from .arch import NUM_STAGES, check_rate, is_number, per_stage, positive_integer, resolve_arch
from .deploy import Deployable
from .pretrained import for_backbone

# The stages have strides 4 to 32; below 32 pixels the last one has nothing to see.
MIN_SIDE = 32
_COMPILE_OPTIONS = {'backend', 'dynamic', 'fullgraph', 'mode'}


@MODELS.register_module()
class STViT(Deployable):
    """STViT backbone.

    A PyTorch implementation of `Vision Transformer with Super Token Sampling <https://arxiv.org/abs/2211.11167>`_,
    equal to the published release in values and gradients.

    Args:
        arch: ``'small'``, ``'base'`` or ``'large'`` of the paper, ``'nano'`` (ours, for tests and small data), or a
            dict with one entry per stage under ``channels``, ``depths`` and ``num_heads``, and if wanted
            ``stoken_size`` (default ``(8, 4, 1, 1)``), ``layer_scale_init_value`` (default: no layer scale) and
            the single number ``mlp_ratio`` (default 4).
        in_channels: Channels of the image.
        out_indices: Stages to return, in increasing order; negative ones count from the last. Stages after the
            last one returned are not built.
        n_iter: Sampling iterations, one number or one per stage.
        stoken_size: Sides of a super token's cell, in tokens, one per stage, instead of the arch's; 1 is global
            attention. With ``(8, 4, 2, 1)`` the third stage, whose global attention dominates the cost of large images,
            has super tokens too. No weight depends on it: every checkpoint of the arch loads. In the
            paper a model trained with it has a top-1 accuracy on ImageNet that is lower by 1.0.
        drop_rate: Dropout after the attention's projection and in the FFN.
        attn_drop_rate: Dropout of the attention weights.
        drop_path_rate: Stochastic depth of the last block; it rises linearly from 0 at the first block.
        frozen_stages: Stages that do not learn: -1 none, 0 the stem, k the stem and the first k stages, each with
            the downsampling before it. Their BatchNorms keep their statistics.
        norm_eval: Whether BatchNorms keep their statistics during training.
        with_cp: Whether to recompute the blocks in the backward pass to save memory. Values, gradients and
            BatchNorm statistics stay the same.
        deploy: Whether to build the inference form, which :meth:`switch_to_deploy` makes of a trained backbone: the
            norms after a downsampling and before an FFN, layer scales and the identities beside depthwise convolutions
            are folded into the weights. It loads checkpoints that tools/model_converters/reparameterize_model.py wrote,
            and cannot be trained.
        compile: Whether to run through ``torch.compile``: stem and stages, one graph each, compiled at the first image
            for images of any size. A dict holds arguments for ``torch.compile``, such as ``dict(dynamic=False)`` for
            images of one size. Keys of the state dict stay the same. See docs/compile.md.
        init_cfg: Initialisation config of MMEngine. The default None leaves PyTorch's initialisation of
            convolutions and linears, which is what the release does. ``dict(type='Pretrained', checkpoint=PATH)`` takes
            a published file as well as ours, of a whole model or of the backbone; see :meth:`init_weights`.

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
        compile: bool | Mapping = False,
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
        self.compile_options = _check_compile(compile, with_cp)

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
        x = self._piece('stem', _run_stem)(self.patch_embed, x)
        outs = []
        for i, blocks in enumerate(self.stages):
            run = self._piece(f'stage{i}', _run_stage)
            downsample = self.downsamples[i] if i + 1 < len(self.stages) else None
            out, x = run(blocks, downsample, i in self.out_indices, self.with_cp, x)
            if out is not None:
                outs.append(out)
        return tuple(outs)

    def _piece(self, name: str, function: Callable) -> Callable:
        """A piece of the forward pass, compiled if it is to be; inside another compiled function it is that one's."""
        if self.compile_options is None or torch.compiler.is_compiling():
            return function
        return _compiled(name, function, *sorted(self.compile_options.items()))

    def _check_input(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(
                f'STViT needs a tensor of images (B, {self.in_channels}, H, W), but got {type(x).__name__}. '
                f'An array becomes one with torch.as_tensor.'
            )
        if not x.is_floating_point():
            raise TypeError(
                f'STViT needs floating-point images, but got {x.dtype}. Normalise them first; in a config the data '
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
        """Initialise the weights as ``init_cfg`` says; pretrained ones are read without executing the file.

        Of ``dict(type='Pretrained', checkpoint=PATH)`` the backbone's weights are taken, from a file of the release or
        of a model of ours, with or without ``prefix``. What was loaded and what was not is logged.

        Raises:
            CheckpointError: The file cannot be used, or does not have all weights that this backbone needs.
        """
        given = self.init_cfg
        self.init_cfg = for_backbone(given)
        try:
            super().init_weights()
        finally:
            self.init_cfg = given

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
        """Set the training mode; frozen stages, and with ``norm_eval`` all BatchNorms, stay in eval mode.

        Raises:
            FormError: Training is asked of the inference form.
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
        blocks = [block for stage in self.stages for block in stage]
        # The rule runs over all blocks of the architecture, whichever stages are built.
        rates = torch.linspace(0, rate, sum(self.arch.depths), device='cpu').tolist()
        for block, block_rate in zip(blocks, rates[: len(blocks)], strict=True):
            block.drop_path.drop_prob = block_rate

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Get the layer-wise depth of a parameter, for layer-wise learning-rate decay.

        The stem is layer 0, the blocks follow one by one, a downsampling belongs to the block after it, and whatever
        is not of the backbone is the last layer.

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


def _checkpoint(block: STViTBlock, x: Tensor) -> Tensor:
    """Run a block and recompute it in the backward pass."""
    contexts = contextlib.nullcontext(), _FrozenStatistics(block)
    return cp.checkpoint(block, x, use_reentrant=False, context_fn=lambda: contexts)


# The compiler takes no context_fn. Since torch 2.11 (tried) it needs none, it updates BatchNorm's statistics once; with
# 2.4 (tried) it updates them twice, so there a checkpointed block runs outside the compiled graph.
_TRACES_CHECKPOINT = Version(torch.__version__) >= Version('2.11')
if _TRACES_CHECKPOINT:
    _checkpoint_compiled = functools.partial(cp.checkpoint, use_reentrant=False)
else:
    _checkpoint_compiled = torch.compiler.disable(_checkpoint)


def _run_stem(stem: ConvStem, x: Tensor) -> Tensor:
    """(B, in_channels, H, W) -> (B, C, ⌈H/4⌉, ⌈W/4⌉)"""
    return stem(x)


def _run_stage(
    blocks: nn.ModuleList, downsample: Downsample | None, is_output: bool, with_cp: bool, x: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Run the blocks of a stage: (B, C, H, W) -> the same as an output, and (B, C', ⌈H/2⌉, ⌈W/2⌉) for the next."""
    x = x.permute(0, 2, 3, 1)  # (B, H, W, C)
    for block in blocks:
        x = _run_block(block, x) if with_cp and torch.is_grad_enabled() else block(x)
    x = x.permute(0, 3, 1, 2)  # (B, C, H, W) in channels_last format
    # mmcv's RoIAlign reads channels_last memory as if it were NCHW, without an error.
    return x.contiguous() if is_output else None, None if downsample is None else downsample(x)


def _run_block(block: STViTBlock, x: Tensor) -> Tensor:
    return _checkpoint_compiled(block, x) if torch.compiler.is_compiling() else _checkpoint(block, x)


@functools.cache
def _compiled(name: str, function: Callable, *items: tuple[str, Any]) -> Callable:
    """A compiled function, for all backbones that ask for it with the same options.

    No module holds it: copies and pickles of a module run it too, and hooks around the forward pass of the backbone,
    such as those that switch autocast on, stay outside.
    """
    options = dict(items)
    if options.get('backend', 'inductor') == 'inductor':
        mode = torch._inductor.list_mode_options(options.pop('mode', 'default'))
        # Maps have channels-last memory as it is, and the pass that would give it to them fails in training with sizes
        # that vary (torch 2.11: it compares strides that it knows by name alone).
        options['options'] = {**mode, 'layout_optimization': False}
    # By code the compiler counts how often it compiled anew, and gives up: each piece has its own.
    own = types.FunctionType(function.__code__.replace(co_name=name), function.__globals__, name)
    return torch.compile(own, **options)


def _check_compile(compile: Any, with_cp: bool) -> dict[str, Any] | None:
    """Arguments for torch.compile, or None."""
    if isinstance(compile, bool):
        compile = {} if compile else None
    elif not isinstance(compile, Mapping) or not set(compile) <= _COMPILE_OPTIONS:
        raise ValueError(
            f'compile must be True, False or a dict with arguments of torch.compile out of '
            f'{sorted(_COMPILE_OPTIONS)}, but got {compile!r}.'
        )
    fullgraph = _TRACES_CHECKPOINT or not with_cp
    return None if compile is None else {'fullgraph': fullgraph, 'dynamic': True, **compile}


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


class _FrozenStatistics:
    """Keep BatchNorm from updating its statistics a second time while a block is recomputed.

    The recomputation has to save the same tensors as the forward pass, so the statistics are still handed to the
    kernel, with momentum 0 and a copy of the counter of batches. May be entered again: a graph can run backward twice.

    Args:
        module: The block.
    """

    def __init__(self, module: nn.Module) -> None:
        self.norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
        self.saved: list[tuple] = []

    def __enter__(self) -> None:
        self.saved = [(norm.momentum, norm.num_batches_tracked) for norm in self.norms]
        for norm in self.norms:
            norm.momentum, norm.num_batches_tracked = 0.0, norm.num_batches_tracked.clone()

    def __exit__(self, *_: object) -> None:
        for norm, (momentum, count) in zip(self.norms, self.saved, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
