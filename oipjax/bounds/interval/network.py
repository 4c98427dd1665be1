"""A network as the bounds see it: its program and its parameters."""

import jax
import numpy as np

from oipjax.jaxpr import Program, flatten_apply
from oipjax.model import Model


def trace(model: Model) -> Program:
    """The program of ``model.apply`` for one image; its outputs are ``model.layers``."""
    return flatten_apply(model.apply, model.params, model.input_shape, model.layers)


def parameters(model: Model) -> list[np.ndarray]:
    """The parameters as the program takes them, in float64."""
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(model.params)]
