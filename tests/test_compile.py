"""The operators under opcheck, torch.compile, torch.export; the choice of a backend."""

import io
import re
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import grad, hessian, jacfwd, jvp

import high_order_fused as hof
from high_order_fused.backends import _registered, get, register
from high_order_fused.functional import link
from high_order_fused.kan import KANLinear
from tests import cases

SAMPLE = ("piecewise_lagrange-continuous-linear", "fourier-even-extrapolate", "bspline-knots-zero")


@pytest.fixture
def counting():
    """A second backend: the reference, counting its calls."""
    calls = []

    def counted(name):
        def run(*arguments):
            calls.append(name)
            return getattr(hof.reference, name)(*arguments)

        return run

    names = ("sum_inputs", "sum_outputs", "sum_batch")
    second = replace(get("reference"), name="counting", **{name: counted(name) for name in names})
    register(second)
    yield calls
    del _registered["counting"]


@pytest.mark.parametrize("case", SAMPLE)
@pytest.mark.parametrize("missing", "gsw")
def test_opcheck(case, missing):
    basis = cases.build(case)
    inputs = basis.inputs or 2
    double = {"dtype": torch.float64, "requires_grad": True}
    x, g = torch.rand(2, 5, inputs, **double), torch.randn(2, 5, 3, **double)
    w, s = torch.randn(2, inputs, basis.size, 3, **double), torch.randn(2, 5, inputs, **double)
    name, tensors = {
        "g": ("sum_inputs", (x, w, s)),
        "s": ("sum_outputs", (x, w, g)),
        "w": ("sum_batch", (x, g, None)),
    }[missing]
    operands = basis.operands(torch.float64, x.device)
    arguments = (*tensors, *operands.tensors, list(operands.layout), "reference")
    torch.library.opcheck(getattr(torch.ops.high_order_fused, name).default, arguments)


@pytest.mark.parametrize("case", SAMPLE)
def test_compile_forward_and_backward(case):
    basis = cases.build(case)
    inputs = basis.inputs or 2
    w = torch.randn(inputs, basis.size, 3, requires_grad=True)
    compiled = torch.compile(lambda x: link(x, w, basis).sin().sum(), fullgraph=True)
    for rows in (5, 5, 9, 12):  # then with dynamic shapes
        x = torch.rand(rows, inputs, requires_grad=True)
        expected = torch.autograd.grad(link(x, w, basis).sin().sum(), (x, w))
        torch.testing.assert_close(torch.autograd.grad(compiled(x), (x, w)), expected)


def test_compiled_transforms():
    basis = hof.bases.piecewise_lagrange(4, 3)
    w, x = torch.randn(2, basis.size, 3, dtype=torch.float64), cases.points(4, 2)
    f = lambda x: link(x, w, basis).sin().sum()  # noqa: E731
    ones = torch.ones_like(x)
    transforms = (
        lambda x: grad(lambda x: grad(lambda x: grad(f)(x).sin().sum())(x).sin().sum())(x),
        hessian(f),
        lambda x: jvp(f, (x,), (ones,)),
    )
    for transform in transforms:
        torch.testing.assert_close(torch.compile(transform, fullgraph=True)(x), transform(x))


def test_compiled_forward_mode_in_forward_mode_is_a_clear_error():
    basis = hof.bases.lagrange(3)
    w = torch.randn(2, 3, 3)
    f = jacfwd(jacfwd(lambda x: link(x, w, basis).sum()))
    with pytest.raises(
        Exception, match=r"forward mode inside forward mode is not supported under torch\.compile"
    ):
        torch.compile(f, fullgraph=True)(torch.rand(4, 2))


def test_compile_follows_backend_and_grid(counting):
    """One compiled layer, then another backend, then an updated grid; backward keeps its backend."""
    layer = KANLinear(3, 2)
    compiled = torch.compile(layer, fullgraph=True)
    x = torch.rand(20, 3) * 2 - 1

    def gradients(module):
        return torch.autograd.grad(module(x).sin().sum(), list(layer.parameters()))

    def agree():
        torch.testing.assert_close(gradients(compiled), gradients(layer))

    with hof.use_backend("reference"):
        agree()
        assert not counting
        y = compiled(x)
    with hof.use_backend("counting"):
        agree()
        assert counting.count("sum_inputs") == 2 and counting.count("sum_batch") == 2
        counting.clear()
        torch.autograd.grad(
            y.sum(), list(layer.parameters())
        )  # made by the reference, so differentiated by it
        assert not counting
    layer.update_grid(0.3 * x)
    agree()
    layer.grid.data.mul_(1.5)
    agree()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "make", [lambda: hof.HighOrderLinear(3, 2, hof.bases.lagrange(4)), lambda: KANLinear(3, 2)]
)
def test_export(make, strict):
    layer = make()
    rows = torch.export.Dim("rows", min=2)
    program = torch.export.export(layer, (torch.rand(4, 3),), dynamic_shapes={"x": {0: rows}}, strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    x = torch.rand(11, 3)
    torch.testing.assert_close(loaded(x), layer(x))


def test_use_backend(counting):
    layer = hof.HighOrderLinear(2, 3, hof.bases.lagrange(3))
    x = torch.rand(4, 2)
    with hof.use_backend("counting"):
        layer(x).sum().backward()
        with hof.use_backend("reference"):
            layer(x)
        assert counting == ["sum_inputs", "sum_batch"]
    layer(x)
    assert counting[2:] == ["sum_inputs"]  # the newest is preferred
    with pytest.raises(KeyError), hof.use_backend("reference"):
        raise KeyError
    layer(x)
    assert len(counting) == 4


def test_a_backend_that_cannot_take_the_tensors_says_so():
    picky = replace(get("reference"), name="picky", refuses=lambda x: f"only {torch.float64}")
    register(picky)
    try:
        layer = hof.HighOrderLinear(2, 3, hof.bases.lagrange(3))
        layer(torch.rand(4, 2))  # auto passes it over
        with (
            hof.use_backend("picky"),
            pytest.raises(RuntimeError, match=r"'picky' cannot take torch.float32 on cpu: only"),
        ):
            layer(torch.rand(4, 2))
    finally:
        del _registered["picky"]


def test_backends_tell_what_is_there_and_why_not():
    status = hof.backends()
    assert status["reference"].available
    absent = [name for name, known in status.items() if not known.available]
    assert {"triton", "cuda"} <= set(absent) and all(known.detail for known in status.values())
    for name in absent:
        reason = re.escape(status[name].detail)
        with pytest.raises(ValueError, match=rf"'{name}' \({reason}\), needs one of 'auto', 'reference'"):
            hof.use_backend(name).__enter__()


def test_modules_hide_nothing_from_dynamo():
    """A network of every layer in one graph."""
    fc = hof.layers.high_order_fc_layers
    network = nn.Sequential(
        fc("continuous", n=3, in_features=3, out_features=4, segments=2),
        hof.norm.MaxAbsNormalization(),
        fc("discontinuous", n=2, in_features=4, out_features=4, segments=3, periodicity=2.0),
        hof.layers.PRePU(4),
        fc("polynomial", n=3, in_features=4, out_features=4),
        fc("fourier", n=3, in_features=4, out_features=4),
        hof.layers.PolynomialLayer(4, 4, 2),
        hof.HighOrderLinear(4, 2, hof.bases.bspline(3, 4)),
        KANLinear(2, 2),
    )
    x = torch.rand(5, 3)
    torch.testing.assert_close(torch.compile(network, fullgraph=True)(x), network(x))
