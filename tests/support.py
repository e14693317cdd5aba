"""What several tests share: the device, the norm-wise difference and the golden files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

DATA = Path(__file__).parent / "data"
DEVICE = torch.device("cpu")  # of the tests of results; conftest.py sets it


def difference(actual, expected):
    """max |actual - expected| / max |expected|, in float64; 0 / 0 is 0."""
    actual, expected = actual.detach().double(), expected.detach().double()
    assert actual.shape == expected.shape
    if expected.numel() == 0:
        return 0.0
    largest, apart = expected.abs().max().item(), (actual - expected).abs().max().item()
    return apart / largest if largest > 0 else apart


def seeds(number):
    """Random configurations: a fifth of them in `make test`, all in `make test-all`."""
    few = number // 5
    return [*range(few), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(few, number))]


def sample(values, every):
    """One of so many in `make test`, all in `make test-all`."""
    return [v if k % every == 0 else pytest.param(v, marks=pytest.mark.slow) for k, v in enumerate(values)]


def golden_names(pattern):
    names = sorted(path.stem for path in DATA.glob(f"{pattern}.npz"))
    assert names, f"no golden file matches {pattern}"
    return names


def golden(name):
    """Meta data, and tensors by name: x, y, g, grad_x, state {...}, grad {...}."""
    with np.load(DATA / f"{name}.npz") as file:
        meta = json.loads(str(file["meta"]))
        tensors = {key: torch.from_numpy(file[key]).to(DEVICE) for key in file.files if key != "meta"}
    groups = {
        group: {key.split("/", 1)[1]: value for key, value in tensors.items() if key.startswith(f"{group}/")}
        for group in ("state", "grad")
    }
    return meta, {key: value for key, value in tensors.items() if "/" not in key} | groups
