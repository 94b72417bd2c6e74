"""Triton kernels of super token attention for CUDA GPUs, behind the signatures of :mod:`mmstvit.ops.super_token`.

Importing this package does not import Triton; :mod:`.operators` does.
"""

import torch

TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Kernels that an operator starts, for mmstvit.analysis.count_launches; n_iter 1.
LAUNCHES = {'mmstvit::sample_super_tokens': 3, 'mmstvit::upsample_super_tokens': 1, 'mmstvit::aggregate': 2}
