"""Unreadable files: what the config says about them."""

from collections.abc import Mapping

from mmengine.config import Config, ConfigDict

from mmstvit.datasets.segmentation_labels import find_ignore_index
from mmstvit.errors import UserError

_GUARD = 'mmstvit.GuardedDataset'
_HOOK = 'mmstvit.DataFaultHook'


def guard_data(cfg: Config, *splits: str) -> None:
    """Wrap datasets so that they name unreadable files.

    With ``data_faults = dict(unreadable='skip')`` in the config, training continues with other samples.

    Args:
        cfg: The config.
        splits: Of ``'train'``, ``'val'`` and ``'test'``.

    Raises:
        UserError: ``data_faults`` has another option or value.
    """
    faults = cfg.get('data_faults') or {}
    unknown = sorted(set(faults) - {'unreadable'})
    if unknown:
        raise UserError(f'the only option of data_faults is unreadable, but got {", ".join(unknown)}.')
    unreadable = faults.get('unreadable')
    if unreadable not in (None, 'fail', 'skip'):
        raise UserError(f"data_faults.unreadable must be 'fail' or 'skip', but got {unreadable!r}.")
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader is None or not isinstance(loader.get('dataset'), Mapping):
            continue
        guard = _find_guard(loader.dataset)
        if guard is None:
            guard = loader.dataset = ConfigDict(type=_GUARD, split=split, dataset=loader.dataset)
        if split == 'train' and unreadable is not None:
            guard.unreadable = unreadable
        ignore_index = find_ignore_index(cfg.get('model') or {})
        if ignore_index != 255:
            guard.ignore_index = ignore_index
    hooks = cfg.get('custom_hooks') or []
    if 'train' in splits and not any(hook.get('type') == _HOOK for hook in hooks):
        cfg.custom_hooks = [*hooks, ConfigDict(type=_HOOK)]


def _find_guard(dataset: ConfigDict) -> ConfigDict | None:
    """Find the guard that the config already has: the user's, or that of an earlier run whose config was saved."""
    while isinstance(dataset, Mapping):
        if dataset.get('type') == _GUARD:
            return dataset
        dataset = dataset.get('dataset')
    return None
