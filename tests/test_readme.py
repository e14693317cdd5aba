"""The README claims what the results say: its table is written from the file it names; its code runs."""

import json
import re
from pathlib import Path

from high_order_fused.benchmarks import programs, rates
from high_order_fused.benchmarks.markdown import insert, table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_measured_tables_are_those_of_their_sources():
    names = re.findall(r"Source: benchmarks/results/(\S+\.json)", README)
    parts = {"measured": table, "measured layers": table, "measured programs": programs.table}
    parts["measured gpu"] = table
    for name, (what, made) in zip(names, parts.items(), strict=True):
        result = json.loads((ROOT / "benchmarks" / "results" / name).read_text())
        assert insert(README, made(result, name), what) == README


def test_the_measured_rates_are_those_of_their_source():
    text = (ROOT / "docs" / "performance.md").read_text()
    source = ROOT / re.search(r"Source: (benchmarks/results/\S+\.json)", text)[1]
    assert insert(text, rates.table(json.loads(source.read_text()), source.name)) == text


def test_its_pictures_and_pages_exist():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links and all((ROOT / link).exists() for link in links)


def test_its_code_runs():
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        names = {}
        exec(block, names)
        assert names["y"].shape == (32, 10)
