"""The comparison with other libraries: what each of them did, and the tables and bars of it."""

from experiments.benchmarks.comparison.entry import (
    DEFAULT_JOB,
    DOCUMENTED,
    OWN,
    SHORT_JOB,
    SPACES,
    Entry,
    Judge,
    Measurement,
    quality,
)
from experiments.benchmarks.comparison.report import (
    job_rows,
    plot,
    rate_rows,
    show_failures,
    show_rows,
)

__all__ = [
    "DEFAULT_JOB",
    "DOCUMENTED",
    "OWN",
    "SHORT_JOB",
    "SPACES",
    "Entry",
    "Judge",
    "Measurement",
    "job_rows",
    "plot",
    "quality",
    "rate_rows",
    "show_failures",
    "show_rows",
]
