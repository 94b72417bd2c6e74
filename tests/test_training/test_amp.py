"""Mixed precision without a GPU: the backbone in float16 or bfloat16, the weights in float32."""

import math

import pytest
import torch
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from ..fork_server import fork
from ..helpers import NANO, TINY_CLASSIFIER, batch_norms, config_path, image, scalars, tiny

DTYPES = {'bfloat16': torch.bfloat16, 'float16': torch.float16}


class Model(nn.Module):
    """A backbone and a head that records the precision of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = tiny()
        self.head = nn.Linear(24, 2)
        self.seen = {}
        next(m for m in self.modules() if isinstance(m, nn.Conv2d)).register_forward_hook(self.see)

    def see(self, conv: nn.Conv2d, args: tuple, output: torch.Tensor) -> None:
        self.seen |= {'weight': conv.weight.dtype, 'computed': output.dtype}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.backbone(x)
        self.seen['features'] = {f.dtype for f in features}
        self.seen['head'] = torch.is_autocast_enabled('cpu')
        return self.head(features[-1].mean(dim=(2, 3)))


def wrapper(model: nn.Module, **options: object):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return OPTIM_WRAPPERS.build(dict(type='mmstvit.CPUAmpOptimWrapper', optimizer=optimizer, **options))


@pytest.mark.parametrize('dtype', DTYPES)
def test_only_the_backbone_computes_in_lower_precision(dtype):
    model = Model()
    amp = wrapper(model, dtype=dtype)
    x, losses = image(2, 3, 32, 32), []
    for _ in range(4):
        with amp.optim_context(model):
            loss = model(x).square().mean()
        amp.update_params(loss)
        losses.append(loss.item())
    assert model.seen == {
        'weight': torch.float32, 'computed': DTYPES[dtype], 'features': {torch.float32}, 'head': False
    }  # fmt: skip
    assert losses == sorted(losses, reverse=True)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {norm.running_var.dtype for norm in batch_norms(model).values()} == {torch.float32}
    # Outside of the context it computes in float32.
    model(x)
    assert model.seen['computed'] == torch.float32


def test_autocast_ends_after_an_error_in_the_backbone():
    model = Model()
    with pytest.raises(ValueError, match='channels'), wrapper(model).optim_context(model):
        model(image(1, 5, 32, 32))
    assert not torch.is_autocast_enabled('cpu')
    assert len(model.backbone._forward_pre_hooks) == len(model.backbone._forward_hooks) == 0


def test_an_overflow_skips_the_step_and_halves_the_scale():
    model = Model()
    amp = wrapper(model, dtype='float16', loss_scale={'init_scale': 4.0})
    before = model.head.weight.clone()
    with amp.optim_context(model):
        loss = model(image(2, 3, 32, 32)).sum() * float('inf')
    amp.update_params(loss)
    assert torch.equal(model.head.weight, before)
    assert amp.loss_scaler.get_scale() == 2.0


def test_the_scale_is_resumed():
    amp = wrapper(Model(), dtype='float16', loss_scale={'init_scale': 64.0})
    other = wrapper(Model(), dtype='float16')
    other.load_state_dict(amp.state_dict())
    assert other.loss_scaler.get_scale() == 64.0
    assert wrapper(Model(), dtype='float16', loss_scale=512.0).loss_scaler.get_scale() == 512.0


@pytest.mark.parametrize(('option', 'words'), [
    ({'dtype': 'float64'}, "'float64'"),
    ({'loss_scale': 'static'}, "'static'"),
    ({'loss_scale': -1.0}, '-1.0'),
])  # fmt: skip
def test_bad_option(option, words):
    with pytest.raises(ValueError, match=words):
        wrapper(Model(), **option)


@pytest.mark.long
@pytest.mark.parametrize(('config', 'dtype'), [
    (TINY_CLASSIFIER, 'float16'),
    (config_path(NANO['mmdet']), 'bfloat16'),
    (config_path(NANO['mmseg']), 'bfloat16'),
])  # fmt: skip
def test_every_library_trains(workspace, config, dtype):
    options = ['train_dataloader.batch_size=2', 'default_hooks.logger.interval=1', f'optim_wrapper.dtype={dtype}']
    if 'upernet' in config.name:
        options += ['train_cfg.max_iters=2', 'train_cfg.val_interval=2']
    else:
        options += ['train_dataloader.dataset.indices=4', 'train_cfg.max_epochs=1']
    fork('train.py', config, '--amp', '--work-dir', 'run', '--cfg-options', *options, cwd=workspace)
    losses = [row['loss'] for row in scalars(workspace / 'run') if 'loss' in row]
    assert len(losses) == 2 and all(map(math.isfinite, losses))
    path = workspace / (workspace / 'run' / 'last_checkpoint').read_text()
    checkpoint = torch.load(path, weights_only=False)
    assert {t.dtype for t in checkpoint['state_dict'].values() if t.is_floating_point()} == {torch.float32}
    assert ('scale' in checkpoint['optimizer']['loss_scaler']) == (dtype == 'float16')
