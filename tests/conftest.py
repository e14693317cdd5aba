"""Every test runs with uninitialised memory filled with NaN, deterministic algorithms and one seed."""

import os

import pytest
import torch

import high_order_fused as hof
from high_order_fused import cpu, native
from tests import support

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # products on a GPU that are deterministic


def pytest_addoption(parser):
    parser.addoption("--isa", help="run the C++ kernels with these instructions: baseline, avx2 or avx512")
    parser.addoption("--backend", default="auto", help="the backend of tests that do not choose one")
    parser.addoption("--device", default="cpu", help="where the tests of results have their tensors")
    parser.addoption("--default-device", action="store_true", help="make that torch's default device, too")
    parser.addoption("--part", default="0/1", metavar="I/N", help="of every N tests the one after I others")


def pytest_configure(config):
    support.DEVICE = torch.device(config.getoption("--device"))
    if config.getoption("--default-device"):
        torch.set_default_device(support.DEVICE)


@pytest.hookimpl(trylast=True)  # of those that -k and -m leave
def pytest_collection_modifyitems(config, items):
    part, parts = map(int, config.getoption("--part").split("/"))
    items[:] = items[part::parts]


@pytest.fixture(autouse=True, scope="session")
def _isa(request):
    isa = request.config.getoption("--isa")
    if isa is None:
        yield
    else:
        with cpu.use_isa(isa):
            yield


@pytest.fixture(params=cpu.ISAS)
def isa(request):
    """The instruction sets of the C++ kernels, one after the other, where the processor has them."""
    if native.native_missing() is not None:
        pytest.skip(f"native: {native.native_missing()}")
    if cpu.ISAS.index(request.param) > torch.ops.high_order_fused.cpu_isa():
        pytest.skip(f"this processor has no {request.param}")
    with cpu.use_isa(request.param):
        yield request.param


@pytest.fixture(autouse=True, scope="session")
def _backend(request):
    with hof.use_backend(request.config.getoption("--backend")):
        yield


@pytest.fixture(autouse=True)
def _strict():
    torch.manual_seed(0)
    torch._dynamo.reset()
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_default_dtype(torch.float32)
