"""What a result needs to be read later: machine and software, nothing that names a person or place."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import high_order_fused as hof
from high_order_fused.native import native_facts

ROOT = Path(__file__).resolve().parents[1]
PEERS = ("high-order-layers-torch",)


def stamp(device: torch.device) -> dict[str, Any]:
    """Date, device, processor, cores, threads, load, versions, commit, facts of the native parts."""
    return {
        "date": today(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "high_order_fused": hof.__version__,
        "commit": _commit(),
        "native": native_facts(),
        "peers": {name: _version(name) for name in PEERS},
    }


def today() -> str:
    """The date in UTC, YYYY-MM-DD."""
    return datetime.now(UTC).date().isoformat()


def in_checkout() -> bool:
    """Whether this file lies in a checkout of the repository, not in an installed copy."""
    return (ROOT / ".git").exists() and (ROOT / "setup.py").is_file()


def cpu_name() -> str:
    """The processor's model."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit, with "+" if tracked files differ from it; None if not known.

    HOF_COMMIT names it where the files are a copy.
    """
    if not in_checkout():
        return os.environ.get("HOF_COMMIT") or None
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True, stderr=subprocess.DEVNULL)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.strip() + ("+" if changed else "")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
