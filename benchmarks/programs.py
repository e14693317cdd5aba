"""The programs in tests/programs, with the packages they were written for and under `run`: losses, times.

    python -m high_order_fused.benchmarks.programs --path WHERE_A_PACKAGE_LIES --output FILE.json

From a checkout alone. What a program needs and is not installed can lie in --path; where its package is in
neither, it is "not measured". high-order-layers-torch imports pytorch_lightning for a class none of these
programs uses; where that is missing, an empty module stands for it, for the original alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from .report import machine
from .stamp import ROOT, in_checkout, stamp, today

FOLDER = ROOT / "tests" / "programs"


def measure(seeds: int, path: list[str], arguments: list[str]) -> dict[str, Any]:
    """Every program with every seed, original and ours in turn, as plain data for JSON."""
    programs = {}
    with tempfile.TemporaryDirectory() as folder:
        stub = Path(folder) / "pytorch_lightning.py"
        stub.write_text("from torch.nn import Module as LightningModule\n")
        for program in sorted(FOLDER.glob("*.py")):
            runs = [_both(program, seed, [*path, folder], arguments) for seed in range(seeds)]
            programs[program.stem] = _summary(runs)
    return {"stamp": stamp(torch.device("cpu")), "programs": programs}


def table(result: dict[str, Any], name: str) -> str:
    """The figures as Markdown, with their source."""
    lines = [
        "| program | original | under `run` | first 50 losses apart | accuracy, original | accuracy, ours |"
    ]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for program, entry in result["programs"].items():
        if "not_measured" in entry:
            lines.append(f"| {program} | not measured |  |  |  |  |")
            continue
        accuracy = (
            ", ".join(f"{run[who]['accuracy']:.3f}" for run in entry["runs"]) for who in ("original", "ours")
        )
        seconds = (f"{entry['seconds'][who]:.2f} s" for who in ("original", "ours"))
        cells = [program, *seconds, f"{entry['losses_apart']:.1e}", *accuracy]
        lines.append(f"| {' | '.join(cells)} |")
    said = (
        "Seconds of training, medians of the seeds; the largest difference of any of the first 50 losses; "
        f"test accuracy of each seed. {machine(result['stamp'])}. Source: benchmarks/results/{name}"
    )
    return "\n".join([*lines, "", said])


def _both(program: Path, seed: int, path: list[str], arguments: list[str]) -> dict[str, Any]:
    given = [str(program), "--seed", str(seed), *arguments]
    original = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")])}
    return {
        "seed": seed,
        "original": _printed([sys.executable, *given], original),
        "ours": _printed([sys.executable, "-m", "high_order_fused", "run", *given], dict(os.environ)),
    }


def _printed(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1]
        if not last.startswith("ModuleNotFoundError"):
            raise RuntimeError(done.stderr)
        return {"not_measured": last}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The runs, and what they say together."""
    for run in runs:
        if "not_measured" in run["original"]:
            return {"not_measured": run["original"]["not_measured"]}
    apart = [
        abs(theirs - ours)
        for run in runs
        for theirs, ours in zip(run["original"]["losses"], run["ours"]["losses"], strict=True)
    ]
    seconds = {who: statistics.median(run[who]["seconds"] for run in runs) for who in ("original", "ours")}
    return {
        "losses_apart": max(apart),
        "seconds": seconds,
        "faster": round(seconds["original"] / seconds["ours"], 2),
        "runs": runs,
    }


def main() -> None:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--path", action="append", default=[], help="a folder for PYTHONPATH of the originals"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="of each program, by default its own")
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    if not in_checkout():
        sys.exit("the programs are in the repository: run this from a checkout")
    output = options.output or ROOT / "benchmarks" / "results" / f"{today()}-programs.json"
    arguments = [] if options.epochs is None else ["--epochs", str(options.epochs)]
    result = measure(options.seeds, options.path, arguments)
    output.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result, output.name))


if __name__ == "__main__":
    main()
