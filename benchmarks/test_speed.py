"""The same cases under pytest-benchmark: `pytest benchmarks/`; -k picks cases, contenders, modes by name."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from .cases import CASES, Case
from .rivals import OURS, NotMeasured, build, data, rivals
from .step import MODES, forward, repeatable

CONTENDERS = [(case, name) for case in CASES for name in (OURS, *(rival.name for rival in rivals(case)))]


@pytest.mark.benchmark(max_time=0.3, min_rounds=3, disable_gc=True, warmup=False)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("case", "name"), CONTENDERS, ids=[f"{case.name}-{name}" for case, name in CONTENDERS]
)
def test_speed(benchmark: Any, case: Case, name: str, mode: str) -> None:
    """Time one contender in one mode; the group of a case and mode makes a table."""
    benchmark.group = f"{case.name}, {mode}"
    device = torch.device("cpu")
    try:
        module = build(case, name, device)
    except NotMeasured as reason:
        pytest.skip(f"not measured: {reason}")
    x, cotangent = data(case, device)
    run: Callable[[], object] = partial(forward, module, x)
    if mode == "forward_backward":
        run = repeatable(module, x, cotangent)
    run()
    benchmark(run)
