"""Alternating time measurement: every contender takes its turns in every part of the run."""

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

# seconds of a sample, at least: what another left in caches, and on a CPU in the heap, then counts little
SAMPLE = {"cpu": 5e-2, "cuda": 1e-2}
FEWEST = 3  # samples that even a slow contender gives
REPEAT_BELOW = 0.05  # seconds: a first call this fast may have been mostly warm-up


@dataclass
class Turn:
    """A call that is timed, how often it runs in a sample, and its samples in seconds a call."""

    call: Callable[[], object]
    device: torch.device
    repeats: int = 1
    wanted: int = 0
    samples: list[float] = field(default_factory=list)

    def calibrate(self, rounds: int, budget: float) -> object:
        """Choose repeats, and samples within about budget seconds, at most one a round; the call's result."""
        seconds, result = self._first()
        if seconds < REPEAT_BELOW:
            seconds, result = self._first()
        self.repeats = math.ceil(SAMPLE[self.device.type] / seconds)
        affordable = int(budget / (self.repeats * seconds))
        self.wanted = min(rounds, max(FEWEST, affordable))
        return result

    def due(self, turn: int, rounds: int) -> bool:
        """Whether it takes part in this round: the wanted samples are spread evenly."""
        return (turn + 1) * self.wanted // rounds > turn * self.wanted // rounds

    def sample(self) -> None:
        """Take one sample."""
        self.samples.append(self._seconds(self.repeats))

    def _first(self) -> tuple[float, object]:
        _wait(self.device)
        start = time.perf_counter()
        result = self.call()
        _wait(self.device)
        return time.perf_counter() - start, result

    def _seconds(self, repeats: int) -> float:
        call = self.call
        _wait(self.device)
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        _wait(self.device)
        return (time.perf_counter() - start) / repeats


def alternate(turns: Sequence[Turn], rounds: int, after: Callable[[], None] = lambda: None) -> None:
    """Sample the turns in every round, each time beginning with another one, and call `after`."""
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            first = number % len(turns)
            for turn in (*turns[first:], *turns[:first]):
                if turn.due(number, rounds):
                    turn.sample()
            after()
    finally:
        if collecting:
            gc.enable()


def gemm(device: torch.device, dtype: torch.dtype) -> tuple[Turn, int]:
    """A square matrix product to compare rates with, and its floating-point operations."""
    size = 1024 if device.type == "cpu" else 8192
    a, b = torch.rand(2, size, size, device=device, dtype=dtype)
    out = torch.empty_like(a)
    return Turn(lambda: torch.mm(a, b, out=out), device), 2 * size**3


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
