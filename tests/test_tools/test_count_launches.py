"""tools/analysis_tools/count_launches.py, and the counts of a training step: nobody adds a launch unnoticed."""

import json

import pytest

TRAINING = ['--mode', 'train', '--dtype', 'bf16', '--batch-size', '64', '--shape', '224', '224', '--json']
COUNTS = {
    'stvit-small': {'operators': 855, 'launches': 1338, 'bytes': 37290756144},
    'stvit-small+MMSTVIT_BACKEND=fused': {'operators': 691, 'launches': 1034, 'bytes': 26336908848},
    'naive-small': {'operators': 1723, 'launches': 2398, 'bytes': 47322484688},
    'swin-tiny': {'operators': 1230, 'launches': 1349, 'bytes': 54898860744},
}


@pytest.mark.parametrize(
    'entry', [pytest.param(name, marks=() if name == 'stvit-small' else pytest.mark.long) for name in COUNTS]
)
def test_training_step(tool, entry):
    done = tool('analysis_tools/count_launches.py', entry, *TRAINING)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {entry: COUNTS[entry]}


@pytest.mark.parametrize(
    ('entry', 'message'),
    [('stvit-nano+whole', 'only backbones are counted'), ('stvit-nano+CUDA=1', 'only MMSTVIT_BACKEND has an effect')],
)
def test_refusals(tool, entry, message):
    done = tool('analysis_tools/count_launches.py', entry)
    assert done.returncode == 1
    assert message in done.stderr


def test_table(tool):
    done = tool('analysis_tools/count_launches.py', 'stvit-nano', 'stvit-nano+MMSTVIT_BACKEND=torch+fp16')
    assert done.returncode == 0, done.stderr
    header, first, second = (line.split() for line in done.stdout.splitlines())
    assert header == ['entry', 'operators', 'launches', 'GB']
    assert int(first[1].replace(',', '')) < int(second[1].replace(',', ''))
