"""Parameters as a flat dictionary by path: to count, compare and check them."""

import hashlib
from typing import Any

import jax
import numpy as np


def flatten(params: Any) -> dict[str, np.ndarray]:
    """``{"conv1/kernel": array, ...}``."""
    return {path: np.asarray(leaf) for path, leaf in leaves(params).items()}


def leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by their path, as they are."""
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in found}


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


def check_finite(params: Any, name: str) -> None:
    """Raise a ValueError that names the parameters holding NaN or infinity."""
    bad = [path for path, leaf in flatten(params).items() if not np.all(np.isfinite(leaf))]
    if bad:
        paths = ", ".join(bad)
        raise ValueError(f"{name}: NaN or infinity in the parameters {paths}; it has no scores")
