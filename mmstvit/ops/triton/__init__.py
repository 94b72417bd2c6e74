"""Triton kernels of super token attention for CUDA GPUs, behind the signatures of :mod:`mmstvit.ops.super_token`.

Importing this package does not import Triton; :mod:`.operators` does.
"""

import torch

TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Kernels of operators that start more than one, for mmstvit.analysis.count_launches; with n_iter 1.
LAUNCHES = {
    'mmstvit::sample_super_tokens': 3,
    'mmstvit::aggregate': 2,
    'mmstvit::dwconv_backward': 2,
    'mmstvit::norm_backward': 2,
    'mmstvit::add_branch_backward': lambda grad, branch, gamma, factor: 1 if gamma is None else 2,
}
