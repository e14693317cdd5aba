"""The compiled parts: loaded where they were built, a stated reason where they were not."""

import os
import subprocess
import sys

import pytest
import torch

from high_order_fused import native


def test_either_facts_or_a_reason():
    if native.native_missing() is None:
        facts = native.native_facts()
        assert facts and all(isinstance(value, str) and value for value in facts.values())
    else:
        assert "\n" not in native.native_missing()


@pytest.mark.skipif(native.native_missing() is not None, reason=f"native: {native.native_missing()}")
def test_the_library_is_loaded_and_its_operator_runs():
    assert torch.ops.high_order_fused.native_abi() == 0x020B000000000000


def test_importing_is_quiet_and_needs_torch_alone():
    """No optional package comes in with ours (numpy may, through torch), and nothing is printed."""
    code = (
        "import sys\n"
        "import torch, torch._dynamo\n"  # which takes Triton along where it is installed
        "blocked = ['scipy', 'sklearn', 'matplotlib', 'rich', 'pytest']\n"
        "blocked += [] if torch.cuda.is_available() else ['triton']\n"
        "before = set(sys.modules)\n"
        "import high_order_fused\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "assert not new & set(blocked), new & set(blocked)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr == ""
