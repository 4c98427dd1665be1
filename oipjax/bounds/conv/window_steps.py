"""Adam on a smoothed maximum: the steps of the search for multipliers of the window bound.

`oipjax.bounds.conv.windows` states the problem, `oipjax.bounds.conv.window_search` the search.

The search is sensitive to rounding. Exchanging the two summands of Adam's moments moves the bounds
of two of 64 maps of the shipped network by up to 3e-3, one up and one down, and the others by less
than 1e-4.

Axes: ``c`` channels, ``q`` positions of the pooling window, ``p`` pixels of a patch, ``n`` problems
(a row and a part of the box), ``w`` corners of a working set.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from oipjax.bounds.conv.window_dual import affine_part
from oipjax.bounds.conv.window_rows import Side

_UPDATES = 8  # from one pass to the next
_FIRST_TEMPERATURE = 0.1  # in units of a cell's part of the bound
_LAST_TEMPERATURE = 0.01
_PHI_STEP = 0.002  # in the same units
_ALPHA_STEP = 0.1
_LAST_STEP = 0.1  # the last step, as a part of the first
_ADAM = optax.scale_by_adam(b1=0.9, b2=0.99, eps=1e-8)

# Optax corrects the bias of the moments for a count of updates that all variables have in common.
# But problems join the search at different times. From this count on the correction is 1. The steps
# were chosen without a correction. With it some bounds are tighter, but some are 7 % looser.
_LARGE_COUNT = np.int32(10_000)


class Variables(NamedTuple):
    """Multipliers, or something of the same shape.

    Attributes:
        phi: two tables, ``[entries, shared + 1]``.
        alpha: ``[n, c, q]``.
    """

    phi: Any
    alpha: Any


class Moments(NamedTuple):
    """Adam's two moments of the gradients."""

    first: Variables
    second: Variables


class WorkingSet(NamedTuple):
    """The problems that an improvement sees.

    Attributes:
        x: ``[n, w, p]``, corners.
        values: ``[n, w]``, the part with positive weights there.
        negative: ``[n, c]``, the negative weights; 0 for the others.
        bias_share: ``[n]``, the share of the second convolution's bias.
        kind: ``[n]``, the kind of cell.
        cells: ``[kinds]``, the number of cells of each kind.
        sides: four sides, for the rows of the problems.
        conv: ``[c, q, p]``.
        bias: ``[c, q]``.
    """

    x: Any
    values: Any
    negative: Any
    bias_share: Any
    kind: Any
    cells: Any
    sides: tuple[Side, ...]
    conv: Any
    bias: Any


class Rates(NamedTuple):
    """The temperature of the smoothed maximum, and the largest steps of phi and alpha."""

    temperature: Any
    phi: Any
    alpha: Any


def rates_at(done: float, unit: Any) -> Rates:
    """Give the temperature and the steps after a share ``done`` of all passes.

    Args:
        done: from 0 to 1.
        unit: a cell's part of the bound.
    """
    temperature = unit * _FIRST_TEMPERATURE ** (1 - done) * _LAST_TEMPERATURE**done
    decay = 1 - (1 - _LAST_STEP) * done
    return Rates(
        temperature=np.float32(temperature),
        phi=np.float32(_PHI_STEP * unit * decay),
        alpha=np.float32(_ALPHA_STEP * decay),
    )


def improve(
    variables: Variables, moments: Moments, working_set: WorkingSet, rates: Rates
) -> tuple[Variables, Moments]:
    """Take steps of Adam on (phi, alpha) with these problems and corners.

    Args:
        variables: phi, and alpha of the problems.
        moments: of their gradients.
        working_set: the problems.
        rates: temperature and steps.

    Returns:
        the variables and moments after `_UPDATES` steps, as numpy arrays.
    """
    with jax.numpy_dtype_promotion("standard"):  # optax mixes types
        improved = _improve(variables, moments, working_set, rates)
    return jax.tree.map(np.asarray, improved)


@jax.jit
def _improve(
    variables: Variables, moments: Moments, working_set: WorkingSet, rates: Rates
) -> tuple[Variables, Moments]:
    def move_phi(table, move):
        return table - rates.phi * move

    def update(state, _):
        variables, adam = state
        gradients = jax.grad(_smooth_bound)(variables, working_set, rates.temperature)
        moves: Any
        moves, adam = _ADAM.update(gradients, adam)
        phi = jax.tree.map(move_phi, variables.phi, moves.phi)
        alpha = jnp.maximum(variables.alpha - rates.alpha * moves.alpha, 0)
        alpha = alpha / jnp.maximum(jnp.sum(alpha, -1, keepdims=True), 1)
        return (Variables(phi, alpha), adam), None

    adam: Any = optax.ScaleByAdamState(count=_LARGE_COUNT, mu=moments.first, nu=moments.second)
    (variables, adam), _ = lax.scan(update, (variables, adam), length=_UPDATES)
    return variables, Moments(first=adam.mu, second=adam.nu)


def _smooth_bound(variables: Variables, working_set: WorkingSet, temperature: Array) -> Array:
    """The bound on the working sets, with a smoothed maximum over problems and corners."""
    kind = working_set.kind
    cells = working_set.cells
    kinds = len(cells)
    vector, offset = affine_part(
        working_set.sides,
        variables.phi,
        working_set.negative[..., None] * variables.alpha,
        working_set.bias_share,
        working_set.conv,
        working_set.bias,
    )
    products = jnp.einsum("nwp,np->nw", working_set.x, vector)
    scaled = (working_set.values + products + offset[:, None]) / temperature  # [n, w]
    largest_of_problem = lax.stop_gradient(jnp.max(scaled, 1))
    largest = jax.ops.segment_max(largest_of_problem, kind, kinds)
    exponentials = jnp.exp(scaled - largest[kind][:, None])
    total = jax.ops.segment_sum(jnp.sum(exponentials, 1), kind, kinds)
    # A kind of cell without a problem here has a total of 0 and does not count.
    logarithm = jnp.log(jnp.where(total > 0, total, 1))
    return temperature * jnp.sum(jnp.where(total > 0, cells * logarithm, 0))
