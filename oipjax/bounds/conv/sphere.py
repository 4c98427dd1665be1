"""Upper bounds of a second convolution over standardised images, by their shared energy.

All patches of such an image share one budget of energy.

For ``P = relu(max over the pooling window of (a_q + b))`` with ``a = <k, x>`` and weights ``w`` on
a window of cells,

    sum w P <= sum w+ max(b, 0) + sum w+ z,  z = relu(max_q a_q)
    sum w+ z <= sqrt(sum w+^2 / s) sqrt(sum s z^2)    (Cauchy and Schwarz, any s > 0 per channel)
    sum s z^2 <= sum over channels and positions of s a^2 = x' M(s) x <= lambda_max(M(s)) |x|^2

since every position belongs to one cell. The scales ``s`` are free. Gradient steps find good ones,
on the smooth ``tr(M^p)^(1/p) >= lambda_max``. The bound takes the eigenvalues themselves. Intervals
would let every position have all the energy at once.

Axes: ``k`` maps of the second convolution, ``c`` channels of the first, ``p`` pixels of the window.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from oipjax.bounds.conv.chain import Stage
from oipjax.bounds.interval.enclosures import sphere_norm
from oipjax.spaces import Sphere

MOST_PIXELS = 512
"""Of a window; eigenvalues of a matrix of that side are taken for every map."""

ROUNDING = 1e-9
"""Rounding allowance of a bound, as a share of the sum of all magnitudes."""

_SQUARINGS = 5  # the power of the smooth maximum is 2 to this power
_LEARNING_RATE = 0.1
_SMALLEST_SQUARE = 1e-12


class _State(NamedTuple):
    """The state of the search.

    Attributes:
        logs: ``[k, c]``, logarithms of the scales.
        adam: of optax.
        best: ``[k, c]``, the logarithms with the lowest values.
        lowest: ``[k]``, those values.
    """

    logs: Array
    adam: optax.OptState
    best: Array
    lowest: Array


def energy_bound(first: Stage, second: Stage, domain: Sphere, *, steps: int = 30) -> np.ndarray:
    """Bound every node of the second stage's convolution from above, in exact arithmetic.

    Args:
        first: convolution, max-pooling and ReLU.
        second: the convolution after it.
        domain: standardised images.
        steps: of the search for scales.

    Returns:
        ``[k]``, float64.

    Raises:
        ValueError: the window of pixels is too large.
    """
    gram = _energy_matrices(first, second.kernel.shape[:2])
    positive = np.maximum(second.kernel, 0)
    squares = np.square(positive).sum((0, 1)).T
    # A channel without weights is at most its bias.
    has_weights = np.abs(gram).sum((1, 2)) > 0
    weighted = np.flatnonzero(has_weights)
    norm = sphere_norm(domain)
    gain = np.zeros(len(second.bias))
    if len(weighted):
        gain = _gain(gram[weighted], squares[:, weighted], steps)
    from_bias = np.einsum("abck,c->k", positive, np.maximum(first.bias, 0))
    magnitude = np.abs(second.bias) + from_bias + norm * gain
    exact = second.bias + from_bias + norm * gain
    return exact + ROUNDING * magnitude


def _energy_matrices(first: Stage, taps: tuple[int, int]) -> np.ndarray:
    """For each channel the matrix of the energy of all its responses in a window: ``[c, p, p]``."""
    kh, kw, channels, features = first.kernel.shape
    rows = taps[0] * first.pool
    columns = taps[1] * first.pool
    height = rows + kh - 1
    width = columns + kw - 1
    if height * width * channels > MOST_PIXELS:
        raise ValueError(
            f"the energy bound does not fit: a window of {height} x {width} x {channels} pixels"
        )
    window = (height, width, channels)
    responses = np.zeros((rows, columns, features, *window))
    kernels = np.moveaxis(first.kernel, 3, 0)
    for i, j in np.ndindex(rows, columns):
        responses[i, j, :, i : i + kh, j : j + kw] = kernels
    by_position = responses.reshape(rows * columns, features, -1)
    by_channel = np.moveaxis(by_position, 1, 0)  # [c, positions, p]
    return by_channel.transpose(0, 2, 1) @ by_channel


def _gain(gram: np.ndarray, squares: np.ndarray, steps: int) -> np.ndarray:
    """Bound ``sum w+ z`` for images of norm 1.

    Args:
        gram: ``[c, p, p]``.
        squares: ``[k, c]``, the sums of the squares of the positive weights.
        steps: of the search for scales.

    Returns:
        ``[k]``.
    """
    # Single precision is enough for the search, since any scales give a bound. Their common factor
    # does not matter.
    tiny = np.finfo(np.float64).tiny
    largest_square = squares.max(1, keepdims=True)
    unit_squares = (squares / np.maximum(largest_square, tiny)).astype(np.float32)
    unit_gram = (gram / np.abs(gram).max()).astype(np.float32)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes types
        logs = _search(unit_gram, unit_squares, steps=steps)
    scales = np.exp(np.asarray(logs, np.float64))
    is_valid = np.isfinite(scales) & (scales > 0)
    scales = np.where(is_valid, scales, 1.0)
    energy = np.einsum("kc,cpq->kpq", scales, gram, optimize=True)
    largest_eigenvalue = np.linalg.eigvalsh(energy)[:, -1]
    return np.sqrt(np.sum(squares / scales, 1) * largest_eigenvalue)


@functools.partial(jax.jit, static_argnames="steps")
def _search(gram: Array, squares: Array, *, steps: int) -> Array:
    """Search for scales with a small ``sum(squares / s) lambda_max(sum(s gram))``.

    Returns:
        their logarithms ``[k, c]``.
    """

    def value(logs, squares):
        energy = jnp.einsum("c,cpq->pq", jnp.exp(logs), gram)
        weight = jnp.sum(squares * jnp.exp(-logs))
        return jnp.log(weight) + _log_largest_eigenvalue(energy)

    adam = optax.adam(_LEARNING_RATE)
    norms = jnp.trace(gram, axis1=1, axis2=2)
    start = 0.5 * jnp.log((squares + _SMALLEST_SQUARE) / norms[None])

    def step(state, _):
        values, gradients = jax.vmap(jax.value_and_grad(value))(state.logs, squares)
        updates, memory = adam.update(gradients, state.adam)
        is_better = values < state.lowest
        moved = _State(
            logs=jnp.asarray(optax.apply_updates(state.logs, updates)),
            adam=memory,
            best=jnp.where(is_better[:, None], state.logs, state.best),
            lowest=jnp.where(is_better, values, state.lowest),
        )
        return moved, None

    begin = _State(
        logs=start,
        adam=adam.init(start),
        best=start,
        lowest=jnp.full(len(squares), jnp.inf),
    )
    final, _ = jax.lax.scan(step, begin, None, steps)
    return final.best


def _log_largest_eigenvalue(matrix: Array) -> Array:
    """A smooth upper limit of the logarithm of the largest eigenvalue: ``log(tr(M^p)^(1/p))``."""
    log = jnp.log(jnp.trace(matrix))
    matrix = matrix / jnp.trace(matrix)
    for power in range(1, _SQUARINGS + 1):
        matrix = matrix @ matrix
        size = jnp.trace(matrix)
        log = log + jnp.log(size) / 2**power
        matrix = matrix / size
    return log
