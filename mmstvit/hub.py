"""Names of our models in MMPreTrain: ``mmpretrain.list_models``, ``get_model`` and the inferencers."""

from .dependencies import find_installed, require_library


def register_models() -> None:
    """Add our ImageNet classifiers to ``mmpretrain.list_models()`` and ``mmpretrain.get_model()``.

    A second call does nothing. ``mmengine.hub`` needs no call. No weights are published under these names: with
    ``pretrained=True`` MMPreTrain warns and gives random weights; name a file instead.

    Raises:
        ImportError: MMPreTrain is missing or too old.
        UserError: The package is imported from sources that are not installed.
    """
    require_library('mmpretrain')
    from mmpretrain.apis import ModelHub

    metafile = find_installed('configs/imagenet/metafile.yml')
    if not ModelHub.has('stvit-small_8xb128_in1k'):
        ModelHub.register_model_index(metafile, config_prefix=metafile.parents[2])
