"""Upper bounds of a second convolution over standardised images, whose patches share one budget of energy.

For ``P = relu(max over the pool of (a_q + b))`` with ``a = <k, x>`` and weights ``w`` on a window
of cells,

    sum w P <= sum w+ max(b, 0) + sum w+ z,  z = relu(max_q a_q)
    sum w+ z <= sqrt(sum w+^2 / s) sqrt(sum s z^2)                       (Cauchy and Schwarz, any s
    > 0 per channel) sum s z^2 <= sum over channels and positions of s a^2 = x' M(s) x <=
    lambda_max(M(s)) |x|^2

since every position belongs to one cell. The scales ``s`` are free; gradient steps find good ones,
on the smooth ``tr(M^p)^(1/p) >= lambda_max``, and the bound takes the eigenvalues themselves.
Intervals would let every position have all the energy at once.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from oipjax.bounds.conv.chain import Stage
from oipjax.bounds.interval.enclosures import sphere_norm
from oipjax.spaces import Sphere

MOST_PIXELS = 512
"""Of a window; eigenvalues of a matrix of that side are taken for every map."""
ROUNDING = 1e-9
_SQUARINGS = 5  # p is 2 to this power


def energy_bound(first: Stage, second: Stage, domain: Sphere, *, steps: int = 30) -> np.ndarray:
    """Upper bounds ``[k]`` of every node of the second stage's convolution, in exact arithmetic.

    Args:
        first: convolution, max-pool and ReLU.
        second: the convolution after it.
        domain: standardised images.
        steps: of the search for scales.

    Raises:
        ValueError: the window of pixels is too large.
    """
    a, b = second.kernel.shape[:2]
    kh, kw, channels, features = first.kernel.shape
    rows, columns = a * first.pool, b * first.pool
    height, width = rows + kh - 1, columns + kw - 1
    if height * width * channels > MOST_PIXELS:
        raise ValueError(
            f"the energy bound does not fit: a window of {height} x {width} x {channels} pixels"
        )
    responses = np.zeros((rows, columns, features, height, width, channels))
    for i, j in np.ndindex(rows, columns):
        responses[i, j, :, i : i + kh, j : j + kw] = np.moveaxis(first.kernel, 3, 0)
    flat = np.moveaxis(responses.reshape(rows * columns, features, -1), 1, 0)
    gram = flat.transpose(0, 2, 1) @ flat
    positive = np.maximum(second.kernel, 0)
    squares = np.square(positive).sum((0, 1)).T
    heard = np.flatnonzero(
        np.abs(gram).sum((1, 2)) > 0
    )  # a channel without weights is at most its bias
    gram, squares = gram[heard], squares[:, heard]
    norm = sphere_norm(domain)
    best = np.zeros(len(second.bias))
    if len(heard):
        # Single precision does for the search: any scales give a bound. Their common factor does
        # not matter.
        unit = squares / np.maximum(squares.max(1, keepdims=True), np.finfo(np.float64).tiny)
        given = (array.astype(np.float32) for array in (gram / np.abs(gram).max(), unit))
        with jax.numpy_dtype_promotion("standard"):  # optax mixes types
            found = np.exp(np.asarray(_search(*given, steps), np.float64))
        found = np.where(np.isfinite(found) & (found > 0), found, 1.0)
        highest = np.linalg.eigvalsh(np.einsum("kc,cpq->kpq", found, gram, optimize=True))[:, -1]
        best = np.sqrt(np.sum(squares / found, 1) * highest)
    fixed = np.einsum("abck,c->k", positive, np.maximum(first.bias, 0))
    return (
        second.bias + fixed + norm * best + ROUNDING * (np.abs(second.bias) + fixed + norm * best)
    )


@functools.partial(jax.jit, static_argnums=2)
def _search(gram, squares, steps):
    """Logarithms of scales ``[k, c]`` for which ``sum(squares / s) lambda_max(sum(s gram))`` is small."""

    def value(logs, squares):
        matrix = jnp.einsum("c,cpq->pq", jnp.exp(logs), gram)
        log = jnp.log(jnp.trace(matrix))
        matrix = matrix / jnp.trace(matrix)
        for power in range(1, _SQUARINGS + 1):
            matrix = matrix @ matrix
            size = jnp.trace(matrix)
            log, matrix = log + jnp.log(size) / 2**power, matrix / size
        return jnp.log(jnp.sum(squares * jnp.exp(-logs))) + log

    optimiser = optax.adam(0.1)
    norms = jnp.trace(gram, axis1=1, axis2=2)
    start = 0.5 * jnp.log((squares + 1e-12) / norms[None])

    def step(state, _):
        logs, memory, best, least = state
        values, gradients = jax.vmap(jax.value_and_grad(value))(logs, squares)
        updates, memory = optimiser.update(gradients, memory)
        better = values < least
        best, least = jnp.where(better[:, None], logs, best), jnp.where(better, values, least)
        return (optax.apply_updates(logs, updates), memory, best, least), None

    begin = (start, optimiser.init(start), start, jnp.full(len(squares), jnp.inf))
    return jax.lax.scan(step, begin, None, steps)[0][2]
