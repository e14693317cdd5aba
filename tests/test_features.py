"""docs/features.md names what exists: every row once, with tests, files and objects that are there."""

import ast
import re
from functools import cache, reduce
from pathlib import Path

import pytest

import high_order_fused as hof

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "features.md").read_text()
NAMES = sorted(set(re.findall(r"`([^`\s]+)`", TEXT)))
ROWS = re.findall(r"^\| (\d+) \|.*\|(.*)\|(.*)\|$", TEXT, re.MULTILINE)


@cache
def defined_in(file):
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_row_is_there_once_and_says_where_and_by_what():
    assert [int(number) for number, _, _ in ROWS] == list(range(1, 98))
    for number, where, shown in ROWS:
        assert "`" in where and ("`" in shown or "open: " in shown), number


@pytest.mark.parametrize("name", [name for name in NAMES if "::" in name])
def test_a_test_exists(name):
    file, test = name.split("::")
    assert test in defined_in(file)


@pytest.mark.parametrize("name", [name for name in NAMES if re.fullmatch(r"[\w/]+\.(py|md)", name)])
def test_a_file_exists(name):
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("hof.")])
def test_an_object_exists(name):
    assert reduce(getattr, name.split(".")[1:], hof)


def test_every_name_is_checked():
    others = {name for name in NAMES if not re.search(r"::|\.(py|md)$|^hof\.", name)}
    assert all(name.isidentifier() or "=" in name or name == "run" for name in others), others
