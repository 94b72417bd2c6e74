"""Triton kernels of super token attention for CUDA GPUs, behind the signatures of :mod:`mmstvit.ops.super_token`.

Importing this package does not import Triton; :mod:`.operators` does.
"""

import torch

TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
