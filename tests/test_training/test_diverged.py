"""Both processes stop at the same step when one of them diverges, and the checkpoints are good."""

import re
from pathlib import Path

import pytest
import torch

from ..fork_server import fork

HERE = Path(__file__).parent
CONFIG = f"""
_base_ = '{HERE / 'tiny_classifier.py'}'
custom_imports = dict(imports=['poison'])
custom_hooks = [dict(type='Poison', rank=1)]
train_dataloader = dict(batch_size=4, dataset=dict(indices=16))
"""


@pytest.mark.long
def test_both_processes_stop(workspace):
    (workspace / 'config.py').write_text(CONFIG)
    env = {'PYTHONPATH': str(HERE)}
    done = fork('train.py', 'config.py', '--work-dir', 'run', cwd=workspace, env=env, processes=2, timeout=200, code=1)
    output = done.stdout + done.stderr
    # Two iterations per epoch.
    assert len(re.findall(r'^error: Training diverged in iteration 3 \(epoch 2\)', output, re.MULTILINE)) == 2, output
    assert 'First bad tensor: input of the model (ImageClassifier): 12288 NaN and 0 Inf in' in output
    assert 'the fault is in another process or iteration' in output
    assert 'Last good checkpoint (all weights finite): ' in output
    (checkpoint,) = (workspace / 'run').glob('*.pth')
    assert checkpoint.name == 'epoch_1.pth'
    weights = torch.load(checkpoint, weights_only=False)['state_dict']
    assert all(tensor.isfinite().all() for tensor in weights.values())
