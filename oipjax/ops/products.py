"""Arithmetic that all algorithms share: products of matrices, and a bias."""

from jax import Array, lax

from oipjax.ops.windows import Pair


def product(a: Array, b: Array, axes: Pair) -> Array:
    """Product, summed over one axis of ``a`` and one of ``b``; those left of ``a`` come first."""
    of_a, of_b = axes
    summed = ((of_a,), (of_b,))
    shared = ((), ())
    return lax.dot_general(a, b, (summed, shared))


def product_by_place(a: Array, b: Array, axes: Pair) -> Array:
    """`product` for each index of the first axis, which ``a`` and ``b`` share."""
    of_a, of_b = axes
    summed = ((of_a,), (of_b,))
    shared = ((0,), (0,))
    return lax.dot_general(a, b, (summed, shared))


def add_bias(y: Array, b: Array) -> Array:
    """Outputs ``[..., k]`` of rank 4 plus a bias ``[k]``."""
    return y + b.reshape(1, 1, 1, -1)
