"""``tools/model_converters/stvit_to_mm.py`` on files as the authors publish them, and on others."""

import argparse
import os

import pytest
import torch

from mmstvit.checkpoint import convert_official

from ..helpers import DATA, assert_equal

TOOL = 'model_converters/stvit_to_mm.py'


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return torch.load(DATA / 'padded_layerscale.pt', weights_only=True)['state_dict']


@pytest.mark.parametrize('training', [False, True])
def test_converts_a_published_file(weights, tool, tmp_path, training):
    content = {'model': weights}
    if training:
        content |= {'optimizer': {'state': {}}, 'epoch': 300, 'args': argparse.Namespace(lr=1e-3)}
    torch.save(content, tmp_path / 'published.pth')
    done = tool(TOOL, tmp_path / 'published.pth', tmp_path / 'new' / 'mm.pth')
    assert done.returncode == 0, done.stderr
    converted = torch.load(tmp_path / 'new' / 'mm.pth', weights_only=True)['state_dict']
    assert_equal(converted, convert_official(weights))
    assert [p.name for p in (tmp_path / 'new').iterdir()] == ['mm.pth']


def test_never_overwrites(weights, tool, tmp_path):
    torch.save({'model': weights}, tmp_path / 'published.pth')
    (tmp_path / 'mm.pth').write_text('precious')
    done = tool(TOOL, tmp_path / 'published.pth', tmp_path / 'mm.pth')
    assert done.returncode == 1 and 'mm.pth exists' in done.stderr
    assert (tmp_path / 'mm.pth').read_text() == 'precious'


class Bomb:
    def __reduce__(self):
        return os.mkdir, ('exploded',)


@pytest.mark.parametrize('content', [{'model': Bomb()}, {'model': {'backbone.fc.weight': torch.ones(1)}}, [1], {}])
def test_a_file_that_is_no_published_checkpoint_is_refused_and_not_executed(tool, tmp_path, content):
    torch.save(content, tmp_path / 'strange.pth')
    done = tool(TOOL, tmp_path / 'strange.pth', tmp_path / 'mm.pth', cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith('error: ') and 'strange.pth' in done.stderr and 'Traceback' not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ['strange.pth']


@pytest.mark.parametrize('content', [b'', b'<html>too many requests</html>'])
def test_what_is_no_file_of_torch_is_refused(tool, tmp_path, content):
    (tmp_path / 'broken.pth').write_bytes(content)
    done = tool(TOOL, tmp_path / 'broken.pth', tmp_path / 'mm.pth')
    assert done.returncode == 1
    assert 'broken.pth is not a checkpoint' in done.stderr and 'Traceback' not in done.stderr
    assert not (tmp_path / 'mm.pth').exists()
