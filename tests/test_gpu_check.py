"""The command for machines with a GPU, as far as it can be followed without one."""

import json
import os
import subprocess
import sys

import pytest
import torch
from high_order_fused.benchmarks import gpu_check


def test_what_pytest_prints_is_summed():
    good = "....\n========= 40 passed, 2 skipped in 3.10s =========\n"
    bad = "FAILED tests/a.py::test_b[1] - assert\n=== 1 failed, 7 passed in 1s ===\n"
    found = gpu_check._summary([(0, good), (0, good), (5, "")])
    assert found["good"] and (found["passed"], found["skipped"]) == (80, 4)
    found = gpu_check._summary([(0, good), (1, bad)])
    assert not found["good"] and found["failures"] == ["tests/a.py::test_b[1]"]
    assert found["summary"] == "47 passed, 1 failed, 2 skipped"
    assert not gpu_check._summary([(0, good), (-1, "..")])["good"]
    assert not gpu_check._summary([(-11, "Segmentation fault")])["good"]


def test_what_the_sanitizer_finds_is_a_failure():
    text = "========= Invalid __global__ read of size 4 bytes\n========= ERROR SUMMARY: 1\n== 9 passed ==\n"
    found = gpu_check._summary([(86, text)])
    assert not found["good"] and any("Invalid" in name for name in found["failures"])


def test_tests_that_take_too_long_still_name_what_failed(tmp_path):
    test = tmp_path / "test_slow.py"
    test.write_text("import time\ndef test_bad(): assert False\ndef test_long(): time.sleep(60)\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(test)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found = gpu_check._summary(list(gpu_check._outputs([running], 8)))
    assert not found["good"] and "ran out of time" in found["summary"]
    assert len(found["failures"]) == 1 and "test_bad" in found["failures"][0]


@pytest.mark.slow
def test_rehearsal(tmp_path):
    pytest.importorskip("triton")
    output = tmp_path / "found.json"
    assert gpu_check.main(["--rehearse", "--output", str(output)]) == 0
    found = json.loads(output.read_text())
    assert found["rehearsal"] and found["gpu"]["triton"] and found["stamp"]["torch"] == torch.__version__
    assert found["checks"]["tests"]["passed"] > 0 and found["checks"]["tests"]["good"]
    assert len(found["cases"]) == len(gpu_check.GPU_CASES)
