"""tools/analysis_tools/count_launches.py, and the counts of a training step: nobody adds a launch unnoticed."""

import json
from subprocess import CompletedProcess

import pytest

from ..fork_server import fork
from ..helpers import ROOT

TRAINING = ['--mode', 'train', '--dtype', 'bf16', '--batch-size', 64, '--shape', 224, 224, '--json']
OURS = {'stvit-small': {'operators': 855, 'launches': 1338, 'bytes': 37290756144}}
OTHERS = {
    'stvit-small+MMSTVIT_BACKEND=fused': {'operators': 691, 'launches': 1034, 'bytes': 26336908848},
    'naive-small': {'operators': 1723, 'launches': 2398, 'bytes': 47322484688},
    'swin-tiny': {'operators': 1230, 'launches': 1349, 'bytes': 54898860744},
}


@pytest.fixture
def count(tmp_path):
    """Run the tool in a process of its own, in which Triton is interpreted."""

    def count(*args: object, code: int = 0) -> CompletedProcess[str]:
        siblings = {'PYTHONPATH': str(ROOT / 'tools/analysis_tools')}  # as Python does for a script
        return fork('analysis_tools/count_launches.py', *args, cwd=tmp_path, env=siblings, code=code)

    return count


@pytest.mark.parametrize('counts', [OURS, pytest.param(OTHERS, marks=pytest.mark.long)], ids=['ours', 'others'])
def test_training_step(count, counts):
    assert json.loads(count(*counts, *TRAINING).stdout) == counts


@pytest.mark.parametrize(
    ('entry', 'message'),
    [('stvit-nano+whole', 'only backbones are counted'), ('stvit-nano+CUDA=1', 'only MMSTVIT_BACKEND has an effect')],
)
def test_refusals(count, entry, message):
    assert message in count(entry, code=1).stderr


def test_table(count):
    done = count('stvit-nano', 'stvit-nano+MMSTVIT_BACKEND=torch+fp16')
    header, first, second = (line.split() for line in done.stdout.splitlines())
    assert header == ['entry', 'operators', 'launches', 'GB']
    assert int(first[1].replace(',', '')) < int(second[1].replace(',', ''))
