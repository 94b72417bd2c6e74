"""``publish_model.py`` keeps weights and metadata of a checkpoint, and adds a hash to the name."""

import hashlib
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from torch import nn

from ..helpers import assert_equal, load_tool, tiny

publish_model = load_tool('model_converters/publish_model.py')
META = dict(epoch=3, iter=12, dataset_meta=dict(classes=('a', 'b'), palette=[(0, 0, 0)]), cfg='model = dict()')


@pytest.fixture
def trained() -> dict:
    """The content of a checkpoint of MMEngine."""
    model = tiny()
    hub = MessageHub('test_publish_model')
    hub.update_scalar('train/loss', torch.tensor(2.0))
    hub.update_info('best_score', np.float64(0.5))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(2, 3, 32, 32))[-1].sum().backward()
    optimizer.step()
    return dict(
        meta=dict(META),
        state_dict=OrderedDict(model.state_dict()),
        message_hub=hub.state_dict(),
        optimizer=optimizer.state_dict(),
        param_schedulers=[dict(last_step=3)],
    )


def published(output: str) -> Path:
    """Return the file that the summary names."""
    (name,) = re.findall(r'^ +written +(\S+)', output, re.MULTILINE)
    return Path(name)


def test_weights_and_metadata_are_kept_and_the_name_has_the_hash(trained, convert, refused):
    torch.save(trained, 'epoch_3.pth')
    output = convert(publish_model, 'epoch_3.pth', 'new/stvit.pth')
    path = published(output)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(path) == f'new/stvit-{digest[:8]}.pth' and list(Path('new').iterdir()) == [path]
    assert digest in output
    content = torch.load(path, weights_only=True)
    assert set(content) == {'meta', 'state_dict'} and content['meta'] == META
    assert_equal(content['state_dict'], trained['state_dict'])
    assert path.stat().st_size < Path('epoch_3.pth').stat().st_size / 2
    assert re.search(r'left out +message_hub, optimizer, param_schedulers$', output, re.MULTILINE)
    refused(rf'{path} exists.*--force', publish_model, 'epoch_3.pth', 'new/stvit.pth')


def test_names_in_the_file_do_not_control_the_terminal(trained, convert):
    trained['meta']['\x1b[31m\nerror: no'] = 1
    torch.save(trained, 'epoch_3.pth')
    output = convert(publish_model, 'epoch_3.pth', 'stvit.pth')
    assert r'\x1b[31m\nerror: no' in output and '\x1b' not in output


def test_torch_hub_accepts_name_and_content(trained, convert):
    torch.save(trained, 'epoch_3.pth')
    path = published(convert(publish_model, 'epoch_3.pth', 'stvit.pth'))
    url = path.resolve().as_uri()
    loaded = torch.hub.load_state_dict_from_url(url, model_dir='hub', check_hash=True, weights_only=True)
    assert_equal(loaded['state_dict'], trained['state_dict'])


def test_weights_alone_and_parameters(convert):
    model = nn.Linear(2, 3)
    torch.save(dict(model.named_parameters()), 'alone.pth')
    output = convert(publish_model, 'alone.pth', 'linear')
    path = published(output)
    assert re.fullmatch(r'linear-[0-9a-f]{8}\.pth', str(path))
    weights = torch.load(path, weights_only=True)['state_dict']
    assert_equal(weights, model.state_dict())
    assert {type(value) for value in weights.values()} == {torch.Tensor}
    assert re.search(r'left out +nothing$', output, re.MULTILINE)
