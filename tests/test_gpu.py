"""What only a GPU shows: graphs, compilation and export there, launches, waiting, memory."""

import io

import pytest
import torch

import high_order_fused as hof
from tests.support import difference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
LAYERS = {
    "piecewise": lambda: hof.HighOrderLinear(24, 40, hof.bases.piecewise_lagrange(4, 5)),
    "polynomial": lambda: hof.HighOrderLinear(24, 40, hof.bases.lagrange(4)),
    "fourier": lambda: hof.HighOrderLinear(24, 40, hof.bases.fourier(5)),
    "kan": lambda: hof.kan.KANLinear(24, 40),
    "product": lambda: hof.HighOrderProduct(24, 40, hof.bases.piecewise_lagrange(3, 4)),
    "peer": lambda: hof.layers.high_order_fc_layers(
        "continuous", n=3, in_features=24, out_features=40, segments=4
    ),
}


@pytest.fixture(params=LAYERS)
def layer(request):
    built = LAYERS[request.param]()
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.1 if request.param == "product" else 1.0)
    return built.to("cuda")


def inputs(rows=100):
    return 2.4 * torch.rand(rows, 24, device="cuda") - 1.2


def step(function, x, leaves):
    """Output and gradients of x and leaves."""
    x = x.detach().requires_grad_()
    y = function(x)
    return y.detach(), *torch.autograd.grad(y.square().sum(), (x, *leaves))


def assert_same(actual, expected, tolerance=1e-5):
    for a, e in zip(actual, expected, strict=True):
        assert difference(a.cpu(), e.cpu()) < tolerance


def test_it_is_what_the_reference_computes(layer):
    x = inputs()
    assert hof.explain(layer, x)[0].backend.startswith("triton")
    actual = step(layer, x, list(layer.parameters()))
    layer.cpu()
    with hof.use_backend("reference"):
        assert_same(actual, step(layer, x.cpu(), list(layer.parameters())))


def test_nothing_waits_for_the_device(layer):
    x = inputs()
    step(layer, x, list(layer.parameters()))
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(layer, x, list(layer.parameters()))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@torch.no_grad()
def test_a_captured_graph_replays(layer):
    x = inputs()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            layer(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = layer(x)
    for _ in range(2):
        x.copy_(inputs())
        graph.replay()
        assert torch.equal(y, layer(x))


def test_a_captured_training_step(layer):
    captured = torch.cuda.make_graphed_callables(layer, (inputs().requires_grad_(),))
    x = inputs()
    parameters = list(layer.parameters())
    with_graph = step(captured, x, parameters)
    captured.eval()  # of a module captured for training, eval runs the layer itself
    assert_same(with_graph, step(captured, x, parameters))


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled(layer, mode):
    compiled = torch.compile(layer, fullgraph=True, mode=mode)
    parameters = list(layer.parameters())
    for rows in (100, 100, 64):
        x = inputs(rows)
        assert_same(step(compiled, x, parameters), step(layer, x, parameters))


def test_exported(layer):
    program = torch.export.export(layer, (inputs(),), dynamic_shapes=({0: torch.export.Dim("rows")},))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for rows in (100, 7):
        x = inputs(rows)
        assert_same([loaded(x)], [layer(x)])


@torch.no_grad()
def test_a_forward_is_one_launch(monkeypatch):
    """Of a small layer; of a large one the functions and the library's, which may cut its sum and add up."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    for basis in (hof.bases.lagrange(4), hof.bases.piecewise_lagrange(4, 5), hof.bases.bspline(3, 5)):
        layer = hof.HighOrderLinear(256, 256, basis).to("cuda")
        small, large = kernels_of(layer, 256), kernels_of(layer, 4096)
        assert len(small) == 1 and "sum_inputs" in small[0], small
        assert len(large) in (2, 3) and "expand" in large[0], large


def kernels_of(layer, rows):
    """Names, in their order."""
    x = torch.rand(rows, 256, device="cuda")
    layer(x)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        layer(x)
        torch.cuda.synchronize()
    return [e.name for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]


@pytest.mark.parametrize(("kind", "room"), [(hof.HighOrderLinear, 80), (hof.HighOrderProduct, 64)])
def test_memory_of_a_step(kind, room):
    """Outputs, gradients and some MiB: nothing of batch x in x out, nor of batch x in x functions."""
    layer = kind(256, 256, hof.bases.piecewise_lagrange(4, 8)).to("cuda")
    x = torch.rand(8192, 256, device="cuda")
    results = step(layer, x, [layer.weight])
    owed = sum(t.nbytes for t in results) + results[0].nbytes  # and the cotangent
    del results
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(layer, x, [layer.weight])
    assert torch.cuda.max_memory_allocated() - before < owed + room * 2**20


def test_results_are_the_same_every_time(layer):
    x = inputs(4099)
    first = step(layer, x, list(layer.parameters()))
    for a, b in zip(first, step(layer, x, list(layer.parameters())), strict=True):
        assert torch.equal(a, b)


def test_products_are_rounded_only_where_torch_may():
    layer = hof.HighOrderLinear(256, 64, hof.bases.lagrange(4)).to("cuda")
    torch.nn.init.normal_(layer.weight)
    x = torch.rand(512, 256, device="cuda")
    exact = step(layer.double(), x.double(), [layer.weight])
    layer.float()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        assert_same(step(layer, x, [layer.weight]), exact, 1e-5)
        torch.set_float32_matmul_precision("high")
        assert_same(step(layer, x, [layer.weight]), exact, 2e-3)
    finally:
        torch.set_float32_matmul_precision(before)


def test_operands_on_two_devices_are_refused(layer):
    with pytest.raises(ValueError, match="device"):
        layer(inputs().cpu())
