"""Both processes stop at the same step when one of them diverges, and the checkpoints are good."""

import copy
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from ..fork_server import fork
from ..helpers import ROOT, link_scenes

HERE = Path(__file__).parent
FSDP = Config.fromfile(ROOT / 'configs' / 'imagenet' / 'stvit-large_fsdp_8xb128_in1k.py')
CONFIG = f"""
_base_ = '{HERE / 'tiny_classifier.py'}'
custom_imports = dict(imports=['poison'])
custom_hooks = [dict(type='Poison', rank=1)]
train_dataloader = dict(batch_size=4, dataset=dict(indices=16))
"""


def config(folder: Path, sharded: bool) -> str:
    text = CONFIG
    if sharded:
        strategy = copy.deepcopy(FSDP.strategy)
        strategy.model_wrapper.auto_wrap_policy.min_num_params = 1000  # the model is small
        text += f"optim_wrapper = dict(clip_grad=None)\nrunner_type = '{FSDP.runner_type}'\n"
        text += f'strategy = {strategy.to_dict()}\n'
    (folder / 'config.py').write_text(text)
    return 'config.py'


@pytest.mark.long
@pytest.mark.parametrize('sharded', [False, True], ids=['replicated', 'sharded'])
def test_both_processes_stop(scenes, tmp_path, sharded):
    folder = link_scenes(tmp_path, scenes)
    command = [config(folder, sharded), '--work-dir', 'run']
    done = fork('train.py', *command, cwd=folder, env={'PYTHONPATH': str(HERE)}, processes=2, timeout=200)
    assert done.returncode == 1
    output = done.stdout + done.stderr
    # Two iterations per epoch.
    assert len(re.findall(r'^error: Training diverged in iteration 3 \(epoch 2\)', output, re.MULTILINE)) == 2, output
    if sharded:
        assert 'the model is sharded' in output
    else:
        assert 'First bad tensor: input of the model (ImageClassifier): 12288 NaN in' in output
        assert 'the fault came from another process' in output
    assert 'Last good checkpoint (all weights finite): ' in output
    (checkpoint,) = (folder / 'run').glob('*.pth')
    assert checkpoint.name == 'epoch_1.pth'
    weights = torch.load(checkpoint, weights_only=False)['state_dict']
    assert all(tensor.isfinite().all() for tensor in weights.values())
