"""Best images in closed form, for nodes that are linear in the image.

Such are the nodes of a first convolution before its ReLU. ``<w, x> + c`` is greatest over a box at
the corner that the signs of ``w`` choose, and over images of mean 0 and norm ``sqrt(n)`` along
``w - mean(w)`` (Cauchy and Schwarz). The result of an ascent can be held against that.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Float64, Integer

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

    images: Float32[np.ndarray, "n h w c"]
    values: Float64[np.ndarray, " n"]


def best_images(
    model: Model, layer: str, nodes: Integer[np.ndarray, "n ..."], domain: Domain
) -> Optimum:
    """The best image of a domain for each node of a layer that is linear in the image.

    Args:
        model: the network.
        layer: name of the layer, such as ``conv1_pre``.
        nodes: int ``[n, 3]`` positions ``(i, j, map)``, or ``[n]`` in a layer without space.
        domain: a `Box` or a `Sphere`.

    Raises:
        ValueError: the layer is not linear in the image, or there is no such node.
    """
    nodes = Node(layer).check(model, nodes)
    known_domain = checked_domain(domain)
    offset, weights = _linear_functions(model, layer, nodes, known_domain)
    if isinstance(known_domain, Box):
        low, high = box_ends(known_domain)
        images = np.where(weights > 0, high, low)
    else:
        images = _best_on_sphere(weights)
    values = offset + (weights * images).sum((1, 2, 3))
    return Optimum(images=images.astype(np.float32), values=values)


def _linear_functions(
    model: Model, layer: str, nodes: np.ndarray, domain: Box | Sphere
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes as linear functions of the image: offsets ``[n]`` and weights ``[n, h, w, c]``."""
    program = trace(model)
    start = program.variable(model.layers.index(layer))
    image = program.inputs[-1]
    specs = np.zeros((len(nodes), 1, *model.shapes[layer]))
    specs[(np.arange(len(nodes)), 0, *np.atleast_2d(nodes.T))] = 1
    with jax.enable_x64(True):
        offset, weights = _pulled(program, domain, start, parameters(model), specs)
    if set(weights) - {image}:
        raise ValueError(
            f"{layer} of {model.name} is not linear in the image; closed forms exist for those only"
        )
    if not weights:
        return np.asarray(offset), np.zeros((len(nodes), *model.input_shape))
    return np.asarray(offset), np.asarray(weights[image])[:, 0]


def _best_on_sphere(weights: np.ndarray) -> np.ndarray:
    """Images of mean 0 and standard deviation 1 along ``weights [n, h, w, c]``."""
    axes = (1, 2, 3)
    centred = weights - weights.mean(axes, keepdims=True)
    norm = np.sqrt(np.square(centred).sum(axes, keepdims=True))
    direction = centred / np.maximum(norm, 1e-300)
    return direction * np.sqrt(weights[0].size)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _pulled(program: Program, domain: Box | Sphere, start: int, params, specs):
    values = evaluate(program, [*params, images_of(domain)])
    pulled = pull(program, values, start, jnp.asarray(specs))
    return pulled.offset, pulled.coefficients
