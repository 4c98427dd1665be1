"""How exact products are, and how many bits numbers are stored in."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

PRECISIONS = {
    "float32": "highest",
    "tf32": "tensorfloat32",
    "bf16": "bfloat16",
}
"""The precision of products in the steps of an ascent, and JAX's name for it.

In bf16 everything between image and activations is also stored in 16 bits, see `cast`.
"""


def checked_precision(precision: str) -> str:
    """The precision that this platform uses: the given one, or float32 on a CPU (it has no other).

    Raises:
        ValueError: there is no precision of this name.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; there are {', '.join(PRECISIONS)}")
    return "float32" if jax.default_backend() == "cpu" else precision


def products(precision: str = "float32") -> contextlib.AbstractContextManager[Any]:
    """Programs that are traced within it have products of this precision, see `PRECISIONS`."""
    if jax.default_backend() == "cpu":
        return contextlib.nullcontext()
    return jax.default_matmul_precision(PRECISIONS[precision])


def cast(tree: Any, precision: str) -> Any:
    """Arrays as a precision stores them: in bf16 floating numbers have 16 bits, else they stay."""
    if precision != "bf16":
        return tree
    return jax.tree.map(_in_16_bits, tree)


def _in_16_bits(array: Array) -> Array:
    if jnp.issubdtype(array.dtype, jnp.floating):
        return array.astype(jnp.bfloat16)
    return array
