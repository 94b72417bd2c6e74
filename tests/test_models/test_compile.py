"""The compiled backbone: no graph breaks, one compilation for all sizes, values and gradients of the eager one."""

import copy
import json
import pickle

import pytest
import torch
from mmengine.registry import MODELS
from torch._dynamo.utils import counters

from mmstvit import STViT
from mmstvit.arch import ARCHS

from ..helpers import (
    ROOT,
    TINY,
    assert_near,
    batch_norms,
    cotangent_loss,
    free_port,
    gradients,
    image,
    link_scenes,
    metrics,
    relative_error,
    tiny,
)

# Multiples of 32 and not, cells that divide the maps and not, larger and smaller batches.
IMAGES = [(2, 3, 72, 100), (3, 3, 64, 96), (2, 3, 97, 131), (2, 3, 160, 96), (3, 3, 33, 50), (2, 3, 128, 128)]
PIECES = 5  # the stem and four stages, each one graph
# With Inductor the stem twice: sums over more than 4096 numbers, here BatchNorm's, have code of their own.
INDUCTOR_TRAINING = PIECES + 1
# For what has nothing to do with sizes: traced once and not compiled, which is fast.
FAST = dict(backend='eager', dynamic=False)
CLASSIFIER = ROOT / 'tests/test_training/tiny_classifier.py'


@pytest.fixture(autouse=True)
def _forget_compiled():
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def graphs() -> int:
    """How many graphs were compiled in this test."""
    return counters['stats']['unique_graphs']


def twins(backend: str, mode: bool, **options: object) -> tuple[STViT, STViT]:
    """A compiled model, which refuses graph breaks, and an eager one that is never recomputed, of equal weights."""
    eager = {**options, 'with_cp': False}
    return tiny(compile=dict(backend=backend), **options).train(mode), tiny(**eager).train(mode)


def check_inference(backend: str, tolerance: float) -> None:
    compiled, eager = twins(backend, False)
    with torch.no_grad():
        for size in IMAGES:
            outputs = compiled(image(*size))
            assert all(x.is_contiguous() for x in outputs)
            for actual, expected in zip(outputs, eager(image(*size)), strict=True):
                assert relative_error(actual, expected) <= tolerance
    assert graphs() == PIECES


def check_training(backend: str, tolerance: float, most_graphs: int = PIECES, **options: object) -> None:
    compiled, eager = twins(backend, True, **options)
    for size in IMAGES:
        results = []
        for model in (compiled, eager):
            x = image(*size).requires_grad_()
            outputs = model(x)
            cotangent_loss(outputs).backward()
            # The biases before a BatchNorm have no gradient but rounding.
            grads = {name: grad for name, grad in gradients(model).items() if not name.endswith('conv.bias')}
            outputs = {str(i): output.detach() for i, output in enumerate(outputs)}
            results.append({**grads, **outputs, **dict(model.named_buffers()), 'input': x.grad})
            model.zero_grad()
        results = [{name: value.double().clone() for name, value in result.items()} for result in results]
        assert_near(*results, tolerance)
    assert {norm.num_batches_tracked.item() for norm in batch_norms(compiled).values()} == {len(IMAGES)}
    assert PIECES <= graphs() <= most_graphs


def test_inference_is_traced_once_for_all_sizes():
    check_inference('eager', 1e-5)


@pytest.mark.parametrize('with_cp', [False, True])
def test_training_is_traced_once_for_all_sizes(with_cp):
    check_training('eager', 1e-4, with_cp=with_cp)


@pytest.mark.long
def test_inductor_inference():
    check_inference('inductor', 1e-5)


@pytest.mark.long
@pytest.mark.parametrize('with_cp', [False, True])
def test_inductor_training(with_cp):
    check_training('inductor', 1e-4, INDUCTOR_TRAINING, with_cp=with_cp)


@pytest.mark.long
@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('arch', ARCHS)
def test_every_architecture_is_traced_once(arch, training):
    model = STViT(arch, compile=dict(backend='eager'), drop_path_rate=0.3).train(training)
    with torch.set_grad_enabled(training):
        for size in IMAGES[:3]:
            outputs = model(image(*size))
            assert all(x.isfinite().all() for x in outputs)
            if training:
                cotangent_loss(outputs).backward()
    assert graphs() == PIECES


def test_autocast():
    compiled, eager = tiny(compile=FAST).train(), tiny().train()
    with torch.autocast('cpu', torch.bfloat16):
        outputs, expected = compiled(image(*IMAGES[0])), eager(image(*IMAGES[0]))
    for actual, value in zip(outputs, expected, strict=True):
        assert actual.dtype == value.dtype
        assert relative_error(actual.float(), value.float()) <= 0.05
    cotangent_loss([x.float() for x in outputs]).backward()
    assert all(grad.isfinite().all() for grad in gradients(compiled).values())


def test_drop_path_drops_and_follows_its_rate():
    model = tiny(compile=FAST, drop_path_rate=0.9).train()
    x = image(4, 3, 33, 50)
    assert not torch.equal(model(x)[-1], model(x)[-1])
    model.set_drop_path_rate(0.0)
    assert torch.equal(model(x)[-1], model(x)[-1])


def test_checkpoints_copies_and_pickles():
    model = tiny(compile=FAST).eval()
    assert model.state_dict().keys() == tiny().state_dict().keys()
    x = image(*IMAGES[0])
    with torch.no_grad():
        before = model(x)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            for parameter in other.parameters():
                parameter.zero_()
            assert not other(x)[-1].any()
        assert torch.equal(model(x)[-1], before[-1])


def test_two_backbones_share_what_is_compiled():
    models = [tiny(seed, compile=FAST).eval() for seed in (0, 1)]
    with torch.no_grad():
        outputs = [model(image(*IMAGES[0]))[-1] for model in models]
        for seed, output in enumerate(outputs):
            assert relative_error(output, tiny(seed).eval()(image(*IMAGES[0]))[-1]) <= 1e-5
    assert graphs() == PIECES


def test_hooks_run_and_inference_form_compiles():
    model = tiny(compile=FAST).eval()
    expected = tiny().eval()(image(*IMAGES[0]))
    seen = []
    model.register_forward_hook(lambda module, args, outputs: seen.append(len(outputs)))
    model(image(*IMAGES[0]))
    model.switch_to_deploy()
    for actual, value in zip(model(image(*IMAGES[0])), expected, strict=True):
        assert relative_error(actual, value) <= 1e-5
    assert seen == [4, 4]


def test_inside_a_compiled_function_it_is_part_of_that():
    model = tiny(compile=dict(backend='inductor')).eval()
    with torch.no_grad():
        outputs = torch.compile(lambda x: model(x), backend='eager', fullgraph=True)(image(*IMAGES[0]))
        expected = tiny().eval()(image(*IMAGES[0]))
    assert relative_error(outputs[-1], expected[-1]) <= 1e-5
    assert graphs() == 1


@pytest.mark.parametrize('value', [1, None, 'inductor', ['dynamic'], dict(target='forward')])
def test_a_bad_value_is_refused(value):
    with pytest.raises(ValueError, match='compile must be True, False or a dict'):
        STViT(TINY, compile=value)


def test_from_a_config():
    cfg = dict(type='mmstvit.STViT', arch=TINY, compile=True)
    assert MODELS.build(cfg).compile_options == dict(fullgraph=True, dynamic=True)
    assert STViT(TINY, compile=dict(dynamic=False, mode='max-autotune')).compile_options == dict(
        fullgraph=True, dynamic=False, mode='max-autotune'
    )
    assert STViT(TINY).compile_options is None


RUNS = {
    'classifier, averaged weights': dict(base=CLASSIFIER, fields="custom_hooks = [dict(type='EMAHook')]"),
    'classifier, mixed precision': dict(base=CLASSIFIER, arguments=['--amp'], tolerance=0.05),
    'classifier, two processes': dict(base=CLASSIFIER, script='dist_train.sh', processes=[2], backend='aot_eager'),
    'detector': dict(base=ROOT / 'configs/mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py', backend='aot_eager'),
    'segmentor': dict(
        base=ROOT / 'configs/upernet/stvit-nano_upernet_scenes.py',
        fields="train_cfg = dict(type='IterBasedTrainLoop', max_iters=3, val_interval=3)",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize('name', RUNS)
def test_the_tools_train_and_test(tool, scenes, tmp_path, name):
    """With the switch on as without it: losses of a few iterations, metrics after them, keys of the checkpoint."""
    run = dict(fields='train_cfg = dict(max_epochs=1)', script='train.py', processes=[], arguments=[]) | RUNS[name]
    folder = link_scenes(tmp_path, scenes)
    (folder / 'config.py').write_text(
        f"""
_base_ = '{run['base']}'
{run['fields']}
model = dict(backbone=dict(drop_rate=0.0, drop_path_rate=0.0))
train_dataloader = dict(batch_size=4, dataset=dict(indices=12))
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=3, by_epoch=False, max_keep_ckpts=1))
"""
    )
    losses, keys, tables = {}, {}, {}
    backend = run.get('backend', 'eager')
    for switch in ('model.backbone.compile=False', f'model.backbone.compile.backend={backend}'):
        arguments = [*run['processes'], '--work-dir', switch, *run['arguments'], '--cfg-options', switch]
        done = tool(run['script'], 'config.py', *arguments, cwd=folder, env=free_port())
        assert done.returncode == 0, done.stderr[-3000:]
        scalars = next(folder.glob(f'{switch}/*/vis_data/scalars.json')).read_text().splitlines()
        losses[switch] = [row['loss'] for row in map(json.loads, scalars) if 'loss' in row]
        path = folder / (folder / switch / 'last_checkpoint').read_text()
        keys[switch] = set(torch.load(path, weights_only=False)['state_dict'])
        done = tool('test.py', 'config.py', path, '--work-dir', f'{switch}/test', '--cfg-options', switch, cwd=folder)
        assert done.returncode == 0, done.stderr[-3000:]
        tables[switch] = metrics(done.stdout)
    (expected, actual), (before, after) = losses.values(), keys.values()
    assert len(expected) >= 2
    assert actual == pytest.approx(expected, rel=run.get('tolerance', 1e-3))
    assert after == before
    assert tables[switch].keys() == tables['model.backbone.compile=False'].keys() != set()
