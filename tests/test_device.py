"""Promises for GPUs, skipped elsewhere.

Run ``JAX_PLATFORMS=cuda,cpu python -m pytest tests/test_device.py``.
"""

import jax
import numpy as np
import pytest

import oipjax
from oipjax.cli.atlas import exemplars
from oipjax.runtime import PRECISIONS

pytestmark = pytest.mark.skipif(jax.default_backend() == "cpu", reason="there is no GPU here")


@pytest.fixture(scope="module", autouse=True)
def _as_users_have_it():
    """JAX's own default, which is TF32 here; other tests set the highest precision."""
    with jax.default_matmul_precision("default"):
        yield


@pytest.fixture(scope="module")
def shipped() -> oipjax.Model:
    return oipjax.load()


def atlas_of(model: oipjax.Model, **options) -> oipjax.Atlas:
    return oipjax.atlas(jax.random.key(0), model, "conv3", exemplars=exemplars(model), **options)


@pytest.fixture(scope="module")
def atlas(shipped) -> oipjax.Atlas:
    return atlas_of(shipped)


def scores_by_numpy(model: oipjax.Model, atlas: oipjax.Atlas) -> np.ndarray:
    """Each map's score of its best image, in float64, by sums written out."""

    def conv(x, layer):
        kernel = np.asarray(layer["kernel"], np.float64)
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))
        return np.maximum(
            np.einsum("nijcuv,uvck->nijk", windows, kernel, optimize=True) + layer["bias"], 0
        )

    def pool(x):
        n, h, w, c = x.shape
        return x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))

    params = jax.tree.map(np.asarray, model.params)
    x = pool(conv(atlas.images[:, 0].astype(np.float64), params["conv1"]))
    answers = conv(pool(conv(x, params["conv2"])), params["conv3"]).mean((1, 2))
    return answers[np.arange(len(atlas.maps)), atlas.maps]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_scores_are_those_of_float32(shipped, precision):
    atlas = atlas_of(shipped, precision=precision)
    np.testing.assert_allclose(
        atlas.scores[:, 0], scores_by_numpy(shipped, atlas), rtol=1e-5, atol=1e-6
    )
    assert (atlas.scores >= atlas.start_scores).all()
    assert atlas.counts["found"] >= 114 and atlas.counts["dead"] >= 12
    off = np.abs(atlas.trace[..., 0] - atlas.start_scores).max()
    assert off == 0 if precision == "float32" else 0 < off < 1, "a trace has the steps' precision"


def test_the_same_seed_finds_the_same_again(shipped, atlas):
    again = atlas_of(shipped)
    np.testing.assert_array_equal(again.status, atlas.status)
    np.testing.assert_allclose(again.scores[:, 0], atlas.scores[:, 0], rtol=0.01, atol=1e-4)


def test_a_map_alone_is_that_of_all(shipped, atlas):
    alone = atlas_of(shipped, maps=(120, 7))
    np.testing.assert_allclose(alone.scores[:, 0], atlas.scores[[120, 7], 0], rtol=0.01, atol=1e-4)


def test_runs_that_end_early_make_room(shipped):
    targets, starts = np.arange(40) % 128, np.arange(40)
    given = (jax.random.key(0), shipped, oipjax.Map("conv3"), targets, starts)
    for precision in PRECISIONS:
        run = oipjax.ascend(
            *given, steps=60, stop=True, criterion=1e-3, precision=precision, tile=16
        )
        assert (run.evaluations < 60).any() and (run.scores >= run.start_scores).all()
