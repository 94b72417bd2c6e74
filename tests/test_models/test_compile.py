"""``torch.compile(model.backbone)``: no graph breaks; values and gradients of the eager backbone."""

import pytest
import torch

from ..helpers import assert_near, cotangent_loss, gradients, image, relative_error, tiny

SIZE = (2, 3, 72, 100)  # cells that divide the maps of some stages and not of others


@pytest.fixture(autouse=True)
def _forget_compiled():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def check(backend: str, training: bool) -> None:
    """Compare a compiled backbone with an eager one of equal weights."""
    results = []
    for compiled in (True, False):
        model = tiny().train(training)
        run = torch.compile(model, backend=backend, fullgraph=True) if compiled else model
        x = image(*SIZE).requires_grad_(training)
        with torch.set_grad_enabled(training):
            outputs = run(x)
        assert all(output.is_contiguous() for output in outputs)
        result = {str(i): output.detach() for i, output in enumerate(outputs)}
        if training:
            cotangent_loss(outputs).backward()
            # The biases before a BatchNorm have no gradient but rounding errors.
            result |= {name: grad for name, grad in gradients(model).items() if not name.endswith('conv.bias')}
            result |= {'input': x.grad, **dict(model.named_buffers())}
        results.append({name: value.double() for name, value in result.items()})
    assert_near(*results, 1e-4)


@pytest.mark.parametrize('training', [False, pytest.param(True, marks=pytest.mark.long)])
def test_one_graph(training):
    check('aot_eager' if training else 'eager', training)


@pytest.mark.slow  # compiles C++ for minutes
@pytest.mark.parametrize('training', [False, True])
def test_inductor(training):
    check('inductor', training)


@pytest.mark.long
def test_deploy_form():
    model = tiny().eval()
    with torch.no_grad():
        expected = model(image(*SIZE))
        model.switch_to_deploy()
        outputs = torch.compile(model, backend='eager', fullgraph=True)(image(*SIZE))
    for actual, value in zip(outputs, expected, strict=True):
        assert relative_error(actual, value) <= 1e-5
