"""`python -m high_order_fused bench`: options, progress bar, table, JSON and plot."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .cases import CASES, Case, named
from .plot import draw
from .report import tables
from .runner import Settings, run, ticks
from .stamp import ROOT, in_checkout, today

QUICK = Settings(rounds=3, budget=0.05, memory=False)


def main(argv: list[str] | None = None) -> None:
    """Measure our layers and their rivals, print tables, write a JSON file and a plot beside it."""
    options = _parser().parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    default = QUICK if options.quick else Settings()
    settings = Settings(
        options.rounds or default.rounds, default.budget, default.memory and not options.no_memory
    )
    device = torch.device(options.device)
    output = options.output or default_output(device)
    console = Console()
    result = with_progress(named(options.cases), settings, device, console)
    console.print(tables(result))
    for path in write(result, output):
        console.print(f"wrote {path}", style="dim", highlight=False)


def with_progress(
    cases: tuple[Case, ...], settings: Settings, device: torch.device, console: Console
) -> dict[str, Any]:
    """`run` with a progress bar, where the console is a terminal."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=ticks(cases, settings))
        return run(cases, settings, device, lambda text: progress.update(task, advance=1, description=text))


def write(result: dict[str, Any], output: Path) -> tuple[Path, Path]:
    """Write the result as JSON to output, and its plot with the ending .png beside it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    plot = output.with_suffix(".png")
    draw(result, plot)
    return output, plot


def default_output(device: torch.device) -> Path:
    """benchmarks/results/DATE-cpu.json (or -gpu) in a checkout, else the same file name here."""
    name = f"{today()}-{'cpu' if device.type == 'cpu' else 'gpu'}.json"
    return ROOT / "benchmarks" / "results" / name if in_checkout() else Path(name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m high_order_fused bench", description=main.__doc__)
    known = [case.name for case in CASES]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add = parser.add_argument
    add("--cases", nargs="+", metavar="NAME", choices=known, help=f"some of {', '.join(known)}")
    add("--rounds", type=_positive, help="rounds of alternation (15; 3 with --quick)")
    add("--threads", type=_positive, help="threads that torch may use (its own choice)")
    add("--device", default=device, help=f"where to measure ({device})")
    add(
        "--output",
        type=Path,
        help="JSON file, the plot beside it (benchmarks/results/DATE-cpu.json)",
    )
    add("--quick", action="store_true", help="few samples, no memory: to see that it works")
    add("--no-memory", action="store_true", help="leave out peak memory: a process for each contender")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number
