"""What to climb: scores of one image."""

from oipjax.objectives.base import Objective, Sum
from oipjax.objectives.penalties import TotalVariation
from oipjax.objectives.units import (
    Class,
    Direction,
    Layer,
    Map,
    Node,
    PreActivation,
    spatial_mean,
)

__all__ = [
    "Class",
    "Direction",
    "Layer",
    "Map",
    "Node",
    "Objective",
    "PreActivation",
    "Sum",
    "TotalVariation",
    "spatial_mean",
]
