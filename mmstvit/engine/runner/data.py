"""Data that cannot be read, or have nothing in them: what the config says of them."""

from collections.abc import Mapping

from mmengine.config import Config, ConfigDict

from mmstvit.errors import UserError

_GUARD = 'mmstvit.GuardedDataset'
_HOOK = 'mmstvit.DataFaultHook'


def guard_data(cfg: Config, *splits: str) -> None:
    """Let the datasets of a config name what they cannot read, and refuse those without annotations.

    ``data_faults = dict(unreadable='skip')`` in the config lets a training go on with other samples.

    Args:
        cfg: The config.
        splits: ``'train'``, ``'val'``, ``'test'``: whose datasets.

    Raises:
        UserError: ``data_faults`` is not what it can be.
    """
    faults = cfg.get('data_faults') or {}
    unknown = sorted(set(faults) - {'unreadable'})
    if unknown:
        raise UserError(f'data_faults has the option unreadable alone, but got {", ".join(unknown)}.')
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
    hooks = cfg.get('custom_hooks') or []
    if 'train' in splits and not any(hook.get('type') == _HOOK for hook in hooks):
        cfg.custom_hooks = [*hooks, ConfigDict(type=_HOOK)]


def _find_guard(dataset: ConfigDict) -> ConfigDict | None:
    """The guard that is there: of an earlier run, whose config was saved in its work dir, or of the user's."""
    while isinstance(dataset, Mapping):
        if dataset.get('type') == _GUARD:
            return dataset
        dataset = dataset.get('dataset')
    return None
