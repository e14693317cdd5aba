"""Every test runs with uninitialised memory filled with NaN, deterministic algorithms and one seed."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _strict():
    torch.manual_seed(0)
    torch._dynamo.reset()
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_default_dtype(torch.float32)
