"""The compiled parts, where they are there: operator libraries and a module of build facts."""

import importlib.util
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

import torch

_NOTE = Path(__file__).with_name("native_missing.txt")  # written by setup.py when it left a part out


def native_facts() -> dict[str, str] | None:
    """Return compiler, flags, instruction set, threads library and more; None without the facts module."""
    return None if _facts is None else dict(_facts)


def native_missing() -> str | None:
    """Return which native parts are missing and why; None when both are loaded."""
    parts: dict[str, list[str]] = {}
    for part, why in _missing.items():
        parts.setdefault(why, []).append(part)
    return "; ".join(f"{' and '.join(names)}: {why}" for why, names in parts.items()) or None


def _spec(part: str) -> ModuleSpec:
    """A part beside this file: an editable installation would also offer that of another checkout."""
    spec = PathFinder.find_spec(f"{__package__}.{part}", [str(Path(__file__).parent)])
    if spec is None or spec.origin is None:
        raise FileNotFoundError("not built")
    return spec


def load(part: str) -> str | None:
    """Load an operator library into torch; return in one line why it did not load, or None."""
    try:
        torch.ops.load_library(str(_spec(part).origin))
    except Exception as error:
        return _reason(part, error)
    return None


def _load_facts() -> dict[str, str]:
    """Return the facts of the facts module; raises whatever the import does."""
    spec = _spec("_native")
    module = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    facts: dict[str, str] = module.facts()
    return facts


def _reason(part: str, error: Exception) -> str:
    """Return in one line why `part` did not load: the build's own word if it left one, else the loader's."""
    if not isinstance(error, (FileNotFoundError, ModuleNotFoundError)):
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    try:
        noted = dict(line.split(": ", 1) for line in _NOTE.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):
        noted = {}
    return noted.get(part, "not built")


_missing: dict[str, str] = {}
_facts: dict[str, str] | None = None
_why = load("_C")
if _why is not None:
    _missing["_C"] = _why
try:
    _facts = _load_facts()
except Exception as error:
    _missing["_native"] = _reason("_native", error)
