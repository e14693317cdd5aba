"""python -m high_order_fused info | bench | demo | run: facts, measurements, a tour, a peer's program."""

import argparse
import os
import runpy
import sys
from collections.abc import Callable, Sequence

EXTRAS = {
    "bench": ("matplotlib", "rich"),
    "demo": ("matplotlib", "numpy", "rich", "sklearn"),
}  # extra: its modules


def info(argv: Sequence[str]) -> None:
    """Print versions, processor and every backend, with the reason where one is missing."""
    argparse.ArgumentParser("python -m high_order_fused info", description=info.__doc__).parse_args(argv)
    import torch

    import high_order_fused as hof

    from .native import native_facts, native_missing

    facts = native_facts() or {"": native_missing() or "not built"}
    capability = torch.backends.cpu.get_cpu_capability()
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    rows = [
        ("high_order_fused", hof.__version__),
        ("torch", torch.__version__),
        ("processor", f"{capability}, {torch.get_num_threads()} threads"),
        ("GPU", ", ".join(devices) or "none that torch can use"),
        ("compiled parts", ", ".join(f"{key} {value}".strip() for key, value in facts.items())),
        ("", ""),
    ]
    rows += [(name, f"{'yes' if s.available else 'no '}  {s.detail}") for name, s in hof.backends().items()]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}}  {value}".rstrip())


def bench(argv: Sequence[str]) -> None:
    """Measure our layers and their rivals."""
    from .benchmarks.cli import main

    main(list(argv))


def demo(argv: Sequence[str]) -> None:
    """Train three networks on handwritten digits; print, compare and draw."""
    from .demo import main

    main(list(argv))


def run(argv: Sequence[str]) -> None:
    """Run a script for high-order-layers-torch or efficient-kan, unchanged, on our layers."""
    parser = argparse.ArgumentParser(
        "python -m high_order_fused run",
        description=f"{run.__doc__} Otherwise as `python SCRIPT`; other processes that it starts afresh "
        "(not forks) see the originals unless they call high_order_fused.compat.install().",
    )
    parser.add_argument("script", help="a file")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what the script gets")
    script = parser.parse_args(argv[:1]).script
    if not os.path.isfile(script):
        parser.error(f"script: got {script!r}, needs a file that is there")
    from .compat import install

    install()
    sys.argv = list(argv)
    if not sys.flags.safe_path:  # where `python -m` put the current folder
        sys.path[0] = os.path.dirname(os.path.realpath(script))
    runpy.run_path(os.path.abspath(script), run_name="__main__")  # as python has __file__


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "info": info,
    "bench": bench,
    "demo": demo,
    "run": run,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the subcommand with the rest of the arguments; one line where an optional package is missing."""
    lines = "\n".join(f"  {name:7}{command.__doc__}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        "python -m high_order_fused", description=lines, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="see COMMAND --help")
    options = parser.parse_args(argv)
    try:
        COMMANDS[options.command](options.arguments)
    except ModuleNotFoundError as missing:
        name = (missing.name or "").partition(".")[0]
        if name not in EXTRAS.get(options.command, ()):
            raise
        sys.exit(f"{name} is not installed: pip install 'high_order_fused[{options.command}]' brings it")


if __name__ == "__main__":
    main()
