"""The README's tables from results: `python -m high_order_fused.benchmarks.markdown RESULT README`."""

import json
import re
import sys
from pathlib import Path
from typing import Any

from .report import figure, label, machine, peak_text, shape

RIVALS = (
    "high-order-layers-torch",
    "efficient-kan",
    "Cox-de Boor + GEMM",
    "expand + GEMM",
    "expand + convolution",
    "torch reference",
    "ours, CUDA C++",
    "GEMM of the same size",
)


def table(result: dict[str, Any], name: str) -> str:
    """Forward + backward of ours, and the rivals' time and memory over ours, as Markdown with its source."""
    everyone = (contender for entry in result["cases"] for contender in entry["contenders"])
    timed = {contender["name"] for contender in everyone if "forward_backward" in contender}
    there = [rival for rival in RIVALS if rival in timed]
    head = ["layer", "ours", *there]
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *(_row(entry, there) for entry in result["cases"])]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    ours = next(entry for entry in result["cases"][0]["contenders"] if entry["name"] == "ours")
    gemm = [entry["gemm_gflops"] for entry in result["cases"]]
    note = "Forward + backward, medians in alternation"
    on_cpu = result["stamp"]["device"] == "cpu"
    if result["settings"]["memory"]:
        note += ", and peak memory of a step after the first"
        note += " (our threads keep scratch of a MiB or so each, not counted)" if on_cpu else " on the device"
    note += f"; rivals as multiples of ours. {machine(result['stamp'])}, {label(ours)}"
    if on_cpu:
        note += (
            f"; a shared machine, whose own matrix product ran at {min(gemm):.0f} to {max(gemm):.0f} "
            "GFLOP/s meanwhile"
        )
    note += f". Source: benchmarks/results/{name}"
    return "\n".join([*lines, "", note])


def insert(text: str, content: str, what: str = "measured") -> str:
    """Text with what stands between the two markers of that name replaced."""
    begin, end = f"<!-- {what}: begin -->", f"<!-- {what}: end -->"
    return re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n\n{content}\n\n{end}", text, flags=re.DOTALL)


def _row(entry: dict[str, Any], rivals: list[str]) -> list[str]:
    contenders = {contender["name"]: contender for contender in entry["contenders"]}
    ours = contenders["ours"]
    mine = f"{figure(ours['forward_backward']['median_ms'])} ms"
    if "memory" in ours:
        mine += f", {peak_text(ours)} MiB"
    cells = [f"{entry['case']['kind']}, {', '.join(shape(entry['case']))}", mine]
    for rival in rivals:
        found = contenders.get(rival, {})
        if "forward_backward" not in found:
            cells.append("")
            continue
        more = ""
        if "memory" in found:
            memory, base = found["memory"]["peak_mib"], ours["memory"]["peak_mib"]
            more = f", {figure(memory / base)}x MiB" if memory and base and peak_text(ours)[0] != "<" else ""
        cells.append(f"{figure(found['forward_backward']['ratio_to_ours'])}x{more}")
    return cells


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    content = table(json.loads(source.read_text()), source.name)
    kinds = {"-layers.json": "measured layers", "-gpu-check.json": "measured gpu"}
    what = next((what for end, what in kinds.items() if source.name.endswith(end)), "measured")
    target.write_text(insert(target.read_text(), content, what))
