"""Bounds made for chains of convolutions."""

from oipjax.bounds.conv.hull import hull_bound
from oipjax.bounds.conv.patches import Cells, cells
from oipjax.bounds.conv.sphere import energy_bound
from oipjax.bounds.conv.strips import mean_bound, mean_search
from oipjax.bounds.conv.windows import window_bound

__all__ = [
    "Cells",
    "cells",
    "energy_bound",
    "hull_bound",
    "mean_bound",
    "mean_search",
    "window_bound",
]
