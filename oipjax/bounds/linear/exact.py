"""Best images in closed form: nodes that are linear in the image, such as those of a first convolution before its ReLU.

``<w, x> + c`` is greatest over a box at the corner that the signs of ``w`` choose, and over images
of mean 0 and norm ``sqrt(n)`` along ``w - mean(w)`` (Cauchy and Schwarz). What an ascent reaches
can be held against that.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from oipjax.bounds.interval import (
    box_ends,
    checked_domain,
    evaluate,
    images_of,
    parameters,
    trace,
)
from oipjax.bounds.linear.backward import pull
from oipjax.jaxpr import Program
from oipjax.model import Model
from oipjax.objectives import Node
from oipjax.spaces import Box, Domain, Sphere


class Optimum(NamedTuple):
    """Best images of linear nodes.

    Attributes:
        images: float32 ``[n, h, w, c]``.
        values: float64 ``[n]``, the nodes' exact values there, which are their maxima.
    """

    images: np.ndarray
    values: np.ndarray


def best_images(model: Model, layer: str, nodes: np.ndarray, domain: Domain) -> Optimum:
    """The best image of a domain for each node of a layer that is linear in the image.

    Args:
        model: the network.
        layer: name of the layer, such as ``conv1_pre``.
        nodes: int ``[n, 3]`` positions ``(i, j, map)``, or ``[n]`` in a layer without space.
        domain: a `Box` or a `Sphere`.

    Raises:
        ValueError: the layer is not linear in the image, or there is no such node.
    """
    nodes, domain = Node(layer).check(model, nodes), checked_domain(domain)
    program = trace(model)
    start = program.variable(model.layers.index(layer))
    specs = np.zeros((len(nodes), 1, *model.shapes[layer]))
    specs[(np.arange(len(nodes)), 0, *np.atleast_2d(nodes.T))] = 1
    with jax.enable_x64(True):
        offset, weights = _weights(program, domain, start, parameters(model), specs)
        if set(weights) - {program.inputs[-1]}:
            raise ValueError(
                f"{layer} of {model.name} is not linear in the image; closed forms exist for those only"
            )
        w = (
            np.asarray(weights[program.inputs[-1]])[:, 0]
            if weights
            else np.zeros((len(nodes), *model.input_shape))
        )
        if isinstance(domain, Box):
            low, high = box_ends(domain)
            images = np.where(w > 0, high, low)
        else:
            centred = w - w.mean((1, 2, 3), keepdims=True)
            norm = np.sqrt(np.square(centred).sum((1, 2, 3), keepdims=True))
            images = centred / np.maximum(norm, 1e-300) * np.sqrt(w[0].size)
        return Optimum(images.astype(np.float32), np.asarray(offset) + (w * images).sum((1, 2, 3)))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _weights(program: Program, domain: Box | Sphere, start: int, params, specs):
    pulled = pull(
        program, evaluate(program, [*params, images_of(domain)]), start, jnp.asarray(specs)
    )
    return pulled.offset, pulled.coefficients
