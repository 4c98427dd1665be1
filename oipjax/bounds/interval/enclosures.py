"""Interval bound propagation: between which two values every node lies, for all images of a domain at once.

The cheapest certificate there is (Gowal et al. 2018, "On the Effectiveness of Interval Bound
Propagation for Training Verifiably Robust Models", arXiv:1810.12715); the arithmetic and its
rounding are those of `oipjax.bounds.interval.rules`.
"""

import functools
import operator
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from oipjax.bounds.interval.evaluation import evaluate, read
from oipjax.bounds.interval.values import Interval, Linear, lift, settled
from oipjax.jaxpr import Program, restricted, trace, wholes
from oipjax.model import Model
from oipjax.spaces import Box, Domain, Sphere

SPHERE_SLACK = 1e-4
"""Images whose mean and standard deviation are off by this much still count as standardised."""


class Ends(NamedTuple):
    """Intervals of the nodes of a layer, ``[h, w, k]`` or ``[k]``, float64, for float32 and exact values alike.

    Attributes:
        low, high: the ends.
        error: how far a node as computed in float32 can be from its exact value.
    """

    low: np.ndarray
    high: np.ndarray
    error: np.ndarray


Limits = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""For layers by name, ends ``(low, high)`` of the exact values of their nodes, each ``[k]`` or ``[h, w, k]``."""


def intervals(
    model: Model, domain: Domain, limits: Limits | None = None, layers: tuple[str, ...] = ()
) -> dict[str, Ends]:
    """Between which values every node of a layer lies, over all images of a domain.

    Args:
        model: a network all of whose primitives have a rule.
        domain: a `Box` or a `Sphere`, in network input units.
        limits: what is known already of some layers; all later ones profit.
        layers: names of the layers that are asked for; all unless given.

    Raises:
        ValueError: a primitive has no rule (the message names it), or the domain is of another
            kind.
    """
    names = layers or model.layers
    program = trace(model)
    outputs = tuple(program.variable(model.layers.index(name)) for name in names)
    steps = restricted(program, frozenset(outputs))
    with jax.enable_x64(True):
        out = _propagate(
            steps, outputs, checked_domain(domain), parameters(model), numbered(model, limits)
        )
        return {
            name: Ends(*(np.asarray(end)[0] for end in ends))
            for name, ends in zip(names, out, strict=True)
        }


def opened(value: Interval) -> Interval:
    """An interval whose ends are infinite where nothing is known, for what is cut down by other means."""
    low, high = (
        jnp.where(jnp.isnan(value.low), -jnp.inf, value.low),
        jnp.where(jnp.isnan(value.high), jnp.inf, value.high),
    )
    return value._replace(low=low, high=high)


def checked_domain(domain: Domain) -> Box | Sphere:
    """The domain; a ValueError if nothing can be proved over it."""
    if not isinstance(domain, Box | Sphere):
        raise ValueError(
            f"bounds are known over a Box or a Sphere, not over a {type(domain).__name__}"
        )
    return domain


def parameters(model: Model) -> list[np.ndarray]:
    """The parameters as the program takes them, in float64."""
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(model.params)]


def numbered(model: Model, limits: Limits | None) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Limits by the numbers of the program's variables; those of a layer are those of its crops too."""
    program, out = trace(model), {}
    whole = wholes(program)
    for name, given in (limits or {}).items():
        shape = (1, *model.shapes[name])
        ends = tuple(np.broadcast_to(np.asarray(end, np.float64), shape) for end in given)
        layer = whole[program.variable(model.layers.index(name))]
        for number, part in enumerate(program.shapes):
            if (
                whole[number] == layer
                and len(part) == len(shape)
                and all(map(operator.le, part, shape))
            ):
                out[number] = tuple(end[tuple(map(slice, part))] for end in ends)
    return out


def box_ends(box: Box) -> tuple[np.ndarray, np.ndarray]:
    """The ends ``[1, 1, 1, c]`` of the pixels as float32 has them, in float64."""
    low, high = (
        np.asarray(end, np.float32).astype(np.float64).reshape(1, 1, 1, -1)
        for end in (box.low, box.high)
    )
    return low, high


def images_of(domain: Box | Sphere) -> Interval:
    """All images of a domain at once, ``[1, h, w, c]``."""
    shape = (1, *domain.shape)
    zero, one = jnp.zeros(shape), jnp.ones(shape)
    if isinstance(domain, Box):
        low, high = box_ends(domain)
        return settled(Interval(jnp.broadcast_to(low, shape), jnp.broadcast_to(high, shape), zero))
    pixels, norm = int(np.prod(shape)), sphere_norm(domain)
    centred = float(np.sqrt(pixels)) * (1 + SPHERE_SLACK)
    return settled(
        Interval(
            -norm * one, norm * one, zero, Linear(zero, one, one, pixels, centred, SPHERE_SLACK)
        )
    )


def sphere_norm(domain: Sphere) -> float:
    """The norm of a standardised image, its mean included, at most."""
    return float(np.sqrt(np.prod(domain.shape)) * np.hypot(1 + SPHERE_SLACK, SPHERE_SLACK))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _propagate(program: Program, outputs: tuple[int, ...], domain: Box | Sphere, params, limits):
    values = evaluate(program, [*params, images_of(domain)], limits=limits)
    return [opened(lift(read(values, output)))[:3] for output in outputs]
