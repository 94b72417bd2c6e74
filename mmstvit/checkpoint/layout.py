"""Published STViT checkpoints: their keys as the keys of an mmpretrain classifier with an STViT backbone."""

import re
from collections.abc import Mapping

from torch import Tensor

# Constant identity kernels that the release registered as parameters: dropped by name.
_DROPPED = re.compile(r'layers\.\d+\.blocks\.\d+\.attn\.(unfold|fold)\.weights')

_NORM = r'(?:weight|bias|running_mean|running_var|num_batches_tracked)'
_AFFINE = r'(?:weight|bias)'
# Published key -> ours. The stem's convolutions sit at 0, 3, 6, 9 of a Sequential, its norms at 2, 5, 8, 11.
_RULES = [
    (rf'patch_embed\.proj\.(0|3|6|9)\.({_AFFINE})', lambda m: f'backbone.patch_embed.convs.{int(m[1]) // 3}.{m[2]}'),
    (rf'patch_embed\.proj\.(2|5|8|11)\.({_NORM})', lambda m: f'backbone.patch_embed.norms.{int(m[1]) // 3}.{m[2]}'),
    (rf'layers\.([012])\.downsample\.proj\.0\.({_AFFINE})', r'backbone.downsamples.\1.conv.\2'),
    (rf'layers\.([012])\.downsample\.proj\.1\.({_NORM})', r'backbone.downsamples.\1.norm.\2'),
    (rf'{{block}}\.pos_embed\.conv\.({_AFFINE})', r'{ours}.pos_embed.\3'),
    (rf'{{block}}\.norm1\.norm\.({_AFFINE})', r'{ours}.norm1.\3'),
    (rf'{{block}}\.attn\.stoken_refine\.(qkv|proj)\.({_AFFINE})', r'{ours}.attn.\3.\4'),
    (rf'{{block}}\.norm2\.({_NORM})', r'{ours}.norm2.\3'),
    (rf'{{block}}\.mlp2\.(fc1|fc2)\.({_AFFINE})', r'{ours}.ffn.\3.\4'),
    (rf'{{block}}\.mlp2\.conv\.conv\.({_AFFINE})', r'{ours}.ffn.dwconv.\3'),
    (r'{block}\.gamma_([12])', r'{ours}.gamma\3'),
    (rf'proj\.({_AFFINE})', r'neck.conv.\1'),
    (rf'norm\.({_NORM})', r'neck.norm.\1'),
    (rf'head\.({_AFFINE})', r'head.fc.\1'),
]
_BLOCK = {'{block}': r'layers\.([0-3])\.blocks\.(\d+)', '{ours}': r'backbone.stages.\1.\2'}
# Published 1×1 convolutions that are linear layers here, and layer scales stored as (C, 1, 1) maps.
_LINEAR = re.compile(r'backbone\.stages\.\d+\.\d+\.(attn\.(qkv|proj)|ffn\.(fc1|fc2))\.weight')
_GAMMA = re.compile(r'backbone\.stages\.\d+\.\d+\.gamma[12]')


def _expand(text: str) -> str:
    for name, value in _BLOCK.items():
        text = text.replace(name, value)
    return text


_RULES = [(re.compile(_expand(p)), r if callable(r) else _expand(r)) for p, r in _RULES]


def _rename(key: str) -> str | None:
    """Our key for a published one; None if no rule knows it."""
    for pattern, replacement in _RULES:
        match = pattern.fullmatch(str(key))
        if match:
            return replacement(match) if callable(replacement) else match.expand(replacement)
    return None


def convert_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a published state dict to the keys of an mmpretrain ``ImageClassifier``.

    The backbone's keys start with ``backbone.``, the tail's with ``neck.`` (:class:`mmstvit.STViTNeck`) and the
    classifier's with ``head.fc.``. Every key is accounted for: mapped, or dropped by name (``attn.unfold.weights`` and
    ``attn.fold.weights``, constant identity kernels).

    Args:
        state_dict: Weights of a published file, which holds them under ``'model'``.

    Returns:
        A new dict; the tensors share memory with the input.

    Raises:
        ValueError: A key is not one of the release's, or its value is not a tensor; the message names it.
    """
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise ValueError(
            f'a state dict with at least one key is needed, but got {type(state_dict).__name__} without any.'
        )
    converted, unknown = {}, []
    for key, value in state_dict.items():
        if _DROPPED.fullmatch(str(key)):
            continue
        name = _rename(key)
        if name is None or not isinstance(value, Tensor):
            unknown.append(key)
        elif _LINEAR.fullmatch(name):
            converted[name] = value.flatten(1)
        elif _GAMMA.fullmatch(name):
            converted[name] = value.flatten()
        else:
            converted[name] = value
    if unknown:
        shown = ', '.join(map(repr, unknown[:5])) + (', …' if len(unknown) > 5 else '')
        raise ValueError(
            f'{len(unknown)} of {len(state_dict)} entries are not of a published STViT checkpoint: {shown}. Pass the '
            f"weights themselves (a published file holds them under 'model'), without prefixes such as 'module.'."
        )
    return converted
