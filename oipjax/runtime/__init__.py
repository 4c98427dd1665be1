"""One batch size, one compiled program, a stated precision."""

from oipjax.runtime.precision import PRECISIONS, cast, checked_precision, products
from oipjax.runtime.program import OPTIONS, Program
from oipjax.runtime.tiling import (
    checked_tile,
    cores,
    default_tile,
    in_flight,
    padded,
    tiles,
    workers,
)

__all__ = [
    "OPTIONS",
    "PRECISIONS",
    "Program",
    "cast",
    "checked_precision",
    "checked_tile",
    "cores",
    "default_tile",
    "in_flight",
    "padded",
    "products",
    "tiles",
    "workers",
]
