"""What to climb: scores of one image."""

from oipjax.objectives.units import (
    Class,
    Direction,
    Layer,
    Map,
    Node,
    Objective,
    PreActivation,
    Sum,
    TotalVariation,
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
