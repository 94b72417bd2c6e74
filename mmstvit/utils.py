"""The function that OpenMMLab looks for in ``<package>.utils``."""

from .registry import REGISTRIES


def register_all_modules(init_default_scope: bool = False) -> None:
    """Register all classes of mmstvit now instead of at the first lookup; ``mmengine.hub`` calls it.

    Args:
        init_default_scope: Must be False: the default scope of a config is that of mmdet, mmseg or mmpretrain.
    """
    if init_default_scope:
        raise ValueError("mmstvit has no default scope of its own: set it to 'mmdet', 'mmseg' or 'mmpretrain'.")
    for registry in REGISTRIES.values():
        registry.import_from_location()
