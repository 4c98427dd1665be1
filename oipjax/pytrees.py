"""Parameters by their path: to count, compare and check them; fingerprints of traced programs."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""Part of the text of some objects that differs from process to process."""
UNIMPORTANT = ("name", "debug_info")
"""Parameters of a traced step that say nothing about what it computes."""


def flatten(params: Any) -> dict[str, np.ndarray]:
    """``{"conv1/kernel": array, ...}``."""
    return {path: np.asarray(leaf) for path, leaf in leaves(params).items()}


def leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by their path, as they are."""
    by_path = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        by_path[jax.tree_util.keystr(path, simple=True, separator="/")] = leaf
    return by_path


def fingerprint(params: Any) -> str:
    """The sha256 of all parameters: equal if and only if every bit is equal.

    It covers the sorted (path, dtype, shape, bytes) of all leaves.
    """
    digest = hashlib.sha256()
    for path, leaf in sorted(flatten(params).items()):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{path}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def program_fingerprint(program: Any) -> str:
    """The sha256 of a traced program: of all its steps, and of every bit of its constants.

    It is the same in every process. Names of functions do not count, nor do rules for gradients
    that a function brings along (``jax.custom_vjp``): the program is what is computed forwards.

    Args:
        program: a ``ClosedJaxpr``, as ``jax.make_jaxpr`` returns it.
    """
    digest = hashlib.sha256()
    for part in _value_parts(program):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def check_finite(params: Any, name: str) -> None:
    """Raise a ValueError that names the parameters holding NaN or infinity."""
    bad = [path for path, leaf in flatten(params).items() if not np.all(np.isfinite(leaf))]
    if bad:
        paths = ", ".join(bad)
        raise ValueError(f"{name}: NaN or infinity in the parameters {paths}; it has no scores")


def _value_parts(value: Any) -> Iterator[bytes]:
    """A parameter or constant of a traced program as bytes."""
    # This import takes long, and few need it.
    from jax.extend.core import ClosedJaxpr, Jaxpr

    if isinstance(value, ClosedJaxpr):
        yield from _value_parts(value.consts)
        yield from _step_parts(value.jaxpr)
    elif isinstance(value, Jaxpr):
        yield from _step_parts(value)
    elif isinstance(value, tuple | list):
        yield f"{len(value)} values".encode()
        for item in value:
            yield from _value_parts(item)
    elif isinstance(value, dict):
        yield from _value_parts(sorted(value.items(), key=lambda item: str(item[0])))
    elif isinstance(value, np.ndarray | np.generic | jax.Array):
        yield from _array_parts(value)
    elif callable(value) and not isinstance(value, type):
        yield b"function"
    else:
        yield ADDRESS.sub("", repr(value)).encode()


def _step_parts(jaxpr: Any) -> Iterator[bytes]:
    """The steps of a traced program as bytes; variables are numbered in the order they appear."""
    numbers: dict[Any, int] = {}

    def described(variable: Any) -> bytes:
        number = numbers.setdefault(variable, len(numbers))
        return f"{number}:{variable.aval}".encode()

    def atom_parts(atom: Any) -> Iterator[bytes]:
        from jax.extend.core import Literal

        if isinstance(atom, Literal):
            yield f"{atom.aval}".encode()
            yield from _value_parts(atom.val)
        else:
            yield described(atom)

    for variable in (*jaxpr.constvars, *jaxpr.invars):
        yield described(variable)
    for equation in jaxpr.eqns:
        yield equation.primitive.name.encode()
        for name, value in sorted(equation.params.items()):
            if name not in UNIMPORTANT:
                yield name.encode()
                yield from _value_parts(value)
        for atom in equation.invars:
            yield from atom_parts(atom)
        for variable in equation.outvars:
            yield described(variable)
    for atom in jaxpr.outvars:
        yield from atom_parts(atom)


def _array_parts(value: Any) -> Iterator[bytes]:
    """Type, shape and bytes of an array; of random keys those of their data."""
    yield f"{value.dtype}{value.shape}".encode()
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    yield np.asarray(value).tobytes()
