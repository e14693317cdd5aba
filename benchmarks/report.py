"""A result as tables for the terminal."""

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .step import MODES

NAME = 25  # width of the first column


def tables(result: dict[str, Any]) -> Group:
    """A table for each case, one row a contender, and what the columns mean."""
    return Group(*_parts(result), Text(_legend(result), style="dim"))


def label(entry: dict[str, Any]) -> str:
    """The contender's name, with the backend if it is ours."""
    return f"{entry['name']} ({entry['backend']})" if "backend" in entry else str(entry["name"])


def shape(case: dict[str, Any]) -> tuple[str, str]:
    """Sizes and parameters of a case in a few characters."""
    segments = f", {case['segments']} segments" if case["segments"] > 1 else ""
    dtype = "" if case["dtype"] == "float32" else f", {case['dtype']}"
    sizes = f"{case['batch']} x {case['in_features']} -> {case['out_features']}"
    if case.get("image"):
        stride = f" stride {case['stride']}" if case["stride"] > 1 else ""
        sizes += f" {case['image']}x{case['image']} k{case['kernel']}{stride}"
    return sizes, f"n = {case['n']}{segments}{dtype}"


def figure(value: float) -> str:
    """Two or three digits, without exponents."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.1 else f"{value:.2g}"


def peak_mib(entry: dict[str, Any]) -> float | None:
    """The peak memory of a contender, None if it is not known or too little to tell."""
    mib: float | None = entry["memory"]["peak_mib"]
    return None if mib is None or mib <= entry["memory"]["resolution_mib"] else mib


def peak_text(entry: dict[str, Any]) -> str:
    """The peak memory of a contender, or less than what can be told, or a dash."""
    if entry["memory"]["peak_mib"] is None:
        return "-"
    mib = peak_mib(entry)
    return f"<{2 * entry['memory']['resolution_mib']:g}" if mib is None else figure(mib)


def machine(stamp: dict[str, Any]) -> str:
    """Device, of a processor also the widest instructions, threads and torch in a few words."""
    device = stamp["device"]
    if device == "cpu":
        instructions = (stamp["native"] or {}).get("instruction_set")
        device = stamp["cpu"] + (f" ({instructions})" if instructions else "")
    threads = "1 thread" if stamp["threads"] == 1 else f"{stamp['threads']} threads"
    return f"{device}, {threads}, torch {stamp['torch']}"


def _parts(result: dict[str, Any]) -> Iterator[RenderableType]:
    memory = result["settings"]["memory"]
    for measured in result["cases"]:
        case = measured["case"]
        yield Text.assemble((case["name"], "bold"), "  ", ", ".join(shape(case)))
        rows = Table(box=None, pad_edge=False, padding=(0, 0, 0, 1), header_style="dim")
        rows.add_column("", width=NAME, no_wrap=True)
        for mode in ("fwd", "f+b"):
            for title, width in ((f"{mode} ms", 6), ("x ours", 6), ("gemm", 4)):
                rows.add_column(title, width=width, justify="right")
        if memory:
            rows.add_column("MiB", width=5, justify="right")
        rows.add_column("differs", width=7, justify="right")
        for entry in measured["contenders"]:
            if "not_measured" not in entry:
                rows.add_row(*_row(entry, memory), style="cyan" if entry["name"] == "ours" else None)
        yield rows
        for entry in measured["contenders"]:
            if "not_measured" in entry:
                yield Text(f" {entry['name']} is not measured: {entry['not_measured']}", style="dim")
        yield ""


def _row(entry: dict[str, Any], memory: bool) -> Iterator[str]:
    yield label(entry)
    for mode in MODES:
        figures = entry[mode]
        yield figure(figures["median_ms"])
        yield figure(figures["ratio_to_ours"])
        yield f"{100 * figures['useful_rate_over_gemm']:.0f}%"
    if memory:
        yield peak_text(entry)
    differences = entry.get("difference_from_ours")
    yield f"{max(differences.values()):.0e}" if differences else ""


def _legend(result: dict[str, Any]) -> str:
    stamp, rates = result["stamp"], [measured["gemm_gflops"] for measured in result["cases"]]
    lines = [
        f"{machine(stamp)}; load before: {stamp['load_before']}",
        "fwd: forward without a graph; f+b: forward and backward; medians in alternation",
        "gemm: useful arithmetic (2 batch in out n a pass; f+b: 3 passes) over that of",
        f"    a matrix product, {min(rates):.0f} to {max(rates):.0f} GFLOP/s in this run; theirs: their own",
        "differs: largest norm-wise difference from ours, output and gradients",
        "nn.Linear and nn.Conv2d are other functions of the same sizes: the floor of bare products",
    ]
    if max(rates) > 1.5 * min(rates):
        lines.insert(1, "The matrix product was not steady: other work ran beside. Measure again.")
    if result["settings"]["memory"]:
        lines.append("MiB: peak memory that forward and backward add, in a fresh process")
    return "\n".join(lines)
