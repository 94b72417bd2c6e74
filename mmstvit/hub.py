"""Names of our models in MMPreTrain: ``mmpretrain.list_models``, ``get_model`` and the inferencers."""

from pathlib import Path

from .dependencies import require_library
from .errors import UserError

_MIM = Path(__file__).parent / '.mim'


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

    metafile = _MIM / 'configs' / 'imagenet' / 'metafile.yml'
    if not metafile.exists():
        raise UserError(
            f'{metafile} does not exist: mmstvit is imported from sources that are not installed.',
            'Install it: pip install -e . in the checkout, or its wheel.',
        )
    if not ModelHub.has('stvit-small_8xb128_in1k'):
        ModelHub.register_model_index(metafile, config_prefix=_MIM)
