"""How a training is spread over processes: MMEngine's FSDP strategy, made to work with today's PyTorch."""

import torch
from mmengine._strategy import FSDPStrategy as MMEngineFSDPStrategy
from mmengine.optim import BaseOptimWrapper, OptimWrapper
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from mmstvit.registry import STRATEGIES


@STRATEGIES.register_module()
class FSDPStrategy(MMEngineFSDPStrategy):
    """MMEngine's ``FSDPStrategy`` with what is broken in it put right; the arguments are the same.

    - A checkpoint's optimizer loads again: PyTorch 2.1 changed the order of the arguments that MMEngine passes. What
      the optimizer wrapper keeps beside the optimizer (loss scale, base settings) is saved and loaded too.
    - It runs on CPU, where MMEngine asks for the GPU of the process and where PyTorch crashes when it offloads a whole
      state dict from CPU to CPU.
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
        """As MMEngine's.

        Raises:
            ValueError: ``optim_wrapper`` clips gradients.
        """
        if isinstance(optim_wrapper, dict) and optim_wrapper.get('clip_grad'):
            raise ValueError(
                f'FSDPStrategy cannot clip gradients, but got clip_grad={optim_wrapper["clip_grad"]}: each process '
                f'would take the norm of its own shard. Drop optim_wrapper.clip_grad.'
            )
        return super().build_optim_wrapper(optim_wrapper, model)

    def optim_state_dict(self) -> dict:
        """The state of the whole optimizer by parameter name, on rank 0, and of the wrapper around it."""
        sharded = FullyShardedDataParallel.optim_state_dict(self.model, self.optim_wrapper.optimizer)
        return {**self.optim_wrapper.state_dict(), **sharded}

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load what :meth:`optim_state_dict` returned, keeping this process's shard."""
        whole = {key: state_dict.pop(key) for key in ('state', 'param_groups')}
        sharded = FullyShardedDataParallel.optim_state_dict_to_load(self.model, self.optim_wrapper.optimizer, whole)
        self.optim_wrapper.load_state_dict({**state_dict, **sharded})
