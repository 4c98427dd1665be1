"""oipjax: for every map of a trained CNN, the input patterns that trigger it most.

>>> import jax, oipjax
>>> model = oipjax.load()
>>> result = oipjax.atlas(jax.random.key(0), model, "conv3", maps=(120,), draws=256, steps=20)
>>> result.images.shape
(1, 4, 28, 28, 1)
"""

from pathlib import Path

from oipjax.model import Model
from oipjax.objectives.units import Class, Direction, Layer, Map, Node, TotalVariation
from oipjax.search.ascent import Ascent, ascend
from oipjax.search.methods import Classic, Momentum
from oipjax.search.precursor import Survey, survey
from oipjax.spaces.pixels import Box, Fluctuation, Fluctuations, Standardised, space_for
from oipjax.study.result import Atlas

# After everything else, since this function takes the name of its module.
from oipjax.study.run import Study, atlas

__version__ = "0.1.0"

__all__ = [
    "Ascent",
    "Atlas",
    "Box",
    "Class",
    "Classic",
    "Direction",
    "Fluctuation",
    "Fluctuations",
    "Layer",
    "Map",
    "Model",
    "Momentum",
    "Node",
    "Standardised",
    "Study",
    "Survey",
    "TotalVariation",
    "ascend",
    "atlas",
    "load",
    "space_for",
    "survey",
]


def load(path: str | Path = "mnist-cnn") -> Model:
    """Read a trained network: a checkpoint folder, or the name of one that ships with oipjax.

    Raises:
        ValueError: there is none, or it is damaged. See `oipjax.networks.checkpoint.load`.
    """
    from oipjax.networks import checkpoint

    return checkpoint.load(path)
