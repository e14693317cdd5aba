"""The CUDA library: what is built and what nvcc says of it, which kernel runs, what it says without a GPU."""

import functools
import importlib
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch

import high_order_fused as hof
from high_order_fused import cuda, native

SOURCES = Path(__file__).parent.parent / "csrc" / "cuda"
LIBRARY = Path(native.__file__).with_name("_cuda.abi3.so")
CPU = torch.device("cpu")


@pytest.fixture
def nvcc(monkeypatch):
    """csrc/cuda/nvcc.py, by which setup.py builds."""
    for name in ("HOF_CUDA_TARGETS", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # csrc holds sources alone
    monkeypatch.syspath_prepend(SOURCES)
    return importlib.import_module("nvcc")


def test_the_cost_model():
    """Few rows, or many functions, gather; full tiles of few functions multiply; sums fill the device."""

    def chosen(contraction, basis, batch, inputs=256, outputs=256):
        return cuda.chosen(
            contraction, torch.empty(1, batch, inputs), outputs, basis.operands(torch.float32, CPU)
        )

    spline, fine = hof.bases.bspline(3, 5), hof.bases.piecewise_lagrange(4, 50)
    for contraction in range(3):
        assert chosen(contraction, fine, 4096).gather and not chosen(contraction, spline, 4096).gather
    one = chosen(0, spline, 1)
    assert one.gather and one.parts > 1 and chosen(0, spline, 4096).parts == 1
    for contraction in range(2):  # a gather would have more blocks than a launch may
        rows = torch.empty(1).expand(1, 2**31, 1)
        assert not cuda.chosen(contraction, rows, 1, spline.operands(torch.float32, CPU)).gather
        assert cuda.chosen(contraction, rows[:, :4096], 1, spline.operands(torch.float32, CPU)).gather
    assert chosen(1, spline, 1).parts == 1 and chosen(2, spline, 4096, 1, 1).parts > 1


@pytest.mark.skipif(os.environ.get("HOF_NATIVE") == "0", reason="native parts are switched off")
def test_where_nvcc_is_the_library_could_be_built(nvcc):
    reason = native.load("_cuda")
    if nvcc.missing() is None and reason is not None:
        assert reason == "not built" or "switched off" in reason


def test_without_a_device_it_says_so():
    status = hof.backends()["cuda"]
    if status.available:
        pytest.skip("there is a device")
    expected = r"no device \(cudaError\w+\)" if LIBRARY.exists() else "the compiled library is missing: ."
    assert re.match(expected, status.detail)
    with pytest.raises(ValueError, match="name: got 'cuda' "), hof.use_backend("cuda"):
        pass


def test_targets_are_chosen_at_installation(nvcc, monkeypatch):
    assert nvcc.targets() == ["sm_80", "sm_90a", "sm_100", "compute_100"]
    monkeypatch.setenv("HOF_CUDA_TARGETS", "sm_89, compute_90")
    assert nvcc.targets() == ["sm_89", "compute_90"]
    monkeypatch.setenv("HOF_CUDA_TARGETS", "")
    assert nvcc.targets() == [] and "HOF_CUDA_TARGETS" in nvcc.missing()


@pytest.mark.skipif(os.name == "nt", reason="not built on Windows")
def test_nvcc_is_found_where_it_is_named(nvcc, monkeypatch, tmp_path):
    compiler = tmp_path / "bin" / "nvcc"
    compiler.parent.mkdir()
    compiler.touch()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert nvcc.find() == compiler and nvcc.missing() is None
    monkeypatch.delenv("CUDA_HOME")
    monkeypatch.setattr(nvcc.shutil, "which", lambda name: None)
    monkeypatch.setattr(nvcc.Path, "is_file", lambda path: False)
    assert nvcc.find() is None and "no nvcc was found" in nvcc.missing()


def budget():
    return json.loads((SOURCES / "budget.json").read_text())


@functools.cache
def usage():
    """Of each kernel and target in the library: registers, bytes on the stack, bytes of shared memory."""
    triton = pytest.importorskip("triton", reason="triton, which brings cuobjdump, is not installed")
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not LIBRARY.exists():
        pytest.skip(hof.backends()["cuda"].detail)
    text = subprocess.run([tool, "-res-usage", LIBRARY], capture_output=True, text=True, check=True).stdout
    found, target = defaultdict(dict), None
    for line in text.splitlines():
        if match := re.match(r"arch = (\w+)", line):
            target = match[1]
        elif match := re.search(r"Function _ZN3hof4cuda\d+(\w+?)I([fd])E", line):
            name = f"{match[1]}<{'float' if match[2] == 'f' else 'double'}>"
        elif numbers := re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+)", line):
            found[name][target] = [int(number) for number in numbers.groups()]
    return found


def test_kernels_keep_within_their_budget():
    """csrc/cuda/budget.json has the most that each may use; none may spill."""
    found = usage()
    assert set(found) == set(budget()["kernels"])
    for name, targets in found.items():
        for target, numbers in targets.items():
            most = budget()["kernels"][name][target]
            assert all(map(int.__le__, numbers, most)) and numbers[1] == 0, (name, target, numbers, most)
