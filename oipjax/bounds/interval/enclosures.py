"""Interval bound propagation: the ends of every node's values, for all images of a domain at once.

The cheapest certificate there is (Gowal et al. 2018, "On the Effectiveness of Interval Bound
Propagation for Training Verifiably Robust Models", arXiv:1810.12715). The arithmetic and its
rounding are those of `oipjax.bounds.interval.rules`.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float64

from oipjax.bounds.interval.evaluation import evaluate, fits_in, value_of
from oipjax.bounds.interval.network import parameters, trace
from oipjax.bounds.interval.values import Interval, Linear, as_interval, nan_to_inf, saturate
from oipjax.jaxpr import Program, original_variables, restrict
from oipjax.model import Model
from oipjax.spaces import Box, Domain, Sphere

SPHERE_SLACK = 1e-4
"""Images whose mean and standard deviation are off by this much still count as standardised."""


class Ends(NamedTuple):
    """Intervals of the nodes of a layer, ``[h, w, k]`` or ``[k]``, float64.

    They hold for the computed and for the exact values.

    Attributes:
        low: lower ends.
        high: upper ends.
        error: upper limit of the distance between a node as computed in float32 and its exact
            value.
    """

    low: Float64[np.ndarray, "*hw k"]
    high: Float64[np.ndarray, "*hw k"]
    error: Float64[np.ndarray, "*hw k"]


Limits = Mapping[str, tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]]
"""For layers by name, ends ``(low, high)`` of the exact values, each ``[k]`` or ``[h, w, k]``."""


def intervals(
    model: Model, domain: Domain, limits: Limits | None = None, layers: tuple[str, ...] = ()
) -> dict[str, Ends]:
    """The ends of every node of some layers, over all images of a domain.

    Args:
        model: a network all of whose primitives have a rule.
        domain: a `Box` or a `Sphere`, in network input units.
        limits: ends of some layers that are known already; they improve all later ones.
        layers: names of the layers; all by default.

    Raises:
        ValueError: a primitive has no rule (the message names it), or the domain is of another
            kind.
    """
    names = layers if layers else model.layers
    domain = checked_domain(domain)
    program = trace(model)
    outputs = tuple(program.variable(model.layers.index(name)) for name in names)
    steps = restrict(program, frozenset(outputs))
    with jax.enable_x64(True):
        params = parameters(model)
        known = limits_by_variable(model, limits)
        found = _propagate(steps, outputs, domain, params, known)
        return {
            name: Ends(
                low=np.asarray(low)[0],
                high=np.asarray(high)[0],
                error=np.asarray(error)[0],
            )
            for name, (low, high, error) in zip(names, found, strict=True)
        }


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _propagate(program: Program, outputs: tuple[int, ...], domain: Box | Sphere, params, limits):
    """``(low, high, error)`` of each output."""
    values = evaluate(program, [*params, images_of(domain)], limits=limits)
    intervals = [as_interval(value_of(values, output)) for output in outputs]
    return [nan_to_inf(interval)[:3] for interval in intervals]


def checked_domain(domain: Domain) -> Box | Sphere:
    """The domain; a ValueError if nothing can be proved over it."""
    if not isinstance(domain, Box | Sphere):
        raise ValueError(
            f"bounds are known over a Box or a Sphere, not over a {type(domain).__name__}"
        )
    return domain


def limits_by_variable(
    model: Model, limits: Limits | None
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Limits by the numbers of the program's variables. They hold for the crops of a layer too."""
    if limits is None:
        return {}
    program = trace(model)
    originals = original_variables(program)
    out = {}
    for name, (low, high) in limits.items():
        whole = (1, *model.shapes[name])
        low = np.broadcast_to(np.asarray(low, np.float64), whole)
        high = np.broadcast_to(np.asarray(high, np.float64), whole)
        layer = originals[program.variable(model.layers.index(name))]
        for number, part in enumerate(program.shapes):
            is_part = len(part) == len(whole) and fits_in(part, whole)
            if originals[number] == layer and is_part:
                leading = tuple(slice(side) for side in part)
                out[number] = (low[leading], high[leading])
    return out


def box_ends(box: Box) -> tuple[np.ndarray, np.ndarray]:
    """The ends ``[1, 1, 1, c]`` of the pixels as float32 has them, in float64."""
    low = np.asarray(box.low, np.float32).astype(np.float64)
    high = np.asarray(box.high, np.float32).astype(np.float64)
    return low.reshape(1, 1, 1, -1), high.reshape(1, 1, 1, -1)


def images_of(domain: Box | Sphere) -> Interval:
    """All images of a domain at once, ``[1, h, w, c]``."""
    shape = (1, *domain.shape)
    zero = jnp.zeros(shape)
    if isinstance(domain, Box):
        low, high = box_ends(domain)
        return saturate(
            Interval(
                low=jnp.broadcast_to(low, shape),
                high=jnp.broadcast_to(high, shape),
                error=zero,
            )
        )
    one = jnp.ones(shape)
    norm = sphere_norm(domain)
    pixels = int(np.prod(shape))
    linear = Linear(
        offset=zero,
        total=one,
        square=one,
        pixels=pixels,
        norm=float(np.sqrt(pixels)) * (1 + SPHERE_SLACK),
        mean=SPHERE_SLACK,
    )
    return saturate(Interval(-norm * one, norm * one, zero, linear))


def sphere_norm(domain: Sphere) -> float:
    """Upper limit of the norm of a standardised image, its mean included."""
    return float(np.sqrt(np.prod(domain.shape)) * np.hypot(1 + SPHERE_SLACK, SPHERE_SLACK))
