"""Compilation ahead of time, for devices that are not there, and what the compiled code says of itself."""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from .basis import Basis, Shape
from .choice import Choice, function
from .patches import Patch
from .tiles import Rows, Sizes

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
SHARED = {"sm_80": 163, "sm_90": 227, "sm_100": 227, "gfx942": 64}  # KiB that a block may have
_NAMES = {torch.float64: "fp64", torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class Reading(NamedTuple):
    """Of a compiled kernel: a thread's registers, spills, shared bytes, matrix instructions by name."""

    registers: int
    spilled: int
    shared: int
    matrix: dict[str, int]


def read(
    how: Choice,
    shape: Shape,
    dtype: torch.dtype,
    target: str,
    scaled: bool = False,
    patch: Patch | None = None,
) -> Reading:
    """Compile one choice of the cost model for x, coefficients and cotangents in `dtype`; scaled: with s."""
    source = _source(how, shape, dtype, scaled, patch)
    compiled = triton.compile(source, target=TARGETS[target], options=_options(how))
    shared = int(compiled.metadata.shared)
    if target.startswith("gfx"):
        text = compiled.asm["amdgcn"]
        found = {
            name: int(re.search(rf"\.{name}:\s*(\d+)", text)[1])
            for name in ("vgpr_count", "vgpr_spill_count")
        }
        return Reading(found["vgpr_count"], found["vgpr_spill_count"], shared, _counted(text, r"v_(mfma)"))
    usage, text = _dumped(compiled.asm["cubin"])
    registers = int(re.search(r"REG:(\d+)", usage)[1])
    return Reading(
        registers, text.count("STL"), shared, _counted(text, r"\b(HGMMA|HMMA|DMMA|UTCHMMA|UTCQMMA)")
    )


def _counted(text: str, pattern: str) -> dict[str, int]:
    found = re.findall(pattern, text)
    return {name: found.count(name) for name in sorted(set(found))}


def _options(how: Choice) -> dict[str, int]:
    return {"num_warps": how.warps, "num_stages": how.stages}


def _source(how: Choice, shape: Shape, dtype: torch.dtype, scaled: bool, patch: Patch | None) -> ASTSource:
    """The kernel with the types and the divisibilities that launches of usual layers have."""
    kernel = function(how.kernel)
    compute = "*fp64" if dtype == torch.float64 else "*fp32"
    pointer = f"*{_NAMES[dtype]}"
    unit = "constexpr" if patch is None else "i32"  # 1, or the places of an image
    rows = Rows(pointer, "i32", "i32", unit, unit)
    whole = not how.kernel.endswith("gather")
    types: dict[str, Any] = {
        **dict.fromkeys(("x", "g", "s"), rows),
        **dict.fromkeys(("y", "r"), rows if whole else pointer),
        **dict.fromkeys(("w", "v", "phi", "t"), pointer),
        **dict.fromkeys(("q", "h"), compute),
        "basis": Basis(compute, compute, compute, "*i64"),
        "sizes": Sizes("i32", "i32", "i32", *(unit,) * 6),
        "parts": "i32",
    }
    constants = {"SHAPE": shape, "TILE": how.tile, "SCALED": scaled, "PATCH": patch}
    signature, constexprs, attributes = {}, {}, {}
    for position, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name], constexprs[position,] = "constexpr", constants[name]
            continue
        signature[name] = kind = types[name]
        for inner, part in enumerate(kind if isinstance(kind, tuple) else (kind,)):
            path = (position, inner) if isinstance(kind, tuple) else (position,)
            if part == "constexpr":
                constexprs[path] = 1
            elif name != "parts" and (patch is None or not part.startswith("i")):
                attributes[path] = [["tt.divisibility", 16]]
    return ASTSource(kernel, signature, constexprs, attributes)


def _dumped(cubin: bytes) -> tuple[str, str]:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        outputs = (
            subprocess.run([tool, option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("-res-usage", "-sass")
        )
        usage, text = outputs
    return usage, text
