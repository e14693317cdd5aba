"""Derivatives of any order in every mode, every basis and policy, against finite differences and torch's."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from high_order_fused import functional, reference
from high_order_fused.functional import link
from tests import cases
from tests.support import sample

SMOOTH = (
    "lagrange-linear",
    "piecewise_lagrange-continuous-linear",
    "fourier-even-extrapolate",
    "bspline-knots-zero",
)


def operands(basis, rows=3, outputs=2, spread=1.6):
    inputs = basis.inputs or 2
    x = cases.points(rows, inputs, spread=spread)
    # finite differences must not step over a knot
    knots = basis.knots.flatten()
    near = (x[..., None] - knots).abs().amin(-1) < 1e-3
    x = torch.where(near, x + 3e-3, x).requires_grad_()
    w = torch.randn(inputs, basis.size, outputs, dtype=torch.float64, requires_grad=True)
    s = torch.randn(rows, inputs, dtype=torch.float64, requires_grad=True)
    return x, w, s


@pytest.mark.parametrize("case", sample(cases.CASES, 3))
def test_first_and_second_order(case):
    basis = cases.build(case)
    inputs = operands(basis)
    function = lambda x, w, s: link(x, w, basis, s)  # noqa: E731
    assert gradcheck(function, inputs, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(function, inputs, check_fwd_over_rev=True)


@pytest.mark.parametrize("case", cases.CASES)
def test_third_order(case):
    basis = cases.build(case)
    x, w, _ = operands(basis, rows=2, outputs=1)

    def second(x, w):
        y = link(x, w, basis).sin()
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return slope

    assert gradgradcheck(second, (x, w))


def test_fifth_order_goes_past_the_tables():
    """Tables are kept up to the third derivative; beyond, backward makes them."""
    from high_order_fused import bases

    x = torch.rand(4, 1, dtype=torch.float64, requires_grad=True)
    w = torch.randn(1, 9, 1, dtype=torch.float64)
    y = link(x, w, bases.monomial(8))
    for _ in range(6):
        (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    powers = torch.arange(9, dtype=torch.float64)
    falling = torch.stack([powers - j for j in range(6)]).prod(0)
    expected = (x * 0 + (w[0, 6:, 0] * falling[6:] * x ** (powers[6:] - 6)).sum(-1, keepdim=True)).detach()
    torch.testing.assert_close(y.detach(), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("missing", "gsw")
@pytest.mark.parametrize("case", SMOOTH)
def test_each_contraction_is_differentiable(case, missing):
    basis = cases.build(case)
    x, w, s = operands(basis)
    x, w, s = (t.detach().unsqueeze(0).requires_grad_() for t in (x, w, s))
    g = torch.randn(1, 3, 2, dtype=torch.float64, requires_grad=True)
    function, inputs = {
        "g": (lambda x, w, s: functional.sum_inputs(x, w, basis, s), (x, w, s)),
        "s": (lambda x, w, g: functional.sum_outputs(x, w, basis, g), (x, w, g)),
        "w": (lambda x, g, s: functional.sum_batch(x, g, basis, s), (x, g, s)),
    }[missing]
    assert gradcheck(function, inputs, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(function, inputs)


def composite(basis, w):
    """The same function from the plain operations of the specification, differentiated by torch alone."""
    operands = basis.operands(torch.float64, torch.device("cpu"))
    return lambda x: reference.sum_inputs(x[None], w[None], None, operands)[0].sin().sum()


@pytest.mark.parametrize("case", SMOOTH)
def test_function_transforms(case):
    basis = cases.build(case)
    x, w, s = (t.detach() for t in operands(basis))
    f, plain = lambda x: link(x, w, basis).sin().sum(), composite(basis, w)
    expected = torch.autograd.functional.hessian(plain, x)
    ones = torch.ones_like(x)
    for transform in (
        hessian,
        lambda f: jacrev(jacrev(f)),
        lambda f: jacrev(jacfwd(f)),
        lambda f: jacfwd(jacfwd(f)),
    ):
        torch.testing.assert_close(transform(f)(x), expected)
    torch.testing.assert_close(jvp(f, (x,), (s,)), jvp(plain, (x,), (s,)))
    twice = lambda f: jvp(lambda x: jvp(f, (x,), (ones,))[1], (x,), (ones,))[1]  # noqa: E731
    torch.testing.assert_close(twice(f), twice(plain))
    thrice = lambda f: grad(lambda x: grad(lambda x: grad(f)(x).sin().sum())(x).sin().sum())(x)  # noqa: E731
    torch.testing.assert_close(thrice(f), thrice(plain))


@pytest.mark.parametrize("batched", ["x", "w", "s", "xw", "xws"])
@pytest.mark.parametrize("case", SMOOTH)
def test_vmap(case, batched):
    """Over any of the operands, at any dimension, with gradients, against a loop."""
    basis = cases.build(case)
    x, w, s = (t.detach() for t in operands(basis))
    dims = tuple({"x": 1, "w": 3, "s": 0}[name] if name in batched else None for name in "xws")
    inputs = [
        t if d is None else torch.stack([t, t.flip(0), 0.3 * t, -t], d)
        for t, d in zip((x, w, s), dims, strict=True)
    ]
    f = lambda x, w, s: link(x, w, basis, s).sin()  # noqa: E731
    g = lambda x, w, s: grad(lambda *a: f(*a).sum(), argnums=(0, 1, 2))(x, w, s)  # noqa: E731
    rows = [[t if d is None else t.select(d, v) for t, d in zip(inputs, dims, strict=True)] for v in range(4)]
    torch.testing.assert_close(vmap(f, dims)(*inputs), torch.stack([f(*row) for row in rows]))
    expected = [torch.stack(parts) for parts in zip(*(g(*row) for row in rows), strict=True)]
    torch.testing.assert_close(list(vmap(g, dims)(*inputs)), expected)


@pytest.mark.parametrize("missing", "sw")
@pytest.mark.parametrize("batched", ["g", "x", "gx"])
def test_vmap_of_the_other_contractions(batched, missing):
    basis = cases.build("piecewise_lagrange-continuous-linear")
    x, w, _ = (t.detach() for t in operands(basis))
    g = torch.randn(1, 3, 2, dtype=torch.float64)
    dims = tuple(0 if name in batched else None for name in "xg")
    inputs = [
        t if d is None else torch.stack([t, -t, 2 * t]) for t, d in zip((x[None], g), dims, strict=True)
    ]
    if missing == "s":
        f = lambda x, g: functional.sum_outputs(x, w[None], basis, g)  # noqa: E731
    else:
        f = lambda x, g: functional.sum_batch(x, g, basis)  # noqa: E731
    rows = [[t if d is None else t[v] for t, d in zip(inputs, dims, strict=True)] for v in range(3)]
    torch.testing.assert_close(vmap(f, dims)(*inputs), torch.stack([f(*row) for row in rows]))


def test_inputs_that_need_no_gradient_get_none():
    basis = cases.build("bspline-linear")
    x, w, _ = operands(basis)
    link(x.detach(), w, basis).sum().backward()
    assert x.grad is None and w.grad is not None


def test_a_constant_basis_gives_zero_gradients_not_none():
    basis = cases.build("piecewise_lagrange-constant-linear")
    x, w, _ = operands(basis)
    link(x, w, basis).sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_weights_with_outputs_first():
    """The peers' layout goes through a transposition of its own: any order, every transform."""
    basis = cases.build("piecewise_lagrange-continuous-linear")
    x, w, _ = operands(basis)
    peer = w.detach().permute(2, 0, 1).contiguous().requires_grad_()
    f = lambda x, p: link(x, p.permute(1, 2, 0), basis).sin()  # noqa: E731
    torch.testing.assert_close(f(x, peer), link(x, w, basis).sin())
    assert gradcheck(f, (x, peer), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(f, (x, peer), check_fwd_over_rev=True)
    (gradient,) = torch.autograd.grad(f(x, peer).sum(), peer)
    assert gradient.is_contiguous()
    stacked = torch.stack([peer, -peer]).detach()
    torch.testing.assert_close(vmap(f, (None, 0))(x, stacked), torch.stack([f(x, p) for p in stacked]))
    total = lambda p: f(x.detach(), p).sum()  # noqa: E731
    torch.testing.assert_close(jacfwd(jacfwd(total))(peer.detach()), hessian(total)(peer.detach()))
    compiled = torch.compile(f, fullgraph=True)
    (other,) = torch.autograd.grad(compiled(x, peer).sum(), peer)
    torch.testing.assert_close(other, gradient)
    torch.library.opcheck(
        torch.ops.high_order_fused.transpose.default, (torch.rand(2, 3, 5, requires_grad=True),)
    )


def test_caches_do_not_outlive_a_transform():
    """The first call inside a transform, or in inference mode, then ordinary ones."""
    import pickle

    from high_order_fused import HighOrderLinear, bases
    from high_order_fused.kan import KANLinear

    x = torch.rand(4, 3)
    for make in (
        lambda: KANLinear(3, 2),
        lambda: pickle.loads(pickle.dumps(HighOrderLinear(3, 2, bases.lagrange(3)))),
    ):
        for first in ("hessian", "inference", "jvp"):
            layer = make()
            if first == "hessian":
                hessian(lambda v, layer=layer: layer(v).sum())(x[0])
            elif first == "jvp":
                jvp(layer, (x,), (x,))
            else:
                with torch.inference_mode():
                    layer(x)
            parameters = dict(layer.named_parameters())
            call = lambda p, layer=layer: torch.func.functional_call(layer, p, (x,)).sum()  # noqa: E731
            by_transform = grad(call)(parameters)
            layer(x).sum().backward()
            for name, parameter in layer.named_parameters():
                torch.testing.assert_close(by_transform[name], parameter.grad)
            torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))


def test_tangents_of_cotangents_pass_the_packing():
    basis = cases.build("piecewise_lagrange-continuous-linear")
    x, w, _ = operands(basis)
    peer = w.detach().permute(2, 0, 1).contiguous().requires_grad_()
    y = link(x.detach(), peer.permute(1, 2, 0), basis)
    v, t = torch.randn_like(y), torch.randn_like(y)
    pull = lambda v: torch.autograd.grad(y, peer, v, retain_graph=True)[0]  # noqa: E731
    torch.testing.assert_close(jvp(pull, (v,), (t,))[1], pull(t))


@pytest.mark.parametrize("groups", [(), (2,)], ids=["one group", "two groups"])
@pytest.mark.parametrize("outputs_first", [True, False])
def test_gain_multiplies_each_edge(groups, outputs_first):
    """Both layouts: one goes through the backend's transposition with a factor, one through torch."""
    basis = cases.build("piecewise_lagrange-continuous-linear")
    x = torch.rand(*groups, 5, 3, dtype=torch.float64, requires_grad=True)
    inputs, outputs = 3, 18  # more than a vector, and some more
    if outputs_first:
        w = torch.randn(*groups, outputs, inputs, basis.size, dtype=torch.float64).movedim(-3, -1)
        gain = torch.randn(*groups, outputs, inputs, dtype=torch.float64).mT
    else:
        w = torch.randn(*groups, inputs, basis.size, outputs, dtype=torch.float64)
        gain = torch.randn(*groups, inputs, outputs, dtype=torch.float64)
    w, gain = w.requires_grad_(), gain.requires_grad_()
    y = link(x, w, basis, gain=gain)
    expected = link(x, w * gain.unsqueeze(-2), basis)
    torch.testing.assert_close(y, expected)
    cotangent = torch.randn_like(y)
    actual = torch.autograd.grad(y, (x, w, gain), cotangent)
    for a, b in zip(actual, torch.autograd.grad(expected, (x, w, gain), cotangent), strict=True):
        torch.testing.assert_close(a, b)
    only = torch.autograd.grad(link(x, w, basis, gain=gain), gain, cotangent)[0]
    torch.testing.assert_close(only, actual[2])


@pytest.mark.parametrize("outputs_first", [True, False])
def test_gain_to_second_order(outputs_first):
    basis = cases.build("bspline-knots-zero")
    x, w, s = operands(basis)
    gain = torch.randn(w.shape[0], 2, dtype=torch.float64, requires_grad=True)
    if outputs_first:
        w = w.detach().movedim(-1, 0).contiguous().movedim(0, -1).requires_grad_()
        gain = gain.detach().T.contiguous().T.requires_grad_()
    function = lambda x, w, s, gain: link(x, w, basis, s, gain)  # noqa: E731
    assert gradcheck(function, (x, w, s, gain), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(function, (x, w, s, gain), check_fwd_over_rev=True)


@pytest.mark.parametrize("groups", [(), (2,)], ids=["one group", "two groups"])
@pytest.mark.parametrize("rows", [(5,), (2, 4)], ids=["rows", "rows of rows"])
@pytest.mark.parametrize("given", [True, False], ids=["values", "silu"])
def test_base_is_a_branch_beside_the_functions(groups, rows, given):
    """Of the value and of every gradient, all at once and each by itself."""
    basis = cases.build("bspline-knots-zero")
    x, base = (torch.randn(*groups, *rows, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    w = torch.randn(*groups, 3, basis.size, 4, dtype=torch.float64, requires_grad=True)
    branch = torch.randn(*groups, 4, 3, dtype=torch.float64, requires_grad=True)
    operands_of = (x, w, branch, base) if given else (x, w, branch)
    function = lambda x, w, branch, base=None: link(x, w, basis, base=base, base_weight=branch)  # noqa: E731
    y, values = function(*operands_of), base if given else torch.nn.functional.silu(x)
    expected = link(x, w, basis) + (values.flatten(len(groups), -2) @ branch.mT).reshape(y.shape)
    torch.testing.assert_close(y, expected)
    cotangent = torch.randn_like(y)
    actual = torch.autograd.grad(y, operands_of, cotangent, retain_graph=True)
    for a, b in zip(actual, torch.autograd.grad(expected, operands_of, cotangent), strict=True):
        torch.testing.assert_close(a, b)
    for t, a in zip(operands_of, actual, strict=True):
        for some in (lambda other, t=t: other is t, lambda other, t=t: other is t or other is x):
            others = [other if some(other) else other.detach() for other in operands_of]
            torch.testing.assert_close(torch.autograd.grad(function(*others), t, cotangent)[0], a)


@pytest.mark.parametrize("groups", [(), (2,)], ids=["one group", "two groups"])
def test_silu_to_second_order(groups):
    basis = cases.build("bspline-knots-zero")
    x, s = (torch.randn(*groups, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    w = torch.randn(*groups, 3, basis.size, 2, dtype=torch.float64, requires_grad=True)
    branch = torch.randn(*groups, 2, 3, dtype=torch.float64, requires_grad=True)
    for scale in (None, s):
        function = lambda x, w, v, scale=scale: link(x, w, basis, scale, base_weight=v)  # noqa: E731
        assert gradcheck(function, (x, w, branch), check_forward_ad=True, check_batched_grad=True)
        assert gradgradcheck(function, (x, w, branch), check_fwd_over_rev=True)


@pytest.mark.parametrize("groups", [(), (2,)], ids=["one group", "two groups"])
def test_base_to_second_order(groups):
    basis = cases.build("bspline-knots-zero")
    x, base, s = (torch.rand(*groups, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    w = torch.randn(*groups, 3, basis.size, 2, dtype=torch.float64, requires_grad=True)
    branch = torch.randn(*groups, 2, 3, dtype=torch.float64, requires_grad=True)
    for scale in (None, s):
        function = lambda x, w, b, v, scale=scale: link(x, w, basis, scale, base=b, base_weight=v)  # noqa: E731
        assert gradcheck(function, (x, w, base, branch), check_forward_ad=True, check_batched_grad=True)
        assert gradgradcheck(function, (x, w, base, branch), check_fwd_over_rev=True)
