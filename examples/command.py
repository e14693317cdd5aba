"""A command line for an experiment: options by their names, sweeps, a table, a file of results."""

import dataclasses
import inspect
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

Figures = dict[str, float | list[float]]  # a list holds a figure of each seed


@dataclasses.dataclass
class Options:
    """What every experiment can be told; its own options are the fields of a dataclass on top of this one."""

    seed: int = 0  # the first seed
    seeds: int = 1  # how many, one after the other
    tiny: bool = False  # seconds only, to see that it runs
    results: str = "examples/results"  # the folder of pictures and figures; build/examples if tiny
    device: str = "cpu"


AnyOptions = TypeVar("AnyOptions", bound=Options)


def command(
    options: type[AnyOptions], run: Callable[[AnyOptions], Figures], objective: str | None = None
) -> Callable[[], None]:
    """The main function of an experiment: `main = command(Options, run)`.

    Its arguments are `name=value` for the fields of options, `-m name=1,2,3` for a sweep, `--help` and what
    else hydra knows. What run returns goes to NAME.json in the folder of results; a sweep's runs each have a
    folder in there, named after what differs, and a table at the end. objective names the figure, or the list
    of figures by its mean, that a sweeper which searches shall make small. A ValueError, ImportError or
    OSError of run ends the command with its message alone, anything else with a traceback.
    """
    name = Path(inspect.getfile(run)).stem

    def main() -> None:
        try:
            import hydra
            from hydra.core.config_store import ConfigStore
            from hydra.core.hydra_config import HydraConfig
            from hydra.types import RunMode
            from omegaconf import OmegaConf
        except ImportError:
            raise SystemExit("hydra is needed: pip install 'high_order_fused[examples]'") from None
        swept: list[dict[str, Any]] = []

        def job(config: Any) -> float | None:
            given: Any = OmegaConf.to_object(config)
            if given.tiny and given.results == options.results:
                given.results = "build/examples"  # not in place of what was measured
            what = HydraConfig.get()
            differs = what.job.override_dirname.replace("/", "_")
            if what.mode == RunMode.MULTIRUN:
                given.results = str(Path(given.results) / f"{name}-{differs}")
            try:
                figures = run(given)
            except (ValueError, ImportError, OSError) as error:
                if os.environ.get("HYDRA_FULL_ERROR"):
                    raise
                raise SystemExit(f"examples.{name}: {error}") from None
            print(f"Wrote {write_figures(given, name, figures)}")
            if what.mode == RunMode.MULTIRUN:
                swept.append({"run": differs, **{k: mean(v) for k, v in figures.items()}})
            return None if objective is None else mean(figures[objective])

        with tempfile.TemporaryDirectory() as folder:  # for hydra's own records, which nobody needs here
            store = ConfigStore.instance()
            store.store("options", options)
            store.store(name, _hydra_settings(name, inspect.getdoc(inspect.getmodule(run)) or name, folder))
            hydra.main(version_base="1.3", config_path=folder, config_name=name)(job)()
        if swept:
            show(f"{name}: the sweep", _upright(swept))

    return main


def _hydra_settings(name: str, description: str, folder: str) -> dict[str, Any]:
    quiet = [{"override hydra/job_logging": "none"}, {"override hydra/hydra_logging": "none"}]
    hydra = {
        "job": {"name": name, "config": {"override_dirname": {"exclude_keys": ["results", "device"]}}},
        "help": {"app_name": f"examples.{name}", "header": description},
        "output_subdir": None,
        "run": {"dir": folder},
        "sweep": {"dir": folder},
    }
    return {"defaults": ["options", *quiet, "_self_"], "hydra": hydra}


def _upright(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The table of a sweep, a row a run, or, where there are fewer runs than figures, a row a figure."""
    if len(rows) >= len(rows[0]) - 1:
        return rows
    return [{"figure": name, **{r["run"]: r[name] for r in rows}} for name in rows[0] if name != "run"]


def seeds(options: Options) -> range:
    """The seeds an experiment shall run with."""
    if options.seeds < 1:
        raise ValueError(f"seeds: got {options.seeds}, needs an integer of at least 1")
    return range(options.seed, options.seed + options.seeds)


def mean(figure: float | list[float]) -> float:
    """A figure, or the mean of those of the seeds."""
    return sum(figure) / len(figure) if isinstance(figure, list) else figure


def show(title: str, rows: Sequence[dict[str, Any]], note: str = "") -> None:
    """Print a table, a dict a row, the first with the headings; numbers to the right, floats short."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", caption=note, caption_justify="left")
    for heading, value in rows[0].items():
        table.add_column(heading, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)


def write_figures(options: Options, name: str, figures: Figures) -> Path:
    """NAME.json in the folder of results: the options, the figures, the versions of what computed them."""
    given = dataclasses.asdict(options)
    folder = Path(given.pop("results"))
    path = folder / f"{name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    versions = {"torch": torch.__version__, "high_order_fused": _package_commit()}
    found = {"options": given, "figures": {k: _short(v) for k, v in figures.items()}, "versions": versions}
    path.write_text(json.dumps(found, indent=1) + "\n")
    return path


def _short(figure: float | list[float]) -> float | list[float]:
    return [float(f"{f:.6g}") for f in figure] if isinstance(figure, list) else float(f"{figure:.6g}")


def _package_commit() -> str:
    """The last commit that changed the package."""
    ask = ["git", "log", "-1", "--format=%h", "--", "high_order_fused"]
    try:
        answer = subprocess.run(ask, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    except OSError:
        return "unknown"
    return answer.stdout.strip() or "unknown"
