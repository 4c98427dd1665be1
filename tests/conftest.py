"""Strict mode for everything, and small networks whose answers are known."""

import os
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # All workers of a session share compiled programs; they inherit this environment.
    _PROGRAMS = tempfile.TemporaryDirectory(prefix="oipjax-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _PROGRAMS.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings

from oipjax.model import Model
from oipjax.networks import checkpoint, cnn

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
if os.environ["JAX_PLATFORMS"] != "cpu":
    # What tests compute by themselves is to be as exact as what they compare it with.
    jax.config.update("jax_default_matmul_precision", "highest")
settings.register_profile("oipjax", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("oipjax")


@pytest.fixture(scope="module", autouse=True)
def _few_programs():
    """Forget compiled programs after each file.

    Each takes memory mappings, of which Linux allows a process 65,530.
    """
    yield
    jax.clear_caches()


SHAPE = (6, 5, 2)
TINY = cnn.CNNConfig((8, 8, 1), (4, 6), 3, (2, 1), (5,), 3)


@dataclass(frozen=True)
class Linear:
    """``maps [n, 2, 2, 3]`` and ``logits [n, 3]``, linear in the image."""

    def __call__(self, params, x):
        return {
            "maps": jnp.einsum("nhwc,hwcijk->nijk", x, params["maps"]),
            "logits": jnp.einsum("nhwc,hwck->nk", x, params["logits"]),
        }


@dataclass(frozen=True)
class Quadratic:
    """``maps [n, 1, 1, 3]`` and ``logits [n, 3]``.

    Each is 1 minus the mean squared distance to a centre of its own.
    """

    def __call__(self, params, x):
        distance = jnp.mean(jnp.square(x[:, None] - params["centres"][None]), (2, 3, 4))
        return {"maps": 1 - distance[:, None, None, :], "logits": 1 - distance}


@pytest.fixture(scope="session")
def linear() -> Model:
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(*SHAPE, 2, 2, 3)).astype(np.float32)
    logits = rng.normal(size=(*SHAPE, 3)).astype(np.float32)
    params = {"maps": jnp.asarray(maps), "logits": jnp.asarray(logits)}
    return Model("linear", Linear(), params, ("maps", "logits"), SHAPE, (0.25, 0.5), (0.5, 0.25))


@pytest.fixture(scope="session")
def quadratic() -> Model:
    centres = np.random.default_rng(2).normal(size=(3, *SHAPE)).astype(np.float32)
    params = {"centres": jnp.asarray(centres)}
    return Model(
        "quadratic", Quadratic(), params, ("maps", "logits"), SHAPE, (0.25, 0.5), (0.5, 0.25)
    )


@pytest.fixture(scope="session")
def tiny() -> Model:
    """An untrained CNN: of conv2, map 0 is dead, and no random start activates map 1."""
    params = jax.tree.map(np.array, cnn.init(jax.random.key(5), TINY))
    params["conv2"]["kernel"][..., 0] = 0
    params["conv2"]["bias"][:2] = (-1.0, -4.5)
    return cnn.model(
        jax.tree.map(jnp.asarray, params),
        TINY,
        name="tiny",
        mean=(0.1,),
        std=(0.3,),
        classes=tuple("abc"),
    )


@pytest.fixture
def tiny_folder(tiny: Model, tmp_path: Path) -> Path:
    return checkpoint.save(tmp_path / "tiny", tiny, {"command": "test"})


@pytest.fixture(scope="module")
def cloud():
    """Features of 40 images ``[n, 2, 3, 4]`` that depend on their labels ``[n]``."""
    rng = np.random.default_rng(3)
    labels = rng.permutation(np.repeat([2, 5, 7], (14, 11, 15)))
    features = (
        rng.normal(size=(40, 2, 3, 4))
        + 0.8 * labels[:, None, None, None] * rng.normal(size=(2, 3, 4))
        + 50
    )
    return features, labels
