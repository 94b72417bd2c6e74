"""Base class of modules that have a training form and a deploy form."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from mmengine.model import BaseModule
from torch import Tensor

from mmstvit.errors import CheckpointError, FormError
from mmstvit.fileio import LoadReport

_CONVERTER = 'tools/model_converters/reparameterize_model.py'


class Deployable(BaseModule):
    """Module that can be reparameterized from its training form into a deploy form with fewer layers and other keys.

    A subclass folds its layers in :meth:`_fold` and names the keys of its state dict by which the two forms differ. To
    start in deploy form it calls :meth:`switch_to_deploy` at the end of its ``__init__``.

    Args:
        init_cfg: Initialization config of MMEngine.
    """

    # Regular expressions for keys, without the module's prefix: of the training form alone, and of both forms.
    training_keys: ClassVar[str]
    common_keys: ClassVar[str]

    def __init__(self, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.deploy = False

    def _fold(self) -> None:
        """Fold norms and the like into the weights beside them."""
        raise NotImplementedError

    def switch_to_deploy(self) -> None:
        """Reparameterize the module into its deploy form: evaluation mode, no parameter learns, no way back.

        Outputs stay those of evaluation mode, up to rounding. The state dict has other keys; it loads into a module
        built with ``deploy=True``. A second call does nothing.
        """
        if self.deploy:
            return
        self._fold()
        self.eval()
        self.requires_grad_(False)
        self.deploy = True

    def train(self, mode: bool = True) -> 'Deployable':
        """Set the training mode.

        Raises:
            FormError: ``mode`` is True and the module is in deploy form.
        """
        if mode and self.deploy:
            raise FormError(
                f'{type(self).__name__} is in deploy form (deploy=True, or after switch_to_deploy()) and cannot be '
                f'trained: norms and layer scales are folded into the weights.',
                'Build the model without deploy=True and load the checkpoint of the training run. For inference call '
                'eval().',
            )
        return super().train(mode)

    def check_form(self, keys: Iterable[str], prefix: str = '') -> None:
        """Refuse weights of the other form; MMEngine would only log the keys that do not match.

        Args:
            keys: Names of weights.
            prefix: Prefix of this module's weights.

        Raises:
            FormError: They are of the other form.
        """
        names = [key[len(prefix) :] for key in keys if key.startswith(prefix)]
        trained = next((name for name in names if re.match(self.training_keys, name)), None)
        common = next((name for name in names if re.match(self.common_keys, name)), None)
        kind = type(self).__name__
        if self.deploy and trained is not None:
            raise FormError(
                f'{kind} is in deploy form (deploy=True), but the weights are of the training form: they have '
                f'{prefix}{trained}.',
                f'Convert the checkpoint with {_CONVERTER}, or build the model without deploy=True.',
            )
        if not self.deploy and common is not None and trained is None:
            raise FormError(
                f'{kind} is in training form, but the weights are of the deploy form: they have {prefix}{common}, but '
                f'no norms.',
                'Build it with deploy=True (in a config model.backbone.deploy=True, and model.neck.deploy=True for '
                'STViTNeck), or load the checkpoint from before the conversion.',
            )

    def check_weights(self, report: LoadReport, prefix: str) -> None:
        """Refuse weights of the other form before they are loaded.

        Args:
            report: What would be loaded.
            prefix: Prefix of this module in the model.

        Raises:
            CheckpointError: The weights are of the other form.
        """
        try:
            self.check_form(report.source.weights, prefix)
        except FormError as error:
            raise CheckpointError(f'{report.source.path}: {error.problem}', error.remedy) from error

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        self.check_form(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
