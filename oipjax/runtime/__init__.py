"""One batch size, one compiled program, a stated precision."""

from oipjax.runtime.tiles import (
    OPTIONS,
    PRECISIONS,
    Program,
    cast,
    checked_precision,
    checked_tile,
    cores,
    default_tile,
    in_flight,
    padded,
    products,
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
