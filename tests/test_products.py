"""Product layers: every backend against explicit products, derivatives of any order, the peer."""

import io

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import hessian, jacrev, jvp, vmap

import high_order_fused as hof
from high_order_fused import cpu
from high_order_fused.backends import _registered, get
from high_order_fused.basis import lookup_dtype
from high_order_fused.functional import product
from high_order_fused.layers import high_order_fc_layers
from tests import cases, support
from tests.support import difference, golden, golden_names, sample, seeds

BACKENDS = list(_registered)
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
SHAPES = {
    "ragged": (2, 17, 5, 3),
    "one": (1, 1, 1, 1),
    "one output": (1, 9, 6, 1),
    "wide": (1, 5, 20, 131),
    "long": (1, 300, 3, 2),
    "no rows": (2, 0, 4, 2),
    "no outputs": (1, 3, 4, 0),
}


def explicit(x, w, basis):
    """prod_i (1 + f_oi) in float64, from tabulated functions."""
    phi = basis.tabulate(x.double())
    return torch.einsum("ebik,eiko->ebio", phi, w.double()).add(1).prod(2)


def tensors(basis, shape, dtype):
    groups, batch, inputs, outputs = shape
    inputs = basis.inputs or inputs
    w = (0.1 / inputs * cases.normal(groups, inputs, basis.size, outputs)).to(dtype)
    g = cases.normal(groups, batch, outputs, dtype=dtype)
    return cases.points(groups, batch, inputs, dtype=dtype, spread=1.4), w, g


def compare(backend, basis, x, w, g, tolerance):
    a, b = (t.detach().double().requires_grad_() for t in (x, w))
    y = explicit(a, b, basis)
    expected = (y, *torch.autograd.grad(y, (a, b), g.double()))
    operands = basis.operands(lookup_dtype(x), x.device)
    actual = (
        get(backend).product(x, w, operands),
        *get(backend).product_gradients(g, x, w, operands),
    )
    for found, truth, like in zip(actual, expected, (w, x, w), strict=True):
        assert found.dtype == like.dtype
        assert difference(found, truth) < tolerance


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", cases.CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_kernels(backend, case, dtype):
    basis = cases.build(case)
    compare(backend, basis, *tensors(basis, (2, 9, 5, 4), dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "case", ["piecewise_lagrange-continuous-linear", "lagrange-extrapolate", "bspline-zero"]
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_shapes(backend, case, shape):
    basis = cases.build(case)
    compare(backend, basis, *tensors(basis, SHAPES[shape], torch.float32), 1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_strides(backend):
    basis = cases.build("bspline-zero")
    x, w, g = tensors(basis, (2, 7, 5, 3), torch.float64)
    x = x.transpose(1, 2).contiguous().transpose(1, 2)
    w = w.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    g = torch.stack([g, g], -1)[..., 0]
    compare(backend, basis, x, w, g, 1e-12)
    compare(backend, basis, x[:, :1].expand(-1, 7, -1), w, g[:, :1].expand(-1, 7, -1), 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_factors_that_are_zero(backend):
    """One factor 0, two factors 0, in some outputs: derivatives need the products of the others."""
    basis = hof.bases.lagrange(3, outside="extrapolate")
    x, w, g = tensors(basis, (1, 6, 4, 5), torch.float64)
    x[0, :, 1:3] = 1  # the last node, where the other functions are 0
    w[0, 1, -1, :3], w[0, 2, -1, 2] = -1, -1
    compare(backend, basis, x, w, g, 1e-12)
    with hof.use_backend(backend):
        y = product(x, w, basis)
    assert torch.all(y[..., :3] == -1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_wild_inputs(backend):
    basis = cases.build("bspline-clamp")
    x, w, g = tensors(basis, (1, 6, 3, 2), torch.float32)
    x[0, 1, 0], x[0, 2, 1], x[0, 3, 2] = torch.nan, torch.inf, -torch.inf
    operands = basis.operands(torch.float32, x.device)
    y = get(backend).product(x, w, operands)
    of_x, of_w = get(backend).product_gradients(g, x, w, operands)
    assert y[0, 1].isnan().all() and y[0, [0, 2, 3, 4, 5]].isfinite().all()
    assert of_x[0, [0, 2, 3, 4, 5]].isfinite().all() and of_w.isnan().any()


def test_instruction_sets_and_threads(isa):
    basis = cases.build("piecewise_lagrange-continuous-linear")
    x, w, g = tensors(basis, (2, 530, 33, 70), torch.float32)
    operands, threads = basis.operands(torch.float32, x.device), torch.get_num_threads()
    compare("cpu", basis, x, w, g, 1e-5)
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append((cpu.product(x, w, operands), *cpu.product_gradients(g, x, w, operands)))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def smooth(case="piecewise_lagrange-continuous-linear", rows=3, outputs=2):
    basis = cases.build(case)
    inputs = basis.inputs or 3
    x = cases.points(rows, inputs)
    near = (x[..., None] - basis.knots.flatten().to(x)).abs().amin(-1) < 1e-3
    x = torch.where(near, x + 3e-3, x).requires_grad_()
    return basis, x, cases.normal(inputs, basis.size, outputs).requires_grad_()


@pytest.mark.parametrize("case", sample(cases.CASES, 3))
def test_first_and_second_order(case):
    basis, x, w = smooth(case)
    assert gradcheck(lambda x, w: product(x, w, basis, 0.3), (x, w), check_forward_ad=True)
    assert gradgradcheck(lambda x, w: product(x, w, basis), (x, w))


def test_third_order():
    basis, x, w = smooth(rows=2, outputs=1)

    def second(x, w):
        return torch.autograd.grad(product(x, w, basis).sin().sum(), x, create_graph=True)[0]

    assert gradgradcheck(second, (x, w))


def test_gradients_where_one_operand_alone_wants_them():
    basis, x, w = smooth()
    both = torch.autograd.grad(product(x, w, basis).sum(), (x, w))
    assert difference(torch.autograd.grad(product(x, w.detach(), basis).sum(), x)[0], both[0]) == 0
    assert difference(torch.autograd.grad(product(x.detach(), w, basis).sum(), w)[0], both[1]) == 0
    again = torch.autograd.grad(product(x, w.detach(), basis).sum(), x, create_graph=True)[0]
    assert difference(again, both[0]) < 1e-12 and again.requires_grad


def test_transforms():
    basis, x, w = smooth()
    x, w = x.detach(), w.detach()
    f = lambda x: product(x, w, basis)  # noqa: E731
    jacobian = jacrev(f)(x)
    tangent = torch.randn_like(x)
    _, out = jvp(f, (x,), (tangent,))
    assert difference(out, torch.einsum("bocd,cd->bo", jacobian, tangent)) < 1e-10
    assert difference(vmap(f)(x), f(x)) < 1e-12
    assert (
        difference(vmap(lambda w: product(x, w, basis))(torch.stack([w, 2 * w]))[1], product(x, 2 * w, basis))
        < 1e-12
    )
    assert hessian(lambda x: f(x).sum())(x).isfinite().all()


@pytest.mark.parametrize("operator", ["product", "product_gradients"])
def test_opcheck(operator):
    basis = cases.build("bspline-knots-zero")
    x, w, g = tensors(basis, (2, 5, 3, 3), torch.float64)
    operands = basis.operands(torch.float64, x.device)
    rest = (*operands.tensors, list(operands.layout), "reference", [])
    arguments = (x.requires_grad_(), w.requires_grad_(), *rest)
    if operator == "product_gradients":
        arguments = (g, x.detach(), w.detach(), *rest, True, False)
    torch.library.opcheck(getattr(torch.ops.high_order_fused, operator).default, arguments)


def test_compile_and_export():
    layer = hof.HighOrderProduct(4, 3, hof.bases.piecewise_lagrange(3, 4), alpha=0.5)
    compiled = torch.compile(layer, fullgraph=True)
    for rows in (5, 9, 12):
        x = torch.rand(rows, 4, requires_grad=True)
        for actual, expected in zip(
            (compiled(x), *torch.autograd.grad(compiled(x).sum(), (x, layer.weight))),
            (layer(x), *torch.autograd.grad(layer(x).sum(), (x, layer.weight))),
            strict=True,
        ):
            assert difference(actual, expected) < 1e-6
    program = torch.export.export(layer, (torch.rand(5, 4),), dynamic_shapes=({0: torch.export.Dim("rows")},))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    x = torch.rand(7, 4)
    assert difference(torch.export.load(file).module()(x), layer(x)) < 1e-6


def test_alpha_groups_and_leading_dimensions():
    basis = hof.bases.lagrange(3)
    x, w = cases.points(2, 4, 5, 3), cases.normal(2, 3, 3, 2)
    y = product(x, w, basis, 0.25)
    for e in range(2):
        edges = torch.einsum("abik,iko->abio", basis.tabulate(x[e]), w[e])
        expected = (1 + edges).prod(2) - 1 + 0.75 * edges.sum(2)
        assert difference(y[e], expected) < 1e-12


def test_bad_arguments():
    basis = hof.bases.lagrange(3)
    with pytest.raises(ValueError, match=r"weight: got shape \(2, 4, 5\), needs K = 3"):
        product(torch.rand(7, 2), torch.rand(2, 4, 5), basis)
    with pytest.raises(ValueError, match=r"x: got shape \(7, 3\)"):
        product(torch.rand(7, 3), torch.rand(2, 3, 5), basis)
    with pytest.raises(TypeError, match=r"weight: got torch\.float64"):
        product(torch.rand(7, 2), torch.rand(2, 3, 5).double(), basis)


# ---- the peer


@pytest.mark.parametrize("name", [*golden_names("hol-fc-*_prod-*"), *golden_names("hol-fc-product-*")])
def test_golden(name):
    meta, values = golden(name)
    layer = high_order_fc_layers(meta["layer_type"], **meta["kwargs"]).to(support.DEVICE)
    layer.load_state_dict(values["state"], strict=True)
    x = values["x"].clone().requires_grad_()
    y = layer(x)
    y.backward(values["g"])
    found = {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
    assert found.keys() == values["grad"].keys()
    assert difference(y, values["y"]) < 1e-4 and difference(x.grad, values["grad_x"]) < 1e-4
    for key, expected in values["grad"].items():
        assert difference(found[key], expected) < 1e-4, key


def counted(shape):
    k = torch.arange(torch.Size(shape).numel())
    return (((7 * k) % 11 - 5) / 5).view(shape)


@pytest.mark.parametrize(
    ("kind", "kwargs", "y", "dx"),
    [
        (
            "continuous_prod",
            {"n": 3, "segments": 2},
            [-1, 0.0914, -0.697984],
            [(1.28, 0), (9.095, 0.096), (-6.36064, 1.08768)],
        ),
        (
            "discontinuous_prod",
            {"n": 3, "segments": 2},
            [-1, 0.84, -0.9872],
            [(5.6, 0), (-1.472, -3.2), (-0.256, -0.128)],
        ),
        ("product", {}, [1.49, 0.07, -1.022], [(-1.12, 0.8), (-0.82, 0.4), (-1.36, -0.08)]),
        ("product", {"alpha": 0.3}, [0.706, 0.196, -0.434], [(-0.42, 0.52), (-0.12, 0.12), (-0.66, -0.36)]),
    ],
)
def test_by_hand(kind, kwargs, y, dx):
    layer = high_order_fc_layers(kind, in_features=2, out_features=1, **kwargs)
    weight = layer.weight if kind == "product" else layer.w
    weight.data = counted(weight.shape)
    if kind == "product":
        layer.bias.data.fill_(0.25)
    x = torch.tensor([[-1.0, 0.3], [0.0, -0.45], [1.2, 0.9]], requires_grad=True)
    out = layer(x)
    out.sum().backward()
    torch.testing.assert_close(out[:, 0], torch.tensor(y), rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(x.grad, torch.tensor(dx, dtype=torch.float32), rtol=1e-5, atol=6e-6)


def test_a_polynomial_product_is_what_the_peer_meant():
    layer = high_order_fc_layers("polynomial_prod", n=4, in_features=3, out_features=2)
    torch.nn.init.normal_(layer.w)
    assert layer.state_dict().keys() == {"w", "result"}
    x = torch.rand(5, 3) * 2 - 1
    edges = torch.einsum("bik,oik->bio", layer.basis.tabulate(x), layer.w)
    assert difference(layer(x), (1 + edges).prod(1) - 1) < 1e-5


def test_product_without_bias():
    layer = high_order_fc_layers("product", in_features=3, out_features=2, bias=False)
    x = torch.rand(5, 3)
    assert difference(layer(x), (1 + x[:, None] * layer.weight).prod(-1) - 1) < 1e-6


@pytest.mark.parametrize("seed", seeds(300))
def test_live(seed):
    """As many random configurations of each kind as the peer can build, from the same seed."""
    peer = pytest.importorskip("high_order_layers_torch.layers", reason="the peer is not installed")
    generator = torch.Generator().manual_seed(seed)

    def pick(*options):
        return options[int(torch.randint(len(options), (), generator=generator))]

    kind = ("continuous_prod", "discontinuous_prod", "product")[seed % 3]
    arguments = {"n": pick(1, 2, 3, 4, 5), "segments": pick(1, 2, 3, 5, 8), "in_features": pick(1, 2, 5, 9)}
    arguments |= {"out_features": pick(1, 3, 8), "periodicity": pick(None, None, 2.0)}
    arguments |= {"length": pick(2.0, 2.0, 4.0)} if kind != "product" else {"alpha": pick(1.0, 0.4)}
    torch.manual_seed(seed)
    theirs = peer.high_order_fc_layers(layer_type=kind, **arguments)
    torch.manual_seed(seed)
    ours = high_order_fc_layers(kind, **arguments)
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), "initialisation differs"
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.5 / arguments["in_features"])
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.rand(pick(1, 4, 17), arguments["in_features"], generator=generator) * 2.2 - 1.1
    g = torch.randn(x.shape[0], arguments["out_features"], generator=generator)
    x, g = x.double(), g.double()  # in float32 a gradient of one number may be little but rounding
    results = []
    for layer in (theirs.double(), ours.double()):
        point = x.clone().requires_grad_()
        y = layer(point)
        leaves = (point, *layer.parameters())
        found = torch.autograd.grad(y, leaves, g, allow_unused=True)
        pairs = zip(found, leaves, strict=True)
        results.append((y, *(torch.zeros_like(t) if d is None else d for d, t in pairs)))
    for actual, expected in zip(results[1], results[0], strict=True):
        assert difference(actual, expected) < 1e-5  # the peer's nodes are of float32
