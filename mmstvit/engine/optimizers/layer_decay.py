"""Layer-wise learning-rate decay, for every backbone that knows the depth of its parameters."""

import difflib
from collections import Counter

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mmstvit.registry import OPTIM_WRAPPER_CONSTRUCTORS

# The options of DefaultOptimWrapperConstructor, and ours.
_OPTIONS = (
    'layer_decay_rate',
    'custom_keys',
    'bias_lr_mult',
    'bias_decay_mult',
    'norm_decay_mult',
    'flat_decay_mult',
    'dwconv_decay_mult',
    'dcn_offset_lr_mult',
    'bypass_duplicate',
)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's default constructor, with a learning rate that falls with the distance from the head.

    A parameter of a backbone gets ``layer_decay_rate ** (num_layers - 1 - depth)`` times the learning rate that the
    default constructor gives it; ``depth`` and ``num_layers`` are what the backbone's
    ``get_layer_depth(param_name, prefix)`` returns. What is outside of a backbone, such as a neck or a head, keeps its
    learning rate. The backbone may be anywhere in the model: of a classifier, a detector or a segmentor.

    Every other option of ``paramwise_cfg`` is that of :class:`mmengine.optim.DefaultOptimWrapperConstructor`, so weight
    decays are as without layer decay, and an ``lr_mult`` multiplies with the layer's factor.

    Every parameter group also says its ``param_name`` and the factor, ``lr_scale``.

    Args:
        optim_wrapper_cfg: Config of the optimiser wrapper; its ``optimizer`` must have ``lr``.
        paramwise_cfg: ``layer_decay_rate`` in (0, 1], and any of the default constructor's options.

    Raises:
        ValueError: The rate is missing or out of range, an option is unknown, or the optimiser has no ``lr``.

    Example:
        >>> optim_wrapper = dict(
        >>>     optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
        >>>     constructor='mmstvit.LayerDecayOptimWrapperConstructor',
        >>>     paramwise_cfg=dict(layer_decay_rate=0.9, norm_decay_mult=0.0))
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        for option in self.paramwise_cfg:
            if option not in _OPTIONS:
                close = difflib.get_close_matches(option, _OPTIONS, n=1)
                hint = f' Did you mean {close[0]!r}?' if close else ''
                raise ValueError(f'Unknown option {option!r} of paramwise_cfg.{hint} Known are {list(_OPTIONS)}.')
        rate = self.paramwise_cfg.get('layer_decay_rate')
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise ValueError(
                f'paramwise_cfg.layer_decay_rate must be a number in (0, 1], such as 0.9 (1 is no decay), but got '
                f'{rate!r}.'
            )
        if self.base_lr is None:
            raise ValueError('Layer-wise decay scales the learning rate: give the optimizer of the config its lr.')
        self.layer_decay_rate = rate

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', is_dcn_module: int | float | None = None
    ) -> None:
        """Add one group per parameter of ``module`` to ``params``; called by MMEngine with the whole model.

        Raises:
            ValueError: No part of the model has ``get_layer_depth``.
        """
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix == '':  # The default constructor calls itself for the children; now all of them are in.
            self._scale(params, module)

    def _scale(self, params: list[dict], model: nn.Module) -> None:
        backbones = _backbones(model)
        if not backbones:
            raise ValueError(
                f'Layer-wise learning-rate decay needs a backbone with a method get_layer_depth(param_name, prefix), '
                f'as STViT has; {type(model).__name__} has none. Drop optim_wrapper.constructor and '
                f'paramwise_cfg.layer_decay_rate.'
            )
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        for group in params:
            (parameter,) = group['params']
            name = names[id(parameter)]
            scale = 1.0
            for prefix, backbone in backbones.items():
                if name.startswith(prefix):
                    depth, num_layers = backbone.get_layer_depth(name, prefix)
                    scale = self.layer_decay_rate ** (num_layers - 1 - depth)
            group.update(lr=group.get('lr', self.base_lr) * scale, lr_scale=scale, param_name=name)
        for scale, count in sorted(Counter(group['lr_scale'] for group in params).items()):
            print_log(f'layer decay -- lr_scale={scale:.3g}: {count} parameters', logger='current')


def _backbones(model: nn.Module) -> dict[str, nn.Module]:
    """Innermost modules with ``get_layer_depth``, by prefix; MMPreTrain's classifier around one has that method too."""
    found = {f'{name}.' if name else '': m for name, m in model.named_modules() if hasattr(m, 'get_layer_depth')}
    return {p: m for p, m in found.items() if not any(other != p and other.startswith(p) for other in found)}
