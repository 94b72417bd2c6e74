"""Pretrained weights of a backbone, from a file of the release or of a model of ours."""

from collections.abc import Mapping, Sequence

from mmengine.model import PretrainedInit, update_init_info
from torch import nn

from mmstvit.checkpoint import load_weights, read_backbone


class PretrainedBackbone(PretrainedInit):
    """MMEngine's ``Pretrained`` for an STViT: of any file, the weights that a bare backbone needs."""

    def __call__(self, module: nn.Module) -> None:
        load_weights(module, read_backbone(self.checkpoint, self.prefix))
        update_init_info(module, init_info=f'Pretrained: load from {self.checkpoint}')


def for_backbone(init_cfg: Mapping | Sequence[Mapping] | None) -> list[dict]:
    """The initialisers of a config with :class:`PretrainedBackbone` for ``Pretrained``, and that last: any other would
    overwrite what was loaded.
    """
    configs = [init_cfg] if isinstance(init_cfg, Mapping) else list(init_cfg or [])
    configs = [{**config, 'type': PretrainedBackbone} if _is_pretrained(config) else config for config in configs]
    return sorted(configs, key=lambda config: config['type'] is PretrainedBackbone)


def _is_pretrained(config: Mapping) -> bool:
    kind = config.get('type')
    return kind is PretrainedInit or str(kind).rpartition('.')[2] == 'Pretrained'
