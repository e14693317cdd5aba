"""The one runner: builds a case's contenders, checks that they agree, and measures them in alternation.

On a CPU each case has processes of its own: what the tensors of other cases left behind in the allocator
decides whether a rival's get new pages at each step, which is up to a third of its time. Where they come to
lie in one process decides it, too, so the samples of several are put together.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from . import fresh, rivals
from .cases import Case
from .memory import peak
from .rivals import OURS, NotMeasured
from .stamp import stamp
from .step import MODES, TOLERANCE, Step, differences, forward, repeatable
from .timing import Turn, alternate, gemm

PASSES = {"forward": 1, "forward_backward": 3}  # the output, and two gradients of the same cost
Tick = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """rounds of alternation; budget: about the seconds a contender may take in each mode of a case.

    processes: in which a case is measured, if it has its own; each has its share of the rounds and seconds.
    without: rivals by name that are left out.
    """

    rounds: int = 25
    budget: float = 2.0
    memory: bool = True
    without: tuple[str, ...] = ()
    processes: int = 5

    def share(self) -> "Settings":
        """Those of one of the processes."""
        return replace(
            self, rounds=math.ceil(self.rounds / self.processes), budget=self.budget / self.processes
        )


@dataclass
class Samples:
    """Seconds of a contender's calls in one mode, in samples of so many calls."""

    repeats: int
    seconds: list[float]


@dataclass
class Measured:
    """What one process finds: an entry for each contender, ours first, and samples of those that were timed.

    product: those of a square matrix product, of so many floating-point operations.
    """

    entries: list[dict[str, Any]]
    samples: dict[str, dict[str, Samples]]
    product: Samples
    flop: int

    def add(self, other: "Measured") -> None:
        """Put the samples of another process to these, of what was measured in both."""
        self.product.seconds += other.product.seconds
        for entry, elsewhere in zip(self.entries, other.entries, strict=True):
            name = entry["name"]
            if name in self.samples and name in other.samples:
                for mode, samples in self.samples[name].items():
                    samples.seconds += other.samples[name][mode].seconds
            else:
                self.samples.pop(name, None)
                entry.setdefault("not_measured", elsewhere.get("not_measured"))


def ticks(cases: Iterable[Case], settings: Settings, device: torch.device) -> int:
    """How many ticks of progress `run` gives."""
    apart = device.type == "cpu"
    processes, rounds = (settings.processes, settings.share().rounds) if apart else (1, settings.rounds)
    contenders = [1 + len(rivals.rivals(case, device)) for case in cases]
    return sum(processes * (rounds + count) + count * settings.memory for count in contenders)


def run(cases: Iterable[Case], settings: Settings, device: torch.device, tick: Tick) -> dict[str, Any]:
    """Measure the cases: plain data, for JSON. tick(what comes next) is called before each part.

    Cases whose process was killed, of want of memory as a rule, are named in "killed"; RuntimeError if all
    were.
    """
    started, measured, killed = stamp(device), [], []
    for case in cases:
        try:
            measured.append(measure(case, settings, device, tick, apart=device.type == "cpu"))
        except BrokenProcessPool:
            killed.append(case.name)
    if not measured:
        raise RuntimeError(f"nothing was measured: killed were the processes of {', '.join(killed)}")
    return {"stamp": started, "settings": asdict(settings), "cases": measured, "killed": killed}


def measure(
    case: Case, settings: Settings, device: torch.device, tick: Tick, apart: bool = False
) -> dict[str, Any]:
    """Measure one case: its contenders in a list, ours first; apart: in processes of its own."""
    with _precision(case):
        found = _figures(case, (_in_processes if apart else _time)(case, settings, device, tick))
        for entry in found["contenders"] if settings.memory else ():
            tick(f"{case.name}: memory of {entry['name']}")
            if "not_measured" not in entry:
                used = peak(case, entry["name"], device)
                mib = None if used.mib is None else round(used.mib, 2)
                entry["memory"] = {"peak_mib": mib, "resolution_mib": used.resolution, "how": used.how}
    return found


def _in_processes(case: Case, settings: Settings, device: torch.device, tick: Tick) -> Measured:
    measured: Measured = fresh.call(_time, case, settings.share(), device, tell=tick)
    for _ in range(1, settings.processes):
        measured.add(fresh.call(_time, case, settings.share(), device, tell=tick))
    return measured


@contextmanager
def _precision(case: Case) -> Iterator[None]:
    """That of float32 products which a case asks for."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if case.dtype == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _time(case: Case, settings: Settings, device: torch.device, tick: Tick) -> Measured:
    """What one process finds; where it runs apart it has no precision from there."""
    with _precision(case):
        return _alternating(case, settings, device, tick)


def _alternating(case: Case, settings: Settings, device: torch.device, tick: Tick) -> Measured:
    entries: list[dict[str, Any]] = []
    turns: dict[str, dict[str, Turn]] = {}
    ours: Step | None = None
    everybody = rivals.rivals(case, device)
    others = {rival.name: rival for rival in everybody if rival.name not in settings.without}
    for name in (OURS, *others):
        same = name == OURS or others[name].same
        tick(f"{case.name}: checking {name}")
        entries.append({"name": name, "same_function": same})
        try:
            turns[name], step = _prepare(case, name, settings, device)
            if ours is None:
                ours = step
                entries[-1]["backend"] = rivals.backend(case, device)
            elif same:
                entries[-1]["difference_from_ours"] = _agreeing(case, step, ours)
        except NotMeasured as reason:
            turns.pop(name, None)
            entries[-1]["not_measured"] = str(reason)

    product, flop = gemm(device, case.torch_dtype)
    product.calibrate(settings.rounds, settings.budget)
    everyone = [product, *(turn for modes in turns.values() for turn in modes.values())]
    alternate(everyone, settings.rounds, lambda: tick(f"{case.name}: timing"))
    samples = {
        name: {mode: Samples(turn.repeats, turn.samples) for mode, turn in modes.items()}
        for name, modes in turns.items()
    }
    return Measured(entries, samples, Samples(product.repeats, product.samples), flop)


def _figures(case: Case, measured: Measured) -> dict[str, Any]:
    """Of each contender times, ratios to ours and useful rates over that of the product, in its entry."""
    rate = measured.flop / statistics.median(measured.product.seconds)
    useful = {rival.name: rival.useful for rival in rivals.RIVALS}
    for entry in measured.entries:
        name = entry["name"]
        if name in measured.samples:
            flop = useful[name](case) if name in useful else case.flop
            for mode in MODES:
                samples, ours = (measured.samples[who][mode] for who in (name, OURS))
                entry[mode] = _figures_of(samples, ours, PASSES[mode] * flop / rate)
    return {
        "case": asdict(case),
        "useful_flop": {mode: case.flop * PASSES[mode] for mode in MODES},
        "gemm_gflops": _rounded(rate / 1e9),
        "contenders": measured.entries,
    }


def _prepare(case: Case, name: str, settings: Settings, device: torch.device) -> tuple[dict[str, Turn], Step]:
    """The two calls to be timed, and what the second gave; NotMeasured if a rival fails in whatever way."""
    try:
        module = rivals.build(case, name, device)
        x, cotangent = rivals.data(case, device)
        calls: dict[str, Callable[[], object]] = {
            "forward": partial(forward, module, x),
            "forward_backward": repeatable(module, x, cotangent),
        }
        turns = {mode: Turn(calls[mode], device) for mode in MODES}
        result = None
        for turn in turns.values():
            result = turn.calibrate(settings.rounds, settings.budget)
    except Exception as error:
        if name == OURS or isinstance(error, NotMeasured):
            raise
        raise NotMeasured(f"it raised {type(error).__name__}") from error  # a message may hold paths
    assert isinstance(result, Step)
    return turns, result


def _agreeing(case: Case, step: Step, ours: Step) -> dict[str, float]:
    """The differences of a rival from ours; NotMeasured if one is too large."""
    found = differences(step, ours)
    for name, difference in found.items():
        if not difference <= TOLERANCE[case.dtype]:  # NaN is wrong, too
            raise NotMeasured(f"its {name} differs from ours by {difference:.1e}")
    return {name: float(f"{value:.1e}") for name, value in found.items()}


def _figures_of(samples: Samples, ours: Samples, least: float) -> dict[str, Any]:
    """Times of a contender in one mode; least: the seconds that its useful arithmetic takes in a product."""
    median, ours_median = (_rounded(1e3 * statistics.median(each.seconds)) for each in (samples, ours))
    low = high = 1e-3 * median
    if len(samples.seconds) > 1:
        low, _, high = statistics.quantiles(samples.seconds, method="inclusive")
    return {
        "median_ms": median,
        "quartiles_ms": [_rounded(1e3 * low), _rounded(1e3 * high)],
        "samples": len(samples.seconds),
        "calls_per_sample": samples.repeats,
        "ratio_to_ours": _rounded(median / ours_median),
        "useful_rate_over_gemm": _rounded(1e3 * least / median),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
