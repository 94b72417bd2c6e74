"""The device and tolerances of tests of Triton kernels: a GPU, or a CPU under Triton's interpreter.

Importing this module skips the file that imports it where there is neither.
"""

import pytest
import torch

pytest.importorskip('triton', reason='needs Triton')

from mmstvit.ops.triton.operators import INTERPRETED

if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip('needs a CUDA GPU; test_triton.py runs it under the interpreter', allow_module_level=True)

DEVICE = 'cpu' if INTERPRETED else 'cuda'
on_gpu = pytest.mark.skipif(INTERPRETED, reason='tests what only a GPU does')
# Relative to the largest entry. fp32: sums in another order, and a GPU's fast exponential. Half precision: some units
# in the last place, from rounding weights, sums and results; the interpreter cuts bf16 off instead of rounding.
TOLERANCE = {torch.float32: 5e-6, torch.float16: 3e-3, torch.bfloat16: 4e-2 if INTERPRETED else 2e-2}
