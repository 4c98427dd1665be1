"""The search for good multipliers of the patch hull: Adam on subgradients, in float32.

`oipjax.bounds.conv.hull` states the problem. Any multipliers give a valid bound, so nothing here
needs to be exact. Between two passes over all corners, an update looks only at the groups of
corners that came near the maximum. A group holds the corners that share their leading pixels.

Adam is written by hand because all lambdas of a problem share one second moment. Optax keeps one
for each lambda. With that, some bounds of the shipped network are looser: of the nodes of its
second convolution over the box, 15 of 64 by more than 1e-3 and one by 5e-3. (As many are tighter,
and the mean is the same to 1e-4.)

Axes: ``m`` problems, ``n`` cells, ``c`` columns (``c = m * n``), ``k`` channels, ``q`` positions of
the pooling window, ``p`` pixels of a patch, ``b`` parts of a box. Corners ``u`` are numbered by
their leading pixels (``g``, a group) and their trailing pixels (``l``).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

_FULL_PASS_EVERY = 10  # steps from one pass over all corners to the next
_NEAR_GROUPS = 16  # groups of corners (of 256) looked at in between
_LAMBDA_STEP = 0.05  # in units of the effect of a pixel on a cell
_ALPHA_STEP = 0.1
_FIRST_DECAY = 0.9
_SECOND_DECAY = 0.99
_TINY = 1e-20
_MEAN_DECAY = 0.97  # of the mean over corners that becomes the hints


class Multipliers(NamedTuple):
    """The variables of the dual problem.

    Attributes:
        lam: ``[m, n, p]``, on the copies of the pixels.
        alpha: ``[b, m, n, k, q]``, the slopes of the minorants.
    """

    lam: Array
    alpha: Array


class _Batch(NamedTuple):
    """The quantities that stay fixed during a search.

    Attributes:
        values: ``[b, g, l, c]``, the part with positive weights at every corner.
        leading: ``[b, g, p // 2]``, the leading pixels of each group.
        trailing: ``[b, l, p - p // 2]``, the trailing pixels of the corners of a group.
        negative: ``[m, n, k, 1]``, the negative weights; 0 for the others.
        conv: ``[k, q, p]``.
        bias: ``[k]``.
        copy_of: ``[n, p]``, the image's pixel of which each pixel of a patch is a copy.
        copies: ``[hwc]``, the number of copies of each pixel.
        scale: ``[m, 1, 1]``, the largest step of lambda.
    """

    values: Array
    leading: Array
    trailing: Array
    negative: Array
    conv: Array
    bias: Array
    copy_of: Array
    copies: Array
    scale: Array


class _Affine(NamedTuple):
    """The part of each cell that is affine in its pixels.

    Attributes:
        vector: ``[b, c, p]``.
        offset: ``[b, c]``.
    """

    vector: Array
    offset: Array


class _Maxima(NamedTuple):
    """The largest values of a pass.

    Attributes:
        groups: ``[b, g, c]``, the largest value of each group of corners.
        corner: ``[b, c, p]``, the corner with the largest value of all.
    """

    groups: Array
    corner: Array


class _State(NamedTuple):
    """The multipliers, Adam's moments, and ``mean[m, n, p]``, the decaying sum of best corners."""

    multipliers: Multipliers
    lam_first: Array
    lam_second: Array
    alpha_first: Array
    alpha_second: Array
    mean: Array


class _Best(NamedTuple):
    """The lowest bound of each problem so far, ``[m]``, and the multipliers that gave it."""

    value: Array
    multipliers: Multipliers


@jax.jit
def corner_table(boxes: Array, conv: Array, bias: Array) -> Array:
    """Tabulate the channels at the corners of each box.

    Args:
        boxes: ``[b, 2, p]``.
        conv: ``[k, q, p]``.
        bias: ``[k]``.

    Returns:
        ``[b, u, k]``, float32.
    """
    points = jax.vmap(_corners)(boxes)
    values = []
    for position in range(conv.shape[1]):
        values.append(points @ conv[:, position].T + bias[None, None])
    largest = functools.reduce(jnp.maximum, values)
    return jnp.maximum(largest, 0)


@functools.partial(jax.jit, static_argnames="steps")
def search(
    table: Array,
    boxes: Array,
    conv: Array,
    bias: Array,
    omega: Array,
    index: Array,
    count: Array,
    start: Multipliers,
    *,
    steps: int,
) -> tuple[Multipliers, Array]:
    """Search for multipliers that give low bounds.

    Args:
        table: ``[b, u, k]``, from `corner_table`.
        boxes: ``[b, 2, p]``, the parts of a patch's box.
        conv: ``[k, q, p]``.
        bias: ``[k]``.
        omega: ``[m, n, k]``, the weights.
        index: ``[n, p]``, the image's pixel of which each pixel of a patch is a copy.
        count: ``[hwc]``, the number of copies of each pixel.
        start: the multipliers to start from.
        steps: number of updates.

    Returns:
        the best multipliers seen in passes over all corners; and ``[m, n, p]``, the mean over the
        search of the corners with the largest values.
    """
    batch = _batch(table, boxes, conv, bias, omega, index, count)

    def block(number, carry):
        state, best = carry
        first_step = number * _FULL_PASS_EVERY
        maxima = _all_maxima(batch, state.multipliers)
        best = _keep_best(best, state.multipliers, maxima)
        t = first_step.astype(jnp.float32)
        state = _update(batch, state, maxima, t, steps)
        groups, values = _near_groups(batch, maxima)

        def partial_step(i, state):
            affine = _affine(batch, state.multipliers)
            maxima = _maxima(batch, values, groups, affine)
            return _update(batch, state, maxima, t + 1 + i, steps)

        updates = jnp.minimum(_FULL_PASS_EVERY, steps - first_step) - 1
        return lax.fori_loop(0, updates, partial_step, state), best

    state = _first_state(batch, start)
    best = _Best(value=jnp.full(len(omega), jnp.inf), multipliers=start)
    blocks = -(-steps // _FULL_PASS_EVERY)
    state, best = lax.fori_loop(0, blocks, block, (state, best))
    maxima = _all_maxima(batch, state.multipliers)
    best = _keep_best(best, state.multipliers, maxima)
    mean_corner = state.mean / (1 - _MEAN_DECAY**steps)
    return best.multipliers, mean_corner


def _batch(table, boxes, conv, bias, omega, index, count) -> _Batch:
    m, n, k = omega.shape
    parts, _, p = boxes.shape
    q = conv.shape[1]
    columns = m * n
    leading = p // 2
    positive = jnp.maximum(omega, 0).reshape(columns, k)
    negative = jnp.minimum(omega, 0)[..., None]
    values = jnp.stack([table[part] @ positive.T for part in range(parts)])
    # A step of lambda is a part of the effect of one pixel on a cell.
    conv_energy = jnp.sum(jnp.square(conv), (1, 2))
    energy = jnp.square(omega) @ conv_energy
    effect = jnp.sqrt(jnp.sum(energy, 1) / (n * p * q))
    return _Batch(
        values=values.reshape(parts, 2**leading, -1, columns),
        leading=jax.vmap(_corners)(boxes[..., :leading]),
        trailing=jax.vmap(_corners)(boxes[..., leading:]),
        negative=negative,
        conv=conv,
        bias=bias,
        copy_of=index,
        copies=count,
        scale=_LAMBDA_STEP * effect[:, None, None],
    )


def _first_state(batch: _Batch, start: Multipliers) -> _State:
    m = len(start.lam)
    return _State(
        multipliers=start,
        lam_first=jnp.zeros_like(start.lam),
        lam_second=jnp.zeros((m, 1, 1)),
        alpha_first=jnp.zeros_like(start.alpha),
        alpha_second=jnp.zeros_like(start.alpha),
        mean=jnp.zeros(start.lam.shape),
    )


def _balanced(batch: _Batch, lam: Array) -> Array:
    """Take the mean lambda of each pixel off its copies, so they sum to zero: ``[m, n, p]``."""
    pixels = len(batch.copies)
    total = jnp.zeros((len(lam), pixels), lam.dtype)
    total = total.at[:, batch.copy_of].add(lam)
    count = jnp.maximum(batch.copies, 1).astype(lam.dtype)
    mean = total / count[None]
    return lam - mean[:, batch.copy_of]


def _affine(batch: _Batch, multipliers: Multipliers) -> _Affine:
    lam, alpha = multipliers
    m, n, p = lam.shape
    parts = len(alpha)
    flat_conv = batch.conv.reshape(-1, p)
    slopes = batch.negative[None] * alpha
    minorants = slopes.reshape(-1, len(flat_conv)) @ flat_conv
    vector = lam[None] + minorants.reshape(parts, m, n, p)
    offset = jnp.sum(slopes, -1) @ batch.bias
    return _Affine(
        vector=vector.reshape(parts, m * n, p),
        offset=offset.reshape(parts, m * n),
    )


def _all_maxima(batch: _Batch, multipliers: Multipliers) -> _Maxima:
    """The maxima over all corners."""
    affine = _affine(batch, multipliers)
    return _maxima(batch, batch.values, None, affine)


def _near_groups(batch: _Batch, maxima: _Maxima) -> tuple[Array, Array]:
    """The groups nearest to the maximum, ``[b, g, c]``, and their values ``[b, g, l, c]``."""
    by_column = jnp.moveaxis(maxima.groups, 1, 2)
    _, groups = lax.top_k(by_column, min(_NEAR_GROUPS, by_column.shape[2]))
    groups = jnp.moveaxis(groups, 2, 1)
    values = jnp.take_along_axis(batch.values, groups[:, :, None], axis=1)
    return groups, values


def _maxima(
    batch: _Batch,
    values: Array,
    groups: Array | None,
    affine: _Affine,
) -> _Maxima:
    """The maxima over some groups of corners.

    Args:
        batch: the problems.
        values: ``[b, g, l, c]``, the values of these groups.
        groups: ``[b, g, c]``, the numbers of these groups; None for all groups in their order.
        affine: the affine part.
    """
    vector, offset = affine
    pixels = batch.leading.shape[2]
    trailing = jnp.einsum("blp,bcp->blc", batch.trailing, vector[..., pixels:])
    leading = jnp.einsum("bgp,bcp->bgc", batch.leading, vector[..., :pixels])
    if groups is not None:
        leading = jnp.take_along_axis(leading, groups, axis=1)
    largest_of_group = jnp.max(values + trailing[:, None], axis=2)
    largest = largest_of_group + leading + offset[:, None]

    best_group = jnp.argmax(largest, axis=1)
    best_values = jnp.take_along_axis(values, best_group[:, None, None], axis=1)
    best_trailing = jnp.argmax(best_values[:, 0] + trailing, axis=1)
    if groups is not None:
        number = jnp.take_along_axis(groups, best_group[:, None], axis=1)
        best_group = number[:, 0]
    leading_pixels = jnp.take_along_axis(batch.leading, best_group[..., None], axis=1)
    trailing_pixels = jnp.take_along_axis(batch.trailing, best_trailing[..., None], axis=1)
    corner = jnp.concatenate([leading_pixels, trailing_pixels], -1)
    return _Maxima(groups=largest, corner=corner)


def _keep_best(best: _Best, multipliers: Multipliers, maxima: _Maxima) -> _Best:
    m = len(best.value)
    largest = jnp.max(maxima.groups, axis=(0, 1))
    value = jnp.sum(largest.reshape(m, -1), 1)
    better = value < best.value
    lam = jnp.where(
        better[:, None, None],
        multipliers.lam,
        best.multipliers.lam,
    )
    alpha = jnp.where(
        better[None, :, None, None, None],
        multipliers.alpha,
        best.multipliers.alpha,
    )
    return _Best(
        value=jnp.where(better, value, best.value),
        multipliers=Multipliers(lam=lam, alpha=alpha),
    )


def _update(
    batch: _Batch,
    state: _State,
    maxima: _Maxima,
    t: Array,
    steps: int,
) -> _State:
    """One step of Adam at step number ``t``, a float32."""
    lam, alpha = state.multipliers
    best_corner = _best_corner(maxima, lam.shape)
    lam_gradient = _balanced(batch, best_corner)
    alpha_gradient = _alpha_gradient(batch, maxima.corner, alpha.shape)

    lam_square = jnp.mean(jnp.square(lam_gradient), (1, 2), keepdims=True)
    lam_first = _decayed(state.lam_first, lam_gradient, _FIRST_DECAY)
    lam_second = _decayed(state.lam_second, lam_square, _SECOND_DECAY)
    alpha_first = _decayed(state.alpha_first, alpha_gradient, _FIRST_DECAY)
    alpha_second = _decayed(state.alpha_second, jnp.square(alpha_gradient), _SECOND_DECAY)

    first_weight = 1 - _FIRST_DECAY ** (t + 1)
    second_weight = 1 - _SECOND_DECAY ** (t + 1)
    rate = 0.5 * (1 + jnp.cos(jnp.pi * t / steps))
    lam_size = jnp.sqrt(lam_second / second_weight) + _TINY
    lam_move = rate * batch.scale * (lam_first / first_weight) / lam_size
    lam = _balanced(batch, lam - lam_move)
    alpha_size = jnp.sqrt(alpha_second / second_weight) + _TINY
    alpha_move = _ALPHA_STEP * rate * (alpha_first / first_weight) / alpha_size
    alpha = jnp.maximum(alpha - alpha_move, 0)
    alpha = alpha / jnp.maximum(jnp.sum(alpha, -1, keepdims=True), 1)
    return _State(
        multipliers=Multipliers(lam=lam, alpha=alpha),
        lam_first=lam_first,
        lam_second=lam_second,
        alpha_first=alpha_first,
        alpha_second=alpha_second,
        mean=_decayed(state.mean, best_corner, _MEAN_DECAY),
    )


def _decayed(mean: Array, value: Array, decay: float) -> Array:
    """One step of an exponentially decaying mean."""
    return decay * mean + (1 - decay) * value


def _best_corner(maxima: _Maxima, shape: tuple[int, ...]) -> Array:
    """The corner of the part of the box that holds the maximum of each cell, ``[m, n, p]``."""
    largest = jnp.max(maxima.groups, axis=1)
    part = jnp.argmax(largest, axis=0)
    corner = jnp.take_along_axis(maxima.corner, part[None, :, None], axis=0)
    return corner[0].reshape(shape)


def _alpha_gradient(batch: _Batch, corner: Array, shape: tuple[int, ...]) -> Array:
    """The subgradient of the bound in alpha, ``[b, m, n, k, q]``."""
    p = corner.shape[-1]
    flat_conv = batch.conv.reshape(-1, p)
    products = corner.reshape(-1, p) @ flat_conv.T
    pre_activation = products.reshape(shape) + batch.bias[None, None, None, :, None]
    return batch.negative[None] * pre_activation


def _corners(box: Array) -> Array:
    """List the corners of ``box[2, p]`` in the order of `oipjax.bounds.conv.patches.corners`."""
    p = box.shape[1]
    numbers = np.arange(2**p)[:, None]
    is_high = (numbers >> np.arange(p)[::-1] & 1) == 1
    return jnp.where(is_high, box[1:], box[:1])
