"""Benchmarks: speed beside quality, measured in one run, with the facts of the machine."""
