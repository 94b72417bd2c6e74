"""Pretrained weights of a backbone, from a file of the official implementation or of a model of ours."""

from collections.abc import Mapping, Sequence

from mmengine.model import PretrainedInit, update_init_info
from torch import Tensor, nn

from mmstvit.dependencies import tool_command
from mmstvit.errors import CheckpointError, prefix_errors
from mmstvit.fileio import OTHER_CONFIG, Checkpoint, LoadReport, add_dot, load_weights, open_checkpoint

from .inspect import backbone_weights, find_size, recognize_arch


def read_backbone(path: str, prefix: str | None = None) -> Checkpoint:
    """Read the weights for a bare STViT.

    Args:
        path: File or address: of the official implementation, of a model of ours, or of the backbone alone.
        prefix: Prefix of the backbone's keys, such as ``'backbone.'``; None finds it.

    Raises:
        CheckpointError: The file cannot be used.
    """
    return select_backbone(open_checkpoint(path), prefix)


def select_backbone(checkpoint: Checkpoint, prefix: str | None = None) -> Checkpoint:
    """Return the weights for a bare STViT, see :func:`read_backbone`."""
    with prefix_errors(checkpoint.path):
        kept, dropped = backbone_weights(checkpoint.weights, add_dot(prefix) if prefix else None)
    return Checkpoint(checkpoint.path, kept, checkpoint.where, dropped=dropped)


class PretrainedBackbone(PretrainedInit):
    """MMEngine's ``Pretrained`` for an STViT: it takes the weights of a bare backbone from any file."""

    def __call__(self, module: nn.Module) -> None:
        """Load the weights into an STViT."""
        load_weights(module, read_backbone(self.checkpoint, self.prefix))
        update_init_info(module, init_info=f'Pretrained: load from {self.checkpoint}')


def adapt_init_cfg(init_cfg: Mapping | Sequence[Mapping] | None) -> list[dict]:
    """Replace ``Pretrained`` by :class:`PretrainedBackbone`, and put it after other initializers."""
    configs = [init_cfg] if isinstance(init_cfg, Mapping) else list(init_cfg or [])
    configs = [{**config, 'type': PretrainedBackbone} if _is_pretrained(config) else config for config in configs]
    return sorted(configs, key=lambda config: config['type'] is PretrainedBackbone)


def _is_pretrained(config: Mapping) -> bool:
    kind = config.get('type')
    return kind is PretrainedInit or str(kind).rpartition('.')[2] == 'Pretrained'


def check_backbone(report: LoadReport, own: Mapping[str, Tensor], prefix: str, in_channels: int) -> None:
    """Refuse weights that leave a part of an STViT uninitialized.

    Args:
        report: Comparison of the weights with the model.
        own: The state dict of the STViT.
        prefix: Prefix of the STViT in the model.
        in_channels: Channels of its images.

    Raises:
        CheckpointError: Weights are missing, or are those of another architecture or number of image channels; or the
            file has weights for more layers.
    """
    source = report.source
    needed = [f'{prefix}{name}' for name in own if not name.endswith('.num_batches_tracked')]
    loaded = set(report.loaded)
    absent = [name for name in needed if name not in loaded]
    if not absent:
        _check_all_used(report, own, prefix)
        return
    file = {name[len(prefix) :]: tensor for name, tensor in source.weights.items() if name.startswith(prefix)}
    sizes = find_size(file), find_size(own)
    if None not in sizes:
        stages = len(sizes[1].depths)  # the model may have fewer stages than the file, not more
        if (sizes[0].channels[:stages], sizes[0].depths[:stages]) != (sizes[1].channels, sizes[1].depths):
            raise CheckpointError(
                f'{source.path} holds {_describe_stvit(file)}, but the model is {_describe_stvit(own)}.',
                'Set arch of the backbone to that of the file, or use another file.',
            )
    stem = report.mismatched.get(f'{prefix}patch_embed.convs.0.weight')
    if stem is not None and stem[0][1] != in_channels:
        raise CheckpointError(
            f'{source.path} is for images of {stem[0][1]} channels, but the model has in_channels={in_channels}.',
            f'Convert the stem with: {tool_command("model_converters/stvit_to_mm.py")} {source.path} DST '
            f'--in-channels {in_channels}',
        )
    where = f' ({prefix[:-1]})' if prefix else ''
    raise CheckpointError(
        f'{source.path} is missing {len(absent)} of {len(needed)} backbone weights{where} (first: '
        f'{", ".join(absent[:3])}).',
        OTHER_CONFIG if loaded & set(needed) else _find_remedy(source),
    )


def _check_all_used(report: LoadReport, own: Mapping[str, Tensor], prefix: str) -> None:
    """Refuse weights of layers, such as layer scales, that the built stages do not have."""
    built = {f'{prefix}stages.{name.split(".")[1]}.' for name in own if name.startswith('stages.')}
    unused = [name for name in report.unexpected if name.startswith(tuple(built))]
    if unused:
        raise CheckpointError(
            f'{report.source.path} has {len(unused)} weights that the backbone has no layers for (first: '
            f'{", ".join(unused[:3])}).',
            OTHER_CONFIG,
        )


def _describe_stvit(weights: Mapping[str, Tensor]) -> str:
    arch = recognize_arch(weights)
    return f'an STViT with {arch}' if arch.startswith('channels') else f'STViT-{arch}'


def _find_remedy(source: Checkpoint) -> str:
    if any(name.startswith('stages.') for name in source.weights) and find_size(source.weights) is not None:
        return (
            "These are weights of a backbone alone. Load them in the model's backbone with init_cfg="
            f"dict(type='Pretrained', checkpoint={source.path!r})."
        )
    return OTHER_CONFIG
