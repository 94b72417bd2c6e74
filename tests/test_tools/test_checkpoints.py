"""Training and test runs from published, averaged and trusted checkpoints."""

import os

import pytest
import torch

from mmstvit.checkpoint import convert_to_official

from ..fork_server import fork
from ..helpers import NANO, Harm, config_path, metrics, save_untrained

CONFIG = config_path(NANO['mmpretrain'])


@pytest.mark.long
def test_test_py_loads_a_published_file_and_executes_a_trusted_one(workspace):
    model = save_untrained(NANO['mmpretrain'], workspace / 'ours.pth')
    published = convert_to_official(model.state_dict())
    torch.save(dict(model=published, args=Harm(os.mkdir, 'executed')), workspace / 'published.pth')
    done = fork('test.py', CONFIG, 'published.pth', '--trust-checkpoint', cwd=workspace)
    assert (workspace / 'executed').exists()
    assert 'accuracy/top1' in metrics(done.stdout)
    table = done.stdout[done.stdout.index('weights of') :].splitlines()
    assert table[1].split() == ['loaded', str(len(model.state_dict()))]
    assert [line.split()[-1] for line in table[2:6]] == ['0'] * 4
