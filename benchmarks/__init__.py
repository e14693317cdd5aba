"""Benchmarks: cases as data, rivals, one runner, results with a stamp of the machine.

`python -m high_order_fused bench` runs them; installed, the folder is `high_order_fused.benchmarks`.
"""
