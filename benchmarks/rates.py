"""How near the kernels are to a matrix product; segments, dtypes, threads, one row, Python around them.

A part is what samples it, in several processes whose samples are put together, since where numbers come to
lie in one makes a tenth, and what its medians say. These processes keep freed memory: at 64 segments or in
float64 the allocator would otherwise ask for new pages at each step, for a seventh of its time.
"""

import json
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import high_order_fused as hof
from high_order_fused.backends import get, resolve
from high_order_fused.functional import sum_batch, sum_inputs, sum_outputs
from high_order_fused.operands import Operands

from . import fresh
from .allocator import keep_freed
from .cases import LAYERS, Case, named
from .markdown import insert
from .report import figure, machine
from .rivals import data, ours
from .runner import Settings
from .stamp import stamp
from .step import MODES, forward, repeatable
from .timing import Turn, alternate, gemm

SEGMENTS = (1, 2, 4, 5, 8, 16, 20, 32, 64)
CONTRACTIONS = ("sum_inputs", "sum_outputs", "sum_batch")
DTYPES = ("float32", "float64", "bfloat16", "float16")
LARGE = Case("large", "continuous", 4096, 128, 128, n=4, segments=5)
ROW = Case("row", "continuous", 1, 512, 512, n=4, segments=8)
TINY = Case("tiny", "continuous", 2, 2, 2, n=3, segments=4)
FEW, MANY = 2, 32  # segments of the convolutions
CONVOLVED = {"continuous": "conv", "discontinuous": "conv-discontinuous"}
CPU = torch.device("cpu")
Tick = Callable[[str], None]
Sampled = dict[str, list[float]]  # seconds of calls by name
Seconds = dict[str, float]  # and their medians


def measure(settings: Settings, tick: Tick) -> dict[str, Any]:
    """All parts, as plain data for JSON. tick(what comes next) is called before each."""
    result: dict[str, Any] = {"stamp": stamp(CPU), "rounds": settings.rounds, "processes": settings.processes}
    for name, (sampled, said) in PARTS.items():
        tick(name)
        share = settings.share()
        runs = [
            fresh.call(_keeping_memory, sampled, share.rounds, share.budget)
            for _ in range(settings.processes)
        ]
        together = {call: [seconds for run in runs for seconds in run[call]] for call in runs[0]}
        result[name] = said({call: statistics.median(seconds) for call, seconds in together.items()})
    return result


def _keeping_memory(sampled: Callable[[int, float], Sampled], rounds: int, budget: float) -> Sampled:
    """What a part samples, in its process."""
    keep_freed()
    return sampled(rounds, budget)


def table(result: dict[str, Any], name: str) -> str:
    """The figures as Markdown, with their source."""
    lines = ["| segments | sum_inputs | sum_outputs | sum_batch | forward, ms | forward + backward, ms |"]
    lines.append("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for entry in result["segments"]:
        rates = [f"{entry['rates'][name]:.2f}" for name in CONTRACTIONS]
        times = [figure(entry[f"{name}_ms"]) for name in MODES]
        lines.append(f"| {' | '.join([str(entry['segments']), *rates, *times])} |")
    row, python, threads = result["one_row"], result["python"], result["threads"]
    dtypes = ", ".join(
        f"{name} {entry['rate_over_float32']:.2f}"
        for name, entry in result["dtypes"].items()
        if name != "float32"
    )
    convolutions = ", ".join(f"{kind} {ratio:.2f}" for kind, ratio in result["convolutions"].items())
    said = (
        "Useful rate (2 B I O n) over that of a matrix product; batch 4096, 128 -> 128, n = 4, float32, "
        "with two more segments beyond the interval; then the layer's times. Forward + backward at 5 "
        f"segments: rate of other dtypes over float32's: {dtypes}; {threads['threads']} threads "
        f"{threads['speedup']:.2f} times as fast as one. Convolutions, 32 x 16 -> 32 28x28 k3, n = 3, "
        f"at {MANY} segments over {FEW}: {convolutions}. One row, 512 -> 512, 8 segments, no gradients: "
        f"{row['warm_over_linear']:.1f} times nn.Linear warm, {row['cold_over_linear']:.1f} cold. "
        f"A call without its kernel: {python['forward_us']:.0f} us without gradients, "
        f"{python['graph_us']:.0f} us when recording. {machine(result['stamp'])}. "
        f"Source: benchmarks/results/{name}"
    )
    return "\n".join([*lines, "", said])


def _samples(calls: Mapping[str, Callable[[], object]], rounds: int, budget: float) -> Sampled:
    """Of calls in alternation."""
    turns = {name: Turn(call, CPU) for name, call in calls.items()}
    for turn in turns.values():
        turn.calibrate(rounds, budget)
    alternate(list(turns.values()), rounds)
    return {name: turn.samples for name, turn in turns.items()}


def _of_segments(count: int) -> Case:
    return replace(LARGE, kind="continuous" if count > 1 else "polynomial", segments=count)


def _segments(rounds: int, budget: float) -> Sampled:
    """All numbers of segments in one alternation, so that their times can be compared."""
    calls: dict[str, Callable[[], object]] = {"gemm": gemm(CPU, torch.float32)[0].call}
    for count in SEGMENTS:
        layer, x, g = _built(_of_segments(count))
        parts = _contractions(layer, x.detach()[None], g[None])
        parts |= {"forward": partial(forward, layer, x)}
        parts |= {"forward_backward": repeatable(layer, x, g)}
        calls |= {f"{name} {count}": call for name, call in parts.items()}
    return _samples(calls, rounds, budget)


def _rates(seconds: Seconds) -> list[dict[str, Any]]:
    rate = gemm(CPU, torch.float32)[1] / seconds["gemm"]
    found = []
    for count in SEGMENTS:
        times = {name: seconds[f"{name} {count}"] for name in (*CONTRACTIONS, *MODES)}
        flop = _of_segments(count).flop
        entry: dict[str, Any] = {"segments": count, "gemm_gflops": _rounded(rate / 1e9)}
        entry |= {f"{name}_ms": _rounded(1e3 * time) for name, time in times.items()}
        entry["rates"] = {name: _rounded(flop / times[name] / rate) for name in CONTRACTIONS}
        found.append(entry)
    return found


def _convolutions(rounds: int, budget: float) -> Sampled:
    """Forward + backward of all kinds with segments in one alternation."""
    cases = named([f"{name}-{count}" for name in CONVOLVED.values() for count in (FEW, MANY)], LAYERS)
    return _samples({case.name: repeatable(*_built(case)) for case in cases}, rounds, budget)


def _many_over_few(seconds: Seconds) -> dict[str, float]:
    return {
        kind: _rounded(seconds[f"{name}-{MANY}"] / seconds[f"{name}-{FEW}"])
        for kind, name in CONVOLVED.items()
    }


def _contractions(layer: nn.Module, x: Tensor, g: Tensor) -> dict[str, Callable[[], object]]:
    """The layer's output, and the two gradients of its backward pass."""
    w = next(layer.parameters()).detach()[None]
    basis = _operands(layer, x)
    steep = basis.derivative()
    return {
        "sum_inputs": lambda: sum_inputs(x, w, basis),
        "sum_outputs": lambda: sum_outputs(x, w, steep, g),
        "sum_batch": lambda: sum_batch(x, g, basis),
    }


def _dtypes(rounds: int, budget: float) -> Sampled:
    built = {dtype: _built(replace(LARGE, dtype=dtype)) for dtype in DTYPES}
    calls = {name: repeatable(*all_of) for name, all_of in built.items()}
    return _samples(calls, rounds, budget)


def _over_float32(seconds: Seconds) -> dict[str, dict[str, float]]:
    return {
        name: {
            "forward_backward_ms": _rounded(1e3 * value),
            "rate_over_float32": _rounded(seconds["float32"] / value),
        }
        for name, value in seconds.items()
    }


def _threads(rounds: int, budget: float) -> Sampled:
    step, every = repeatable(*_built(LARGE)), torch.get_num_threads()

    def on(threads: int) -> Callable[[], object]:
        def call() -> object:
            torch.set_num_threads(threads)
            return step()

        return call

    return _samples({"one": on(1), "all": on(every)}, rounds, budget)


def _speedup(seconds: Seconds) -> dict[str, Any]:
    return {"threads": torch.get_num_threads(), "speedup": _rounded(seconds["one"] / seconds["all"])}


def _one_row(rounds: int, budget: float) -> Sampled:
    """Warm: called again and again. Cold: with 128 MiB written in between, outside the time."""
    layer, x, _ = _built(ROW)
    modules = {"ours": layer, "linear": nn.Linear(ROW.in_features, ROW.out_features)}
    warm = {f"{name}, warm": partial(forward, module, x) for name, module in modules.items()}
    samples = _samples(warm, rounds, budget)
    other = torch.zeros(2**25)
    cold = {f"{name}, cold": Turn(partial(forward, module, x), CPU) for name, module in modules.items()}
    for _ in range(4 * rounds):
        for turn in cold.values():
            other.add_(1)
            turn.sample()
    return samples | {name: turn.samples for name, turn in cold.items()}


def _over_linear(seconds: Seconds) -> dict[str, float]:
    found: dict[str, float] = {}
    for state in ("warm", "cold"):
        ours, linear = (seconds[f"{name}, {state}"] for name in ("ours", "linear"))
        found |= {f"{state}_us": _rounded(1e6 * ours), f"{state}_over_linear": _rounded(ours / linear)}
    return found


def _python(rounds: int, budget: float) -> Sampled:
    """A call of the smallest layer, and the backend's own function: on one thread."""
    torch.set_num_threads(1)
    layer, x, _ = _built(TINY)
    w, rows = next(layer.parameters()).detach()[None], x.detach()[None]
    basis = _operands(layer, rows)
    backend = get(resolve(rows))
    calls: dict[str, Callable[[], object]] = {
        "kernel": lambda: backend.sum_inputs(rows, w, None, basis),
        "forward": lambda: forward(layer, x),
        "graph": lambda: layer(x),
    }
    return _samples(calls, rounds, budget)


def _without_kernel(seconds: Seconds) -> dict[str, float]:
    return {
        f"{name}_us": _rounded(1e6 * (seconds[name] - seconds["kernel"])) for name in ("forward", "graph")
    }


def _built(case: Case) -> tuple[nn.Module, Tensor, Tensor]:
    return ours(case, CPU), *data(case, CPU)


def _operands(layer: nn.Module, x: Tensor) -> Operands:
    assert isinstance(layer, hof.HighOrderLinear)
    return layer.basis.operands(x.dtype, x.device)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


PARTS: dict[str, tuple[Callable[[int, float], Sampled], Callable[[Seconds], Any]]] = {
    "segments": (_segments, _rates),
    "convolutions": (_convolutions, _many_over_few),
    "dtypes": (_dtypes, _over_float32),
    "threads": (_threads, _speedup),
    "one_row": (_one_row, _over_linear),
    "python": (_python, _without_kernel),
}

if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.write_text(insert(target.read_text(), table(json.loads(source.read_text()), source.name)))
