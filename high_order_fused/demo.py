"""The demo, `python -m high_order_fused demo`: learned functions read digits, measured and drawn."""

import argparse
import json
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NEEDS = ("matplotlib", "rich", "sklearn")


def main(argv: list[str] | None = None) -> None:
    """Train three networks on handwritten digits, time one layer; print and write figures and pictures."""
    options = _options(argv)
    if any(find_spec(name) is None for name in NEEDS):
        raise SystemExit("scikit-learn, matplotlib and rich are needed: pip install 'high_order_fused[demo]'")
    _run(options)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m high_order_fused demo", description="Networks read digits.")
    parser.add_argument("--epochs", type=_positive, help="of training (40)")
    parser.add_argument("--seeds", type=_positive, help="how often each network is trained (3)")
    parser.add_argument("--output", type=Path, default=Path("demo_results"), help="a folder (demo_results)")
    parser.add_argument("--quick", action="store_true", help="1 seed, 5 epochs")
    parser.add_argument("--no-plots", action="store_true", help="figures without pictures")
    parser.add_argument(
        "--validation",
        action="store_true",
        help="judge by a fifth of the training images, as for choosing the settings, not by the test images",
    )
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {text}, needs 1 or more")
    return number


def _run(options: argparse.Namespace) -> None:
    from rich.console import Console

    from . import demo_training as training

    console = Console()
    epochs = options.epochs or (5 if options.quick else training.EPOCHS)
    seeds = options.seeds or (1 if options.quick else 3)
    part = "validation" if options.validation else "test"
    data, machine = training.digits(options.validation), training.machine()
    console.print(f"{len(data.x)} handwritten digits to train on, {len(data.test_x)} for {part}.")
    console.print("{cpu}, torch {torch}, backend [bold]{backend}[/].".format(**machine))
    settings = {"epochs": epochs, "seeds": seeds, "judged_by": part, "training_threads": training.THREADS}
    trained = _train(console, data, epochs, seeds)
    results: dict[str, Any] = {
        "machine": machine,
        "settings": settings,
        "networks": {n.name: {"shape": n.shape, **trained[n.name].summary()} for n in training.NETWORKS},
        "layer": training.compare_layer(*((data.x[:256], 3) if options.quick else (data.x, 9))),
    }
    console.print(_networks_table(results["networks"], part), _layer_table(results["layer"]))
    options.output.mkdir(parents=True, exist_ok=True)
    written = [options.output / "results.json"]
    written[0].write_text(json.dumps(results, indent=1) + "\n")
    if not options.no_plots:
        from .demo_plots import draw

        models = {name: found.model for name, found in trained.items() if name != "ReLU"}
        with training.threads(training.THREADS):
            written += draw(options.output, results, models, data.x)
    for path in written:
        console.print(f"Wrote {path}", soft_wrap=True, highlight=False)


def _train(console: Any, data: Any, epochs: int, seeds: int) -> dict[str, Any]:
    """Train the networks, each with a progress bar that shows the accuracy of the last epoch."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from .demo_training import NETWORKS, train

    name, note = TextColumn("{task.description:20}"), TextColumn("{task.fields[note]:>6}")
    with Progress(name, BarColumn(), note, TimeElapsedColumn(), console=console) as progress:
        tasks = [progress.add_task(n.name, total=epochs * seeds, start=False, note="") for n in NETWORKS]

        def report(task: Any, accuracy: float) -> None:
            progress.update(task, advance=1, note=f"{accuracy:.1%}")

        trained = {}
        for network, task in zip(NETWORKS, tasks, strict=True):
            progress.start_task(task)
            trained[network.name] = train(network, data, epochs, seeds, partial(report, task))
    return trained


def _networks_table(networks: dict[str, Any], part: str) -> Any:
    from rich.table import Table

    table = Table("network")
    for heading in ("parameters", f"{part}\naccuracy", "an epoch", "memory of\na step"):
        table.add_column(heading, justify="right")
    for name, found in networks.items():
        lowest, highest = 100 * found["accuracy_lowest"], 100 * found["accuracy_highest"]
        table.add_row(
            f"[bold]{name}[/]\n[dim]{found['shape']}[/]",
            f"{found['parameters']:,}",
            f"[bold]{found['accuracy']:.2%}[/]\n[dim]{lowest:.2f} to {highest:.2f}[/]",
            f"{found['epoch_seconds']:.3f} s",
            f"{found['step_peak_bytes'] / 1e6:.2f} MB",
        )
    return table


def _layer_table(layer: dict[str, Any]) -> Any:
    from rich.table import Table

    size = "{batch} x {in_features} to {out_features}".format(**layer)
    table = Table(f"a piecewise layer, {size}")
    for heading in ("forward + backward", "peak memory"):
        table.add_column(heading, justify="right")
    rows = {"high_order_fused": layer["ours"], "high-order-layers-torch": layer["peer"]}
    for name, found in rows.items():
        if isinstance(found, dict):
            table.add_row(name, f"{1e3 * found['seconds']:.2f} ms", f"{found['peak_bytes'] / 1e6:.2f} MB")
        else:
            table.add_row(name, found)
    if "ratio" in layer:
        ratios = (f"[bold]{layer['ratio'][key]:.1f}x[/]" for key in ("seconds", "peak_bytes"))
        table.add_row("[bold]ratio[/]", *ratios)
    return table
