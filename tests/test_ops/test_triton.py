"""The Triton operators without a GPU: under Triton's interpreter, and refused."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmstvit.ops import super_token

from ..helpers import ROOT

pytest.importorskip('triton', reason='needs Triton')

from mmstvit.ops.triton import operators as ops

pytestmark = pytest.mark.skipif(ops.INTERPRETED, reason='Triton is interpreted in this process')


@pytest.mark.parametrize(
    'name',
    [
        pytest.param('test_triton_device.py', marks=pytest.mark.long),
        pytest.param('test_fused_device.py', marks=pytest.mark.slow),  # minutes, for kernels that are off by default
    ],
)
def test_interpreted(name):
    """Run a file with the kernels in Python.

    The interpreter must be on before Triton is imported, and stays on, so it has a process of its own.
    """
    env = {**os.environ, 'TRITON_INTERPRET': '1', 'GOMP_SPINCOUNT': '1000', 'PYTHONWARNINGS': 'ignore'}
    env.pop('PYTEST_ADDOPTS', None)
    file = Path(__file__).with_name(name)
    command = [sys.executable, '-m', 'pytest', file, '-m', 'gpu and not long', '-q', '-p', 'no:cacheprovider']
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
    passed = re.search(r'^(\d+) passed', done.stdout, re.MULTILINE)
    assert done.returncode == 0 and passed, f'{done.stdout[-5000:]}\n{done.stderr[-1000:]}'
    assert int(passed[1]) > 10


def test_data_on_the_cpu_are_refused():
    x = torch.zeros(1, 4, 4, 2)
    with pytest.raises(ValueError, match=r"run on CUDA, but x is on cpu: move it, or use the backend 'torch'"):
        ops.sample_super_tokens(x, 2)
    with pytest.raises(ValueError, match=r'run on CUDA, but tokens is on cpu'):
        ops.upsample_super_tokens(x, torch.zeros(1, 4, 4, 4, 9), (8, 8))


def test_self_attention_is_that_of_torch():
    assert ops.self_attention is super_token.self_attention
