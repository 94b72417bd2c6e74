"""``init_cfg`` of STViT, and ``safe_loading`` of our tools, load published and converted files; others are refused."""

import os

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.runner import load_checkpoint
from torch import nn

from mmstvit import STViT
from mmstvit.checkpoint import convert_to_official, to_mmstvit
from mmstvit.errors import CheckpointError, UserError
from mmstvit.fileio import Checkpoint, load_weights, open_checkpoint, safe_loading

from ..helpers import TINY, Harm, assert_equal, tiny

TAIL = {'neck.conv.weight': torch.ones(2, 24, 1, 1), 'head.fc.weight': torch.ones(3, 2), 'head.fc.bias': torch.ones(3)}


class Model(BaseModule):
    """A classifier with the names of MMPreTrain's."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.backbone = tiny(0, **options)
        self.neck = nn.ModuleDict({'conv': nn.Conv2d(24, 2, 1, bias=False)})
        self.head = nn.ModuleDict({'fc': nn.Linear(2, 3)})


def ours(seed: int = 1) -> dict[str, torch.Tensor]:
    return {**{f'backbone.{name}': tensor for name, tensor in tiny(seed).state_dict().items()}, **TAIL}


def official() -> dict[str, torch.Tensor]:
    return convert_to_official(ours())


def averaged() -> dict:
    """Return the content of a checkpoint of a run with EMAHook."""
    last = {f'module.{name}': tensor for name, tensor in ours(2).items()}
    return {'state_dict': ours(), 'ema_state_dict': {'steps': torch.tensor(3), **last}, 'meta': {}}


LAYOUTS = {
    'published': lambda: {'model': official(), 'model_ema': ours(2), 'args': None},
    'published, parallel, by timm': lambda: {'state_dict': {f'module.{k}': v for k, v in official().items()}},
    'converted': lambda: {'state_dict': ours()},
    'a backbone alone': lambda: {'state_dict': tiny(1).state_dict()},
    'EMA': averaged,
}


def init_cfg(path: object, **options: object) -> dict:
    return dict(type='Pretrained', checkpoint=str(path), **options)


class TestInitCfg:
    @pytest.mark.parametrize(
        ('layout', 'prefix'),
        [*((layout, None) for layout in LAYOUTS), ('published', 'backbone.'), ('converted', 'backbone')],
    )
    def test_every_layout(self, tmp_path, layout, prefix):
        torch.save(LAYOUTS[layout](), tmp_path / 'file.pth')
        model = STViT(TINY, init_cfg=init_cfg(tmp_path / 'file.pth', **({} if prefix is None else {'prefix': prefix})))
        model.init_weights()
        assert_equal(model.state_dict(), tiny(1).state_dict())

    def test_pretrained_weights_are_loaded_after_other_initializers(self, tmp_path):
        torch.save(official(), tmp_path / 'file.pth')
        configs = [init_cfg(tmp_path / 'file.pth'), dict(type='Constant', layer='Conv2d', val=7.0)]
        model = STViT(TINY, init_cfg=configs)
        model.init_weights()
        assert_equal(model.state_dict(), tiny(1).state_dict())
        assert model.init_cfg == configs

    def test_the_log_has_the_table(self, tmp_path, log):
        torch.save({'model': official()}, tmp_path / 'file.pth')
        STViT(TINY, init_cfg=init_cfg(tmp_path / 'file.pth')).init_weights()
        printed = next(message for message in log if message.startswith('weights of'))
        assert f"{tmp_path / 'file.pth'}, under 'model'" in printed
        assert 'proj.weight' in printed and 'head.weight' in printed
        assert f'loaded           {len(tiny().state_dict())}\n' in printed

    @pytest.mark.parametrize(
        ('content', 'words'),
        [
            ({'model': {'layer1.weight': torch.ones(1)}}, 'no STViT'),
            ({'epoch': 3}, 'a dict with weights is needed'),
            ({'state_dict': STViT({**TINY, 'channels': (8, 12, 16, 48)}).state_dict()}, 'holds an STViT with channels'),
        ],
    )
    def test_other_content_is_refused_with_its_path(self, tmp_path, content, words):
        path = tmp_path / 'file.pth'
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=words) as caught:
            STViT(TINY, init_cfg=init_cfg(path)).init_weights()
        assert str(caught.value).startswith(str(path))

    def test_a_check_before_the_run_and_the_run_read_the_file_once(self, tmp_path, reads):
        torch.save({'model': official()}, tmp_path / 'file.pth')
        model = STViT(TINY, init_cfg=init_cfg(tmp_path / 'file.pth'))
        with safe_loading(convert=to_mmstvit):
            model.select_pretrained(open_checkpoint(tmp_path / 'file.pth', keep=True))
            model.init_weights()
        assert len(reads) == 1
        assert_equal(model.state_dict(), tiny(1).state_dict())

    def test_code_is_not_executed_outside_of_our_tools(self, tmp_path):
        harm = Harm(os.mkdir, str(tmp_path / 'made'))
        torch.save({'model': {**official(), 'head.weight': harm}}, tmp_path / 'file.pth')
        with pytest.raises(CheckpointError, match='Nothing was executed'):
            STViT(TINY, init_cfg=init_cfg(tmp_path / 'file.pth')).init_weights()
        assert not (tmp_path / 'made').exists()


@pytest.mark.parametrize('layout', [name for name in LAYOUTS if name != 'a backbone alone'])
def test_in_our_tools_mmengine_loads_every_layout_into_a_classifier(tmp_path, layout):
    torch.save(LAYOUTS[layout](), tmp_path / 'file.pth')
    model = Model()
    with safe_loading(convert=to_mmstvit):
        load_checkpoint(model, str(tmp_path / 'file.pth'))
    assert_equal(model.state_dict(), ours())


def lacking(name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in tiny().state_dict().items() if key != name}


@pytest.mark.parametrize(
    ('module', 'weights', 'words'),
    [
        *(
            (tiny(), lacking(name), rf'is missing 1 of \d+ backbone weights \(first: {name}\)')
            for name in ('stages.2.1.gamma1', 'patch_embed.norms.0.running_var')
        ),
        (
            STViT({**TINY, 'layer_scale_init_value': (0.0,) * 4}),
            tiny().state_dict(),
            '6 weights that the backbone has no layers for',
        ),
        (Model(), TAIL, r'backbone weights \(backbone\) \(first: backbone\.'),
        (Model(), tiny().state_dict(), r"init_cfg=dict\(type='Pretrained', checkpoint='file.pth'\)"),
        (tiny(), tiny(out_indices=(0, 1)).state_dict(), 'but the model is an STViT with channels 8, 12, 16, 24'),
    ],
    ids=['a block', 'a norm', 'layer scales', 'heads alone', 'a backbone alone', 'fewer stages'],
)
def test_weights_that_leave_a_part_uninitialized_or_are_left_out_are_refused(module, weights, words):
    with pytest.raises(UserError, match=rf'^file\.pth.*{words}'):
        load_weights(module, Checkpoint('file.pth', dict(weights)))


def test_fewer_stages_than_the_file():
    model, other = tiny(0, out_indices=(0, 1)), tiny(1)
    report = load_weights(model, Checkpoint('file.pth', other.state_dict()))
    assert report.unexpected and not report.missing
    assert torch.equal(model.stages[1][0].gamma1, other.stages[1][0].gamma1)
