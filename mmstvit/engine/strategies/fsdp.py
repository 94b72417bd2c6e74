"""MMEngine's FSDP strategy with repairs for current PyTorch."""

import torch
from mmengine._strategy import FSDPStrategy as MMEngineFSDPStrategy
from mmengine.optim import BaseOptimWrapper, OptimWrapper
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from mmstvit.errors import UserError
from mmstvit.registry import STRATEGIES


@STRATEGIES.register_module()
class FSDPStrategy(MMEngineFSDPStrategy):
    """MMEngine's ``FSDPStrategy`` with repairs; the arguments are the same.

    - The optimizer of a checkpoint can be loaded: since PyTorch 2.1 the order of the arguments is not that of MMEngine
      (0.10.12). The state of the optimizer wrapper (loss scale, base settings) is saved and loaded too.
    - It runs on CPU. MMEngine asks for the GPU of the process, and PyTorch crashes when it offloads a whole state dict
      from CPU to CPU.
    - Gradient clipping is refused: MMEngine would clip each shard by the norm of that shard.
    """

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        if not torch.cuda.is_available():
            self.model_wrapper = {**(self.model_wrapper or {}), 'device_id': torch.device('cpu')}
            self.state_dict_config.offload_to_cpu = False
            self.optim_state_dict_config.offload_to_cpu = False
        return super()._wrap_model(model)

    def build_optim_wrapper(
        self, optim_wrapper: OptimWrapper | dict, model: nn.Module | None = None
    ) -> BaseOptimWrapper:
        """Build the optimizer wrapper.

        Raises:
            UserError: ``optim_wrapper`` clips gradients.
        """
        if isinstance(optim_wrapper, dict) and optim_wrapper.get('clip_grad'):
            raise UserError(
                f'FSDPStrategy cannot clip gradients, because each process has only the norm of its own shard, but got '
                f'clip_grad={optim_wrapper["clip_grad"]}.',
                'Set optim_wrapper.clip_grad=None.',
            )
        return super().build_optim_wrapper(optim_wrapper, model)

    def optim_state_dict(self) -> dict:
        """Return the state of the optimizer wrapper, with the whole optimizer by parameter name on rank 0."""
        sharded = FullyShardedDataParallel.optim_state_dict(self.model, self.optim_wrapper.optimizer)
        return {**self.optim_wrapper.state_dict(), **sharded}

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load what :meth:`optim_state_dict` returned, and keep this process's shard."""
        whole = {key: state_dict.pop(key) for key in ('state', 'param_groups')}
        sharded = FullyShardedDataParallel.optim_state_dict_to_load(self.model, self.optim_wrapper.optimizer, whole)
        self.optim_wrapper.load_state_dict({**state_dict, **sharded})
