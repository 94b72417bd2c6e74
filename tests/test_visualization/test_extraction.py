"""Super tokens and attention, read from a running model, against plain loops over the paper's equations."""

import copy
import functools
import math

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmstvit import STViT
from mmstvit.apis import build_model
from mmstvit.errors import UserError
from mmstvit.layers.attention import SuperTokenAttention
from mmstvit.ops import use_backend
from mmstvit.visualization import attention_of, super_tokens

from ..helpers import NANO, TINY, image, learned, load_config, tiny

TOLERANCE = 1e-5
SIZE = 43, 70  # neither side is divisible by a stride or a cell
POINTS = {'inside': (30, 24), 'corner': (0, 0), 'beside the padding': (69, 42)}


@functools.cache
def loop_association(x: Tensor, s: int, n_iter: int) -> tuple[Tensor, tuple[int, int]]:
    """Eq. 5, token by token: x (H, W, C) -> the weights of every token of the padded map, and the grid."""
    height, width, c = x.shape
    h, w = math.ceil(height / s), math.ceil(width / s)
    padded = x.new_zeros(h * s, w * s, c)
    padded[:height, :width] = x
    tokens = {(i, j): padded[i * s : i * s + s, j * s : j * s + s].mean((0, 1)) for i in range(h) for j in range(w)}
    for _ in range(n_iter):
        q = x.new_zeros(h * s, w * s, 9)
        sums, totals = {key: x.new_zeros(c) for key in tokens}, dict.fromkeys(tokens, 1e-12)
        for y in range(h * s):
            for z in range(w * s):
                around = [(y // s + k // 3 - 1, z // s + k % 3 - 1) for k in range(9)]
                logits = [padded[y, z] @ tokens.get(key, x.new_zeros(c)) * c**-0.5 for key in around]
                q[y, z] = torch.stack(logits).softmax(0)
                for key, weight in zip(around, q[y, z], strict=True):
                    if key in tokens:
                        sums[key] = sums[key] + weight * padded[y, z]
                        totals[key] = totals[key] + weight
        tokens = {key: sums[key] / totals[key] for key in tokens}
    return q, (h, w)


@functools.cache
def loop_attention(layer: SuperTokenAttention, x: Tensor) -> Tensor:
    """Eqs. 14–15 with the whole map: x (H, W, C) -> A (heads, H·W, H·W)."""
    height, width, c = x.shape
    d = c // layer.num_heads
    if layer.stoken_size == 1:
        dense = torch.eye(height * width, dtype=x.dtype)
        padded, kept = x.reshape(-1, c), slice(None)
    else:
        s = layer.stoken_size
        q, (h, w) = loop_association(x, s, layer.n_iter)
        padded = x.new_zeros(h * s, w * s, c)
        padded[:height, :width] = x
        dense = x.new_zeros(h * s, w * s, h * w)  # Q, with a column for every super token
        for y in range(h * s):
            for z in range(w * s):
                for k in range(9):
                    i, j = y // s + k // 3 - 1, z // s + k % 3 - 1
                    if 0 <= i < h and 0 <= j < w:
                        dense[y, z, i * w + j] = q[y, z, k]
        kept = torch.zeros(h * s, w * s, dtype=torch.bool)
        kept[:height, :width] = True
        kept = kept.flatten()
        padded, dense = padded.reshape(-1, c), dense.reshape(-1, h * w)
    normalized = dense / (dense.sum(0) + 1e-12)  # Q̂ of Eq. 6
    qkv = layer.qkv(normalized.t() @ padded).reshape(-1, layer.num_heads, 3, d)
    rows = []
    for head in range(layer.num_heads):
        attention = (qkv[:, head, 0] @ qkv[:, head, 1].t() * d**-0.5).softmax(-1)
        rows.append((dense @ attention @ normalized.t())[kept][:, kept])
    return torch.stack(rows)


def inputs_of_layers(model: STViT, x: Tensor) -> list[tuple[SuperTokenAttention, Tensor]]:
    """Return every attention layer with the map (H, W, C) that it receives."""
    seen, hooks = [], []
    for layer in model.modules():
        if isinstance(layer, SuperTokenAttention):
            hooks.append(layer.register_forward_pre_hook(lambda layer, args: seen.append((layer, args[0][0]))))
    model(x[None])
    for hook in hooks:
        hook.remove()
    return seen


@pytest.fixture(scope='module', params=['one iteration', 'three iterations', 'deploy form'])
@torch.no_grad()
def case(request: pytest.FixtureRequest) -> tuple[STViT, Tensor, list[tuple[SuperTokenAttention, Tensor]]]:
    model = learned(tiny(n_iter=3 if request.param == 'three iterations' else 1)).double()
    if request.param == 'deploy form':
        model.switch_to_deploy()
    x = image(3, *SIZE, dtype=torch.float64)
    return model, x, inputs_of_layers(model, x)


@torch.no_grad()
def test_association_equals_a_loop_over_eq_5(case):
    model, x, layers = case
    records = super_tokens(model, x)
    expected = [(layer, seen) for layer, seen in layers if layer.stoken_size > 1]
    assert [record.name for record in records] == ['stages.0.0', 'stages.1.0']
    for record, (layer, seen) in zip(records, expected, strict=True):
        height, width, _ = seen.shape
        weights, grid = loop_association(seen, layer.stoken_size, layer.n_iter)
        assert record.grid == grid
        assert record.stride == 4 * 2**record.stage
        np.testing.assert_allclose(record.association, weights[:height, :width], atol=TOLERANCE)
        for y, z in [(0, 0), (5, 7), (height - 1, width - 1)]:
            s = record.stoken_size
            around = [(y // s + k // 3 - 1, z // s + k % 3 - 1) for k in range(9)]
            inside = [k for k, (i, j) in enumerate(around) if 0 <= i < grid[0] and 0 <= j < grid[1]]
            i, j = around[max(inside, key=lambda k: weights[y, z, k])]
            assert record.labels[y, z] == i * grid[1] + j
            assert record.label_map[y * record.stride, z * record.stride] == record.labels[y, z]


@torch.no_grad()
@pytest.mark.parametrize('name', POINTS)
def test_attention_equals_a_loop_over_eqs_14_and_15(case, name):
    model, x, layers = case
    records = attention_of(model, x, POINTS[name])
    heads = attention_of(model, x, POINTS[name], per_head=True)
    assert [record.name for record in records] == ['stages.0.0', 'stages.1.0', 'stages.2.0', 'stages.2.1', 'stages.3.0']
    for record, apart, (layer, seen) in zip(records, heads, layers, strict=True):
        height, width, _ = seen.shape
        row, column = (POINTS[name][1] // record.stride, POINTS[name][0] // record.stride)
        assert record.token == (row, column)
        expected = loop_attention(layer, seen)[:, row * width + column].reshape(-1, height, width)
        np.testing.assert_allclose(apart.weights, expected, atol=TOLERANCE * expected.max())
        np.testing.assert_allclose(record.weights, expected.mean(0), atol=TOLERANCE * expected.max())
        assert record.map.shape == SIZE
        assert record.map[POINTS[name][::-1]] == record.weights[row, column]


@pytest.mark.parametrize('backend', ['torch', 'naive', 'auto'])
def test_every_backend_gives_the_same_maps(backend):
    model, x = tiny(), image(3, *SIZE)
    precise, point = copy.deepcopy(model).double(), POINTS['inside']
    expected = super_tokens(precise, x), attention_of(precise, x, point)
    with use_backend(backend):
        actual = super_tokens(model, x), attention_of(model, x, point)
    for record, reference in zip(actual[0], expected[0], strict=True):
        np.testing.assert_allclose(record.association, reference.association, atol=TOLERANCE)
    for record, reference in zip(actual[1], expected[1], strict=True):
        np.testing.assert_allclose(record.weights, reference.weights, atol=TOLERANCE)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')
@pytest.mark.parametrize('backend', ['torch', 'triton'])
def test_maps_on_a_gpu(backend):
    model, x = tiny(), image(3, *SIZE)
    expected = attention_of(model, x, POINTS['inside'])
    with use_backend(backend), torch.backends.cudnn.flags(allow_tf32=False):
        actual = attention_of(model.cuda(), x, POINTS['inside'])
    for record, reference in zip(actual, expected, strict=True):
        np.testing.assert_allclose(record.weights, reference.weights, atol=TOLERANCE)


def test_soft_memberships_add_up_to_one_inside_the_grid():
    record = super_tokens(tiny(), image(3, 128, 160))[0]
    total = sum(record.membership(index) for index in range(record.grid[0] * record.grid[1]))
    cell = record.stride * record.stoken_size
    np.testing.assert_allclose(total[cell:-cell, cell:-cell], 1, atol=TOLERANCE)
    assert total[:cell].max() < 1  # three of the nine neighbors are outside the grid
    with pytest.raises(IndexError, match='super tokens 0 to 79, but got 80'):
        record.membership(80)


class Largest(TorchDispatchMode):
    """Measure the largest tensor that any operator returns."""

    size = 0  # bytes

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            self.size = max(self.size, leaf.nbytes if isinstance(leaf, Tensor) else 0)
        return result


def test_no_map_of_all_pairs_of_tokens_is_computed():
    # At 800×1333, stage 3 has 50·84 tokens, and its map 71 MB; that of stage 1 has 18 GB.
    model, x = tiny(), image(3, 800, 1333)
    with Largest() as largest:
        records = attention_of(model, x, (1332, 799))
    assert records[2].grid == (50, 84)
    assert 0 < largest.size < (50 * 84) ** 2 * 4 / 2
    assert sum(record.weights.nbytes for record in records) < 2**20


def test_reading_leaves_the_model_as_it_was():
    model, x = tiny().train(), image(1, 3, 64, 64)
    model.stages[0].eval()
    before = copy.deepcopy(model.state_dict())
    modes = [part.training for part in model.modules()]
    super_tokens(model, x)
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(UserError, match=r'the point \(64, 0\) is outside the image of 64×64'):
        attention_of(model, x, (64, 0))
    assert all(layer.recorder is None for layer in model.modules() if isinstance(layer, SuperTokenAttention))


def test_reading_under_autocast():
    model, x = tiny(), image(3, 64, 64)
    expected = super_tokens(model, x)[0].association
    with torch.autocast('cpu', torch.bfloat16):
        records = [*super_tokens(model, x), *attention_of(model, x, (3, 3))]
    np.testing.assert_allclose(records[0].association, expected, atol=0.02)
    assert records[-1].weights.dtype == np.float32


def test_a_recorder_of_the_user_sees_every_forward_pass():
    model, seen = tiny().eval(), []
    model.stages[0][0].attn.recorder = lambda *args: seen.append(args)
    model(image(2, 3, 64, 96))
    super_tokens(model, image(3, 64, 64))  # has recorders of its own
    (size, association, qkv), *others = seen
    assert not others
    assert size == (16, 24)
    assert association.shape == (2, 4, 6, 16, 9)
    assert qkv.shape == (2, 4, 6, 24)


@pytest.mark.parametrize('library', NANO)
def test_a_sample_of_the_test_pipeline(library):
    torch.manual_seed(0)
    model = build_model(load_config(NANO[library])).eval()
    pixels = torch.randint(0, 256, (3, 70, 90), dtype=torch.uint8)
    sample = dict(inputs=pixels, data_samples=data_sample(library))
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    records = super_tokens(model, sample)
    assert records[0].name == 'backbone.stages.0.0'
    assert records[0].label_map.shape == (70, 90)  # without the padding of the data preprocessor
    attention = attention_of(model, sample, (89, 69))
    assert attention[-1].map.shape == (70, 90)
    assert torch.equal(seen[0], model.data_preprocessor(pseudo_collate([sample]), False)['inputs'])
    wrapped = super_tokens(nn.DataParallel(model), sample)
    assert [record.name for record in wrapped] == [record.name for record in records]


def data_sample(library: str) -> BaseDataElement:
    from mmdet.structures import DetDataSample
    from mmpretrain.structures import DataSample
    from mmseg.structures import SegDataSample

    kind = {'mmpretrain': DataSample, 'mmdet': DetDataSample, 'mmseg': SegDataSample}[library]
    return kind(metainfo=dict(img_shape=(70, 90), ori_shape=(70, 90)))


def test_inputs_that_cannot_be_used():
    model = tiny()
    with pytest.raises(UserError, match=r'one image.*\(2, 3, 64, 64\)'):
        super_tokens(model, image(2, 3, 64, 64))
    with pytest.raises(UserError, match='Sequential has 0 STViT'):
        super_tokens(nn.Sequential(nn.Conv2d(3, 3, 1)), image(3, 64, 64))
    for model, sample in ((tiny(), dict(inputs=image(3, 64, 64))), (tiny(), {})):
        with pytest.raises(UserError, match='STViT cannot read a sample'):
            super_tokens(model, sample)
    with pytest.raises(UserError, match=r'Sequential has 2 STViT backbones: 0, 1\.'):
        super_tokens(nn.Sequential(STViT(TINY), STViT(TINY)), image(3, 64, 64))
