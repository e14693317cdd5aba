"""One command for a machine with a GPU: tests of results, sanitizer, benchmark, memory; a JSON file.

Needs torch, triton, numpy and pytest. `make gpu-check` runs it; what did not fit into the time is listed as
not measured. `--rehearse` goes the same way on a CPU, in Triton's interpreter, with small sizes.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import high_order_fused as hof

from .cases import GPU_CASES
from .runner import Settings, measure
from .stamp import stamp, today

RESULTS = (
    "tests/test_conformance.py",
    "tests/test_golden.py",
    "tests/test_triton.py",
    "tests/test_library.py",
    "tests/test_cuda.py",
    "tests/test_gpu.py",
    "tests/test_conv_kernels.py",
    "tests/test_products.py",
)
SANITIZED = "ragged or (test_every_kernel and (spline or fourier) and float32)"
PARTS = ("tests", "tests, default device", "sanitizer", "races", "cases")
PROCESSES = 12  # of pytest, side by side: compilation takes most of its time


@dataclass
class Clock:
    """The seconds that are left of a limit."""

    limit: float

    def __post_init__(self) -> None:
        self.begin = time.monotonic()

    @property
    def left(self) -> float:
        """Seconds until the limit."""
        return self.limit - (time.monotonic() - self.begin)


def main(argv: list[str] | None = None) -> int:
    """Run every part; 0 if all tests passed and nothing was found by the sanitizer."""
    options = _parser().parse_args(argv)
    rehearsal: bool = options.rehearse
    device = torch.device("cpu" if rehearsal else "cuda")
    clock = Clock(options.limit)
    report: dict[str, Any] = {"stamp": stamp(device), "gpu": facts(device), "rehearsal": rehearsal}
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "tests": lambda: run_tests(device, clock.left - 240),
        "tests, default device": lambda: run_tests(device, clock.left - 150, "--default-device"),
        "sanitizer": lambda: sanitized(rehearsal, min(60, clock.left - 90)),
        "races": lambda: sanitized(rehearsal, min(40, clock.left - 90), "racecheck"),
    }
    wanted: list[str] = options.parts
    report["checks"] = {}
    for name in (name for name in parts if name in wanted):
        part = parts[name]
        print(f"{name} ...", flush=True)
        report["checks"][name] = found = part()
        print(f"{name}: {found.get('summary') or found.get('not_measured')}", flush=True)
        write(report, options.output)
    settings = _settings(rehearsal, options)
    report |= {"settings": asdict(settings), "cases": [], "not_measured": []}
    for case in GPU_CASES if "cases" in wanted else ():
        if clock.left < 15:
            report["not_measured"].append(case.name)
            continue
        sized = case.small() if rehearsal else case
        try:
            found = measure(sized, settings, device, lambda text: print(text, flush=True))
            report["cases"].append(found)
            _print_case(found)
        except Exception as error:  # of ours, or no memory for the product that rates are compared with
            report["not_measured"].append(f"{case.name}: it raised {type(error).__name__}")
            print(f"{case.name}: {error!r}", flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        write(report, options.output)
    report["seconds"] = round(clock.limit - clock.left)
    write(report, options.output)
    failed = [name for name, found in report["checks"].items() if not found.get("good", True)]
    print(
        f"wrote {options.output.name}; " + (f"FAILED: {', '.join(failed)}" if failed else "all checks passed")
    )
    return 1 if failed else 0


def facts(device: torch.device) -> dict[str, Any]:
    """Of the GPU: driver, CUDA, capability, memory, multiprocessors, Triton."""
    import triton

    found: dict[str, Any] = {
        "triton": triton.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "capability": f"{properties.major}.{properties.minor}",
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "driver": _driver(),
        }
    return found


def run_tests(device: torch.device, seconds: float, *options: str) -> dict[str, Any]:
    """The tests of results on a device, in processes side by side; the first failures by name."""
    if seconds < 20:
        return {"not_measured": "no time was left"}
    processes = 2 if device.type == "cpu" else PROCESSES
    command = [*_pytest(device), *options]
    selection = "not cpu and not slow"
    if device.type == "cpu":
        selection += " and (test_strides or test_lookup or gpu)"
    running = [
        subprocess.Popen(
            [*command, "--part", f"{part}/{processes}", "-k", selection, *RESULTS],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment(device),
        )
        for part in range(processes)
    ]
    return _summary(list(_outputs(running, seconds)))


def sanitized(rehearsal: bool, seconds: float, what: str = "memcheck") -> dict[str, Any]:
    """Some kernels on small sizes under compute-sanitizer, for reads and writes out of bounds.

    what: or "racecheck", of the CUDA kernels: threads that wait too little for each other in shared memory.
    """
    tool = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if tool is None or rehearsal or seconds < 20:
        return {"not_measured": "compute-sanitizer was not found" if tool is None else "no time was left"}
    device = torch.device("cuda")
    files: tuple[str, ...] = RESULTS[:5]
    if what == "racecheck":
        files = ("tests/test_cuda.py",)
        if not hof.backends()["cuda"].available:
            return {"not_measured": hof.backends()["cuda"].detail}
    check = [tool, "--tool", what, "--error-exitcode", "86", "--target-processes", "all"]
    running = subprocess.Popen(
        [*check, *_pytest(device), "-k", SANITIZED, "--part", "0/8", *files],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # torch's pool of memory would hide what lies behind a tensor's end
        env=_environment(device) | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
    )
    return _summary(list(_outputs([running], seconds)))


def write(report: dict[str, Any], output: Path) -> None:
    """Write what is known so far."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _pytest(device: torch.device) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--device", device.type]


def _environment(device: torch.device) -> dict[str, str]:
    threads = {"OMP_NUM_THREADS": "1"}  # processes side by side
    return os.environ | threads | ({"TRITON_INTERPRET": "1"} if device.type == "cpu" else {})


def _outputs(running: list["subprocess.Popen[str]"], seconds: float) -> Iterator[tuple[int, str]]:
    """Exit status and output of each; -1 for one that was still running at the end."""
    clock = Clock(seconds)
    for process in running:
        try:
            text, _ = process.communicate(timeout=max(1.0, clock.left))
            yield process.returncode, text
        except subprocess.TimeoutExpired:
            yield -1, _interrupted(process)


def _interrupted(process: "subprocess.Popen[str]") -> str:
    """What a process says when it is stopped: pytest names the failures so far."""
    process.send_signal(signal.SIGINT)
    try:
        text, _ = process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        text, _ = process.communicate()
    return text


def _summary(outputs: list[tuple[int, str]]) -> dict[str, Any]:
    """Passed, failed, skipped; whether all is good; the names of failures."""
    counts = dict.fromkeys(("passed", "failed", "error", "skipped"), 0)
    names: list[str] = []
    for _, text in outputs:
        for number, word in re.findall(
            r"(\d+) (passed|failed|error|skipped)", text.rpartition("\n=")[2] or text
        ):
            counts[word] += int(number)
        names += re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)
        names += re.findall(r"^========= (Invalid [^\n]*|ERROR SUMMARY: [1-9][^\n]*)", text, re.MULTILINE)
    unfinished = sum(status == -1 for status, _ in outputs)
    broken = sum(status not in (-1, 0, 1, 5) for status, _ in outputs)  # 5: pytest had nothing to run
    if broken:
        names += [text[-800:] for status, text in outputs if status not in (-1, 0, 1, 5)][:2]
    words = [f"{count} {word}" for word, count in counts.items() if count]
    words += [f"{unfinished} processes ran out of time"] if unfinished else []
    words += [f"{broken} processes broke"] if broken else []
    failed = bool(not counts["passed"] or counts["failed"] or counts["error"] or unfinished or broken)
    return {"summary": ", ".join(words), "good": not failed, "failures": names[:40]} | counts


def _settings(rehearsal: bool, options: argparse.Namespace) -> Settings:
    if rehearsal:
        return Settings(rounds=2, budget=0.0, memory=False)
    return Settings(rounds=11, budget=options.budget, without=tuple(options.without))


def _print_case(found: dict[str, Any]) -> None:
    for entry in found["contenders"]:
        if "forward" not in entry:
            print(f"  {entry['name']}: not measured, {entry.get('not_measured')}", flush=True)
            continue
        forward, both = entry["forward"], entry["forward_backward"]
        peak = entry.get("memory", {}).get("peak_mib")
        print(
            f"  {entry['name']:25} "
            f"forward {forward['median_ms']:9.3f} ms {forward['ratio_to_ours']:7.2f}x ours; "
            f"and backward {both['median_ms']:9.3f} ms {both['ratio_to_ours']:7.2f}x, "
            f"{100 * both['useful_rate_over_gemm']:.0f}% of a product's rate; {peak} MiB",
            flush=True,
        )


def _driver() -> str | None:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip().splitlines()
    return found[0] if found else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m high_order_fused.benchmarks.gpu_check", description=main.__doc__
    )
    add = parser.add_argument
    add("--output", type=Path, default=Path(f"{today()}-gpu-check.json"), help="the JSON file")
    add("--limit", type=float, default=520, help="seconds that everything may take (520)")
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is run (everything)")
    add("--without", nargs="+", default=(), help="rivals that are left out")
    add("--budget", type=float, default=0.4, help="seconds for each contender of a case, twice (0.4)")
    add("--rehearse", action="store_true", help="on a CPU, in Triton's interpreter, with small sizes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
