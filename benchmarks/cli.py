"""`python -m high_order_fused bench`: options, progress bar, table, JSON and plot."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import rates
from .cases import CASES, LAYERS, SWEEP, Case, named
from .plot import draw, draw_sweep
from .report import tables
from .runner import Settings, run, ticks
from .stamp import ROOT, in_checkout, today

SETS = {"cases": CASES, "layers": LAYERS, "segments": SWEEP}  # by --what
QUICK = Settings(rounds=3, budget=0.05, memory=False, processes=1)


def main(argv: list[str] | None = None) -> None:
    """Measure our layers and their rivals, print tables, write a JSON file and a plot beside it."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.cases:
        if options.what not in ("cases", "layers"):
            parser.error(f"--cases has no meaning with --what {options.what}")
        try:
            named(options.cases, SETS[options.what])
        except ValueError as error:
            parser.error(str(error))
    if options.what == "rates":
        options.device = "cpu"
    if options.threads:
        torch.set_num_threads(options.threads)
    default = QUICK if options.quick else Settings()
    settings = replace(
        default,
        rounds=options.rounds or default.rounds,
        memory=default.memory and not options.no_memory,
    )
    device = torch.device(options.device)
    partial = options.quick or bool(options.cases)
    output = options.output or default_output(device, options.what, partial)
    console = Console()
    if options.what == "rates":
        with console.status("rates") as status:
            found = rates.measure(settings, lambda part: status.update(f"rates: {part}"))
        console.print(rates.table(found, output.name), highlight=False, soft_wrap=True)
        _write_json(found, output)
        console.print(f"wrote {output}", style="dim", highlight=False)
        return
    result = with_progress(named(options.cases, SETS[options.what]), settings, device, console)
    console.print(tables(result))
    for path in write(result, output, draw_sweep if options.what == "segments" else draw):
        console.print(f"wrote {path}", style="dim", highlight=False)
    if result["killed"]:
        sys.exit(f"not measured, their processes were killed: {', '.join(result['killed'])}")


def with_progress(
    cases: tuple[Case, ...], settings: Settings, device: torch.device, console: Console
) -> dict[str, Any]:
    """`run` with a progress bar, where the console is a terminal."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=ticks(cases, settings, device))
        return run(cases, settings, device, lambda text: progress.update(task, advance=1, description=text))


def write(
    result: dict[str, Any], output: Path, picture: Callable[[dict[str, Any], Path], None] = draw
) -> tuple[Path, Path]:
    """Write the result as JSON to output, and its picture with the ending .png beside it."""
    _write_json(result, output)
    plot = output.with_suffix(".png")
    picture(result, plot)
    return output, plot


def _write_json(result: dict[str, Any], output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def default_output(device: torch.device, what: str = "cases", partial: bool = False) -> Path:
    """benchmarks/results/DATE-cpu.json (or gpu, or with -WHAT) in a checkout, else the same name here.

    partial: what is not worth keeping, in build/benchmarks.
    """
    kind = "cpu" if device.type == "cpu" else "gpu"
    name = f"{today()}-{kind}{'' if what == 'cases' else f'-{what}'}.json"
    folder = "build/benchmarks" if partial else "benchmarks/results"
    return ROOT / folder / name if in_checkout() else Path(name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m high_order_fused bench", description=main.__doc__)
    known = ", ".join(case.name for case in CASES)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add = parser.add_argument
    add("--cases", nargs="+", metavar="NAME", help=f"some of {known}; or of those of --what layers")
    add(
        "--what",
        default="cases",
        choices=("cases", "layers", "segments", "rates"),
        help="sums; products and convolutions; time against segments; the kernels' rates (CPU)",
    )
    add("--rounds", type=_positive, help="rounds of alternation (25; 3 with --quick)")
    add("--threads", type=_positive, help="threads that torch may use (its own choice)")
    add("--device", default=device, help=f"where to measure ({device})")
    add(
        "--output",
        type=Path,
        help="JSON file, the plot beside it (benchmarks/results/DATE-cpu.json; of some cases, or quickly "
        "measured, build/benchmarks/DATE-cpu.json)",
    )
    add("--quick", action="store_true", help="few samples, no memory: to see that it works")
    add("--no-memory", action="store_true", help="leave out peak memory: a process for each contender")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number
