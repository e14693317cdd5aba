"""Texts to learn from: Python's own documentation, or WikiText from a folder; their units as numbers."""

import ast
import sysconfig
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from high_order_fused.checks import choice, count

UNITS = "characters", "words"
UNKNOWN = "<unk>"


def load(folder: str | None, unit: str, fraction: float) -> tuple[list[str], list[str]]:
    """The units of a text to train on, a fraction of it from its beginning, and of one to judge by.

    Without a folder: the docstrings of the standard library in the order of its files, every tenth of them to
    judge by. ValueError for a wrong argument, FileNotFoundError where the folder lacks WikiText's files.
    """
    choice("unit", unit, UNITS)
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction: got {fraction}, needs a number above 0, at most 1")
    train, held_out = _documentation() if folder is None else _wikitext(Path(folder))
    units = split(train, unit)
    return units[: max(1, int(fraction * len(units)))], split(held_out, unit)


def split(text: str, unit: str) -> list[str]:
    """A text's characters, or its words, of which the end of a line is one."""
    return list(text) if unit == "characters" else text.replace("\n", " <eos> ").split()


def known(units: Sequence[str], most: int) -> list[str]:
    """UNKNOWN and the most frequent units, so many in all; a unit's number is its position."""
    frequent = sorted(Counter(units).items(), key=lambda found: (-found[1], found[0]))
    return [UNKNOWN, *(unit for unit, _ in frequent if unit != UNKNOWN)][: count("vocabulary", most)]


def encoded(units: Sequence[str], vocabulary: Sequence[str]) -> Tensor:
    """The units' numbers; 0 for those that the vocabulary lacks."""
    numbers = {unit: number for number, unit in enumerate(vocabulary)}
    return torch.tensor([numbers.get(unit, 0) for unit in units])


@cache
def _documentation() -> tuple[str, str]:
    found = []
    documented = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            text = ast.get_docstring(node) if isinstance(node, documented) else None
            if text and text.isascii():
                found.append(text)
    held_out = found[9::10]
    del found[9::10]
    return "\n\n".join(found), "\n\n".join(held_out)


def _wikitext(folder: Path) -> tuple[str, str]:
    for ending in ("tokens", "raw"):
        files = [folder / f"wiki.{part}.{ending}" for part in ("train", "valid")]
        if all(file.is_file() for file in files):
            train, held_out = (file.read_text(encoding="utf-8") for file in files)
            return train, held_out
    raise FileNotFoundError(
        f"data: {folder} needs wiki.train.tokens and wiki.valid.tokens, or those with .raw"
    )
