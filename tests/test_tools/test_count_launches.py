"""tools/analysis_tools/count_launches.py, and the counts of a training step: nobody adds a launch unnoticed."""

import json
import sys

import pytest

from ..helpers import ROOT

TOOL = 'analysis_tools/count_launches.py'
TRAINING = ['--mode', 'train', '--dtype', 'bf16', '--batch-size', '64', '--shape', '224', '224', '--json']
COUNTS = {
    'stvit-small': {'operators': 855, 'launches': 1338, 'bytes': 37290756144},
    'stvit-small+MMSTVIT_BACKEND=fused': {'operators': 691, 'launches': 1034, 'bytes': 26336908848},
    'naive-small': {'operators': 1723, 'launches': 2398, 'bytes': 47322484688},
    'swin-tiny': {'operators': 1230, 'launches': 1349, 'bytes': 54898860744},
}


@pytest.mark.long
def test_training_step(tool):
    """In a process of its own, in which Triton is interpreted."""
    assert json.loads(tool(TOOL, *COUNTS, *TRAINING).stdout) == COUNTS


@pytest.mark.parametrize(
    ('entry', 'message'),
    [('stvit-nano+whole', 'only backbones are counted'), ('stvit-nano+CUDA=1', 'only MMSTVIT_BACKEND has an effect')],
)
def test_refusals(call, monkeypatch, entry, message):
    monkeypatch.setattr(sys, 'path', [str(ROOT / 'tools/analysis_tools'), *sys.path])  # as for a script
    code, _, error = call(TOOL, entry)
    assert code == 1 and message in error
