"""What models with an inference form have in common."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from mmengine.model import BaseModule
from torch import Tensor

from mmstvit.errors import CheckpointError, FormError
from mmstvit.fileio import LoadReport

_CONVERTER = 'tools/model_converters/reparameterize_model.py'


class Deployable(BaseModule):
    """A module that can change from the form that learns into one for inference, with fewer layers and other keys.

    A subclass folds its layers in :meth:`_fold`, calls :meth:`switch_to_deploy` at the end of its ``__init__`` if it is
    to be in the inference form from the start, and names keys of its state dict by which the two forms are told apart.

    Args:
        init_cfg: Initialisation config of MMEngine.
    """

    # Regular expressions for keys without the module's prefix: such as the training form alone has, and both forms.
    training_keys: ClassVar[str]
    common_keys: ClassVar[str]

    def __init__(self, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.deploy = False

    def _fold(self) -> None:
        """Fold norms and the like into the weights beside them."""
        raise NotImplementedError

    def switch_to_deploy(self) -> None:
        """Change into the inference form, for good: evaluation mode, and no parameter learns.

        Outputs stay those of evaluation mode, up to rounding. The state dict has other keys; it loads into a module
        that was built with ``deploy=True``. A second call does nothing.
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
            FormError: Training is asked of the inference form.
        """
        if mode and self.deploy:
            raise FormError(
                f'{type(self).__name__} is in its inference form (deploy=True, or after switch_to_deploy()), in which '
                f'norms and layer scales are folded into the weights: it cannot be trained. Build the model anew '
                f'without deploy=True and load the checkpoint of the training. For inference call eval().'
            )
        return super().train(mode)

    def check_form(self, keys: Iterable[str], prefix: str = '') -> None:
        """Refuse weights of the other form: MMEngine logs keys that do not match and goes on, which is never meant.

        Args:
            keys: Names of weights.
            prefix: What stands before those of this module.

        Raises:
            FormError: They are of the other form.
        """
        names = [key[len(prefix) :] for key in keys if key.startswith(prefix)]
        trained = next((name for name in names if re.match(self.training_keys, name)), None)
        common = next((name for name in names if re.match(self.common_keys, name)), None)
        kind = type(self).__name__
        if self.deploy and trained is not None:
            raise FormError(
                f'{kind} is in its inference form (deploy=True), but the weights are those of the training form: they '
                f'have {prefix}{trained}. Convert the checkpoint with {_CONVERTER}, or build the model without '
                f'deploy=True.'
            )
        if not self.deploy and common is not None and trained is None:
            raise FormError(
                f'{kind} is in its training form, but the weights are those of the inference form: they have '
                f'{prefix}{common}, but no norms. Build it with deploy=True (in a config model.backbone.deploy=True, '
                f'and model.neck.deploy=True for STViTNeck), or load the checkpoint that was converted.'
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
