"""Experiments with the layers of this package, one command each: `python -m examples.NAME option=value`.

An experiment is a dataclass of options and `run(options)`, which trains, prints a table, writes its picture
and returns its figures. They share command.py (options, sweeps, results), training.py (the loop) and
pictures.py. They need the extra `examples` and are run from the checkout.
"""
