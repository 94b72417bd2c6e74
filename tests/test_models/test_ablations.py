"""The replaced layers of the ablations against the same layers written plainly."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmstvit import STViT
from mmstvit.errors import CheckpointError, UserError
from mmstvit.models import STViTAblation, STViTAblationNeck
from mmstvit.models.ablations import AblationAttention, PatchStem
from mmstvit.ops import naive, use_backend
from mmstvit.visualization import attention_of, super_tokens

from ..helpers import TINY, assert_equal, assert_near, batch_norms, cotangent_loss, image, not_learning, relative_error

STA = dict(stem='patch', pos_embed=None, ffn='plain')
VARIANTS = {
    'STA-4stage': STA,
    'convolution stem': STA | dict(stem='conv'),
    'CPE': dict(ffn='plain'),
    'APE': dict(pos_embed='ape', ffn='plain', img_size=64),
    'RPE': dict(pos_embed='rpe', ffn='plain', img_size=64),
    'no shortcut': dict(ffn='conv_without_shortcut'),
    'no iteration': STA | dict(n_iter=0),
    'no iteration in the first stage': STA | dict(n_iter=[0, 2, 1, 1]),
}


def build(variant: str, **kwargs: object) -> STViTAblation:
    """Build a TINY ablation with BatchNorm statistics other than 0 and 1."""
    torch.manual_seed(0)
    model = STViTAblation(TINY, **VARIANTS.get(variant, {}), **kwargs)
    for norm in batch_norms(model).values():
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 1.5)
    return model


def test_without_replaced_layers_it_is_stvit():
    torch.manual_seed(0)
    expected = STViT(TINY).eval()
    torch.manual_seed(0)
    actual = STViTAblation(TINY).eval()
    assert_equal(actual.state_dict(), expected.state_dict())
    x = image(1, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(actual(x), expected(x), strict=True))


@pytest.mark.parametrize('variant', VARIANTS)
def test_every_parameter_learns_and_the_deploy_form_is_equal(variant):
    model, x = build(variant).train(), image(2, 3, 64, 64)
    out = model(x)
    assert [tuple(map_.shape) for map_ in out] == [tuple(map_.shape) for map_ in STViT(TINY).eval()(x)]
    cotangent_loss(out).backward()
    assert not_learning(model) == []
    model.eval()
    with torch.no_grad():
        before = model(x)
        model.switch_to_deploy()
        deployed = build(variant, deploy=True)
        deployed.load_state_dict(model.state_dict())
        after = deployed(x)
    assert all(relative_error(a, b) < 1e-5 for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('backend', ['torch', 'naive'])
def test_backends_agree(variant, backend):
    model, x = build(variant).double().eval(), image(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        with use_backend('auto'):
            expected = model(x)
        with use_backend(backend):
            actual = model(x)
    assert all(relative_error(a, b) < 1e-9 for a, b in zip(actual, expected, strict=True))


def gradients_of(function: object, x: Tensor, module: torch.nn.Module) -> dict[str, Tensor]:
    """Return output, gradient of the input and of every parameter."""
    x = x.clone().requires_grad_()
    module.zero_grad()
    out = function(x)
    (out * image(*out.shape, seed=1, dtype=out.dtype)).sum().backward()
    return {'output': out.detach(), 'input': x.grad} | {n: p.grad.clone() for n, p in module.named_parameters()}


@pytest.mark.parametrize('variant', ['no shortcut', 'STA-4stage'])
def test_ffn_is_the_one_written_plainly(variant):
    block = build(variant).stages[0][0]
    ffn, c = block.ffn.double(), block.norm2.num_features

    def plain(x: Tensor) -> Tensor:
        h = F.gelu(x @ ffn.fc1.weight.t() + ffn.fc1.bias)
        if variant == 'no shortcut':
            conv = ffn.dwconv.conv
            h = F.conv2d(h.permute(0, 3, 1, 2), conv.weight, conv.bias, padding=1, groups=4 * c)
            h = h.permute(0, 2, 3, 1)
        return h @ ffn.fc2.weight.t() + ffn.fc2.bias

    x = image(2, 7, 9, c, dtype=torch.float64)
    assert_near(gradients_of(ffn, x, ffn), gradients_of(plain, x, ffn), 1e-10)


def test_attention_without_iterations_attends_among_the_means_of_the_cells():
    torch.manual_seed(0)
    layer, x = AblationAttention(8, 2, 4, 0, None).double(), image(2, 10, 13, 8, dtype=torch.float64)

    def plain(x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        maps = F.pad(x.permute(0, 3, 1, 2), (0, -width % 4, 0, -height % 4))
        tokens = F.avg_pool2d(maps, 4).permute(0, 2, 3, 1)  # (B, h, w, C)
        with torch.no_grad():
            _, affinity = naive.sample_super_tokens(x, 4, 1)
        with use_backend('naive'):
            tokens = layer.attend(layer.qkv(tokens))
        return naive.upsample_super_tokens(tokens, affinity, (height, width))

    assert_near(gradients_of(layer, x, layer), gradients_of(plain, x, layer), 1e-10)


def test_relative_position_bias_is_added_by_offset():
    torch.manual_seed(0)
    n, heads, d = 3, 2, 4
    layer = AblationAttention(heads * d, heads, 1, 1, n).double()
    table = layer.relative_position_bias_table
    assert 0.01 < table.std() < 0.03

    def plain(x: Tensor) -> Tensor:
        qkv = layer.qkv(x).reshape(-1, n, n, heads, 3, d)
        rows, out = torch.arange(n), []
        for y, z in itertools.product(range(n), repeat=2):
            logits = torch.einsum('bhd,byzhd->bhyz', qkv[:, y, z, :, 0], qkv[..., 1, :]) * d**-0.5
            logits = logits + table[:, y - rows + n - 1][:, :, z - rows + n - 1]  # by offset of the query from the key
            weights = logits.flatten(2).softmax(-1).reshape(logits.shape)
            out.append(torch.einsum('bhyz,byzhd->bhd', weights, qkv[..., 2, :]))
        return layer.proj(torch.stack(out, dim=1).reshape(x.shape))

    x = image(2, n, n, heads * d, dtype=torch.float64)
    assert_near(gradients_of(layer, x, layer), gradients_of(plain, x, layer), 1e-10)


def test_patch_stem_pads_to_whole_patches():
    torch.manual_seed(0)
    stem, x = PatchStem(3, 8).eval(), image(1, 3, 10, 13)
    padded = torch.zeros(1, 3, 12, 16)
    padded[:, :, :10, :13] = x
    assert stem(x).shape == (1, 3, 4, 8)
    assert torch.equal(stem(x), stem(padded))


def test_neck_is_norm_swish_and_mean():
    neck, x = STViTAblationNeck(6).eval(), image(2, 6, 5, 5)
    y = x / (1 + 1e-5) ** 0.5
    assert relative_error(neck((image(2, 3, 9, 9), x))[0], (y * y.sigmoid()).mean((2, 3))) < 1e-6


@pytest.mark.parametrize(('kind', 'sides'), [('ape', '16×16.*24×24'), ('rpe', '4×4.*6×6')])
def test_position_embeddings_refuse_other_sizes_with_the_remedy(kind, sides):
    model = STViTAblation(TINY, pos_embed=kind, img_size=64).eval()
    with pytest.raises(ValueError, match=rf'{kind}.*{sides}.*img_size'):
        model(image(1, 3, 96, 96))


@pytest.mark.parametrize(
    ('kwargs', 'words'),
    [
        (dict(stem='swin'), "'conv', 'patch'.*'swin'"),
        (dict(pos_embed='none'), "'rpe', None.*'none'"),
        (dict(ffn='mlp'), "'plain'.*'mlp'"),
        (dict(n_iter=-1), r'n_iter\[0\].*at least 0'),
        (dict(img_size=0), 'img_size must be a positive integer'),
    ],
)
def test_wrong_arguments_are_named(kwargs, words):
    with pytest.raises(ValueError, match=words):
        STViTAblation(TINY, **kwargs)


@pytest.mark.parametrize('variant', VARIANTS)
def test_a_checkpoint_loads_as_the_pretrained_backbone_of_the_same_model(variant, tmp_path):
    weights, path = build(variant).state_dict(), tmp_path / 'epoch_300.pth'
    torch.save(dict(state_dict={f'backbone.{key}': value for key, value in weights.items()}), path)
    model = STViTAblation(TINY, **VARIANTS[variant], init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    model.init_weights()
    assert_equal(model.state_dict(), weights)


@pytest.mark.parametrize(
    ('variant', 'words'),
    [
        ('STA-4stage', 'missing 6 of .*patch_embed.conv.weight'),
        ('CPE', r'10 weights .*no layers for \(first: stages.0.0.ffn.dwconv.weight'),
        ('no shortcut', 'missing 10 of .*stages.0.0.ffn.dwconv.conv.weight'),
        ('APE', 'missing .*patch_embed.0.convs'),
        ('RPE', 'missing .*relative_position_bias_table'),
    ],
)
def test_weights_of_stvit_are_refused_where_layers_differ(variant, words, tmp_path):
    path = tmp_path / 'stvit.pth'
    torch.save(dict(state_dict=STViT(TINY).state_dict()), path)
    model = STViTAblation(TINY, **VARIANTS[variant], init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    with pytest.raises(CheckpointError, match=words):
        model.init_weights()


def test_their_super_tokens_can_be_read_and_other_attention_is_refused():
    model = build('no iteration').eval()
    assert len(super_tokens(model, image(3, 64, 64))) == 2
    with pytest.raises(UserError, match='AblationAttention'):
        attention_of(model, image(3, 64, 64), (5, 5))
