"""Layer-wise learning-rate decay for backbones with ``get_layer_depth``."""

from collections import Counter

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mmstvit.errors import UserError, suggest
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
    """MMEngine's default constructor with a learning rate that decreases from the head towards the stem.

    A parameter of a backbone gets ``layer_decay_rate ** (num_layers - 1 - depth)`` times the learning rate that the
    default constructor gives it, with ``depth`` and ``num_layers`` from the backbone's
    ``get_layer_depth(param_name, prefix)``. Parameters outside of a backbone, such as a neck or a head, keep their
    learning rate. The backbone may be anywhere in the model.

    All other options of ``paramwise_cfg`` are those of :class:`mmengine.optim.DefaultOptimWrapperConstructor`: weight
    decay is the same as without layer decay, and an ``lr_mult`` multiplies the layer's factor. Each parameter group
    also has its ``param_name`` and the factor ``lr_scale``.

    Args:
        optim_wrapper_cfg: Config of the optimizer wrapper; its ``optimizer`` must have ``lr``.
        paramwise_cfg: ``layer_decay_rate`` in (0, 1], and any option of the default constructor.

    Raises:
        UserError: The rate is missing or out of range, an option is unknown, or the optimizer has no ``lr``.

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
                raise UserError(
                    f'Unknown option {option!r} of paramwise_cfg.{suggest(option, _OPTIONS)}',
                    f'Known options: {", ".join(_OPTIONS)}.',
                )
        rate = self.paramwise_cfg.get('layer_decay_rate')
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise UserError(
                f'paramwise_cfg.layer_decay_rate must be a number in (0, 1], but got {rate!r}.',
                'Set it, for example to 0.9; 1 means no decay.',
            )
        if self.base_lr is None:
            raise UserError(
                'Layer-wise decay scales the learning rate, but optim_wrapper.optimizer has no lr.',
                'Set optim_wrapper.optimizer.lr.',
            )
        self.layer_decay_rate = rate

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', is_dcn_module: int | float | None = None
    ) -> None:
        """Add one group per parameter of ``module`` to ``params``; MMEngine calls it with the whole model.

        Raises:
            UserError: No part of the model has ``get_layer_depth``.
        """
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix == '':  # the default constructor has called itself for all children
            self._scale(params, module)

    def _scale(self, params: list[dict], model: nn.Module) -> None:
        backbones = _backbones(model)
        if not backbones:
            raise UserError(
                f'Layer-wise learning-rate decay needs a backbone with get_layer_depth(param_name, prefix), such as '
                f'STViT, but {type(model).__name__} has none.',
                'Remove optim_wrapper.constructor and paramwise_cfg.layer_decay_rate.',
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
            print_log(f'Layer decay: {count} parameters with lr_scale={scale:.3g}', logger='current')


def _backbones(model: nn.Module) -> dict[str, nn.Module]:
    """Find the innermost modules with ``get_layer_depth``, by prefix; MMPreTrain's classifiers have the method too."""
    found = {f'{name}.' if name else '': m for name, m in model.named_modules() if hasattr(m, 'get_layer_depth')}
    return {p: m for p, m in found.items() if not any(other != p and other.startswith(p) for other in found)}
