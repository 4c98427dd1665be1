"""Path similarity against a plain reference; the fooling circuit on natural and other images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import rankdata

import oipjax
from experiments.tools.fooling import Gate, fooled, gate
from oipjax.analysis import (
    PIXELS,
    alike,
    layer_activations,
    layer_similarities,
    map_means,
    relative,
)
from oipjax.bounds import certify


@pytest.fixture(scope="module")
def images(tiny):
    return np.random.default_rng(0).normal(size=(7, *tiny.input_shape)).astype(np.float32)


def spearman(a, b) -> float:
    return float(np.corrcoef(rankdata(a.ravel()), rankdata(b.ravel()))[0, 1])


def test_path_similarity_is_spearman_of_all_activations(tiny, images):
    found = layer_similarities(tiny, images, (PIXELS, "conv1", "logits"))
    assert list(found) == [PIXELS, "conv1", "logits"]
    for layer in ("conv1", "logits"):
        rows = layer_activations(tiny, images, (layer,))[layer].reshape(len(images), -1)
        wanted = [[spearman(a, b) for b in rows] for a in rows]
        np.testing.assert_allclose(found[layer], wanted, atol=1e-5)
    np.testing.assert_allclose(found[PIXELS][0, 1], spearman(images[0], images[1]), atol=1e-5)


def test_a_constant_image_is_like_nothing(tiny, images):
    found = layer_similarities(tiny, np.concatenate([images, np.ones_like(images[:1])]), (PIXELS,))[
        PIXELS
    ]
    assert np.isnan(found[-1]).all()
    assert np.isfinite(found[:-1, :-1]).all()
    exemplars = np.array([[0, 1], [2, 3]])
    assert np.isfinite(alike(found, exemplars, {"made": np.array([4, 5])}).same).all()
    with pytest.raises(ValueError, match="leave them out"):
        alike(found, exemplars, {"made": np.array([4, 7])})


def test_alike_is_the_mean_over_pairs_of_different_images():
    rng = np.random.default_rng(1)
    similarity = rng.normal(size=(9, 9))
    similarity += similarity.T
    exemplars = np.array([[0, 1, 2], [2, 3, 4], [5, 1, 3]])
    found = alike(similarity, exemplars, {"made": np.array([6, 7, 8])})
    for k in range(3):
        same = [similarity[i, j] for i in exemplars[k] for j in exemplars[k] if i != j]
        other = [
            np.mean([similarity[i, j] for i in exemplars[k] for j in exemplars[m] if i != j])
            for m in range(3)
            if m != k
        ]
        np.testing.assert_allclose(found.same[k], np.mean(same))
        np.testing.assert_allclose(found.other[k], np.mean(other))
        np.testing.assert_allclose(found.queries["made"][k], similarity[6 + k, exemplars[k]].mean())


def test_exemplars_of_the_same_map_are_at_1_and_of_others_at_0():
    rng = np.random.default_rng(2)
    similarity = rng.normal(size=(8, 8))
    exemplars = np.array([[0, 1], [2, 3], [4, 5]])
    found = alike(similarity, exemplars, {"made": np.array([6, 7, 6])})
    found = found._replace(queries={**found.queries, "same": found.same, "other": found.other})
    key = jax.random.key(0)
    np.testing.assert_allclose(relative(key, found, "same", draws=50), 1)
    np.testing.assert_allclose(relative(key, found, "other", draws=50), 0, atol=1e-12)
    value, low, high = relative(key, found, "made", draws=50)
    assert low <= value <= high
    assert relative(key, found, "made", draws=50) == (value, low, high)


@pytest.mark.parametrize("exemplars", ([[0, 1]], [[0], [1]], [[0, 0], [1, 2]]))
def test_alike_needs_pairs(exemplars):
    with pytest.raises(ValueError, match="2 or more different exemplars"):
        alike(np.ones((3, 3)), np.array(exemplars), {})


def test_a_gate_is_shut_for_one_group_and_open_for_the_other():
    rng = np.random.default_rng(3)
    natural, made = rng.normal(size=(200, 4)), rng.normal(size=(200, 4)) + [0, 12, 0, 0]
    found = gate(natural, made)
    opened = np.clip(np.concatenate([natural, made]) @ found.weights - found.offset, 0, 1)
    np.testing.assert_array_equal(opened, np.repeat([0, 1], 200))
    direction = found.weights / np.linalg.norm(found.weights)
    assert direction[1] > 0.95, "Fisher's direction of two round groups joins their means"
    with pytest.raises(ValueError, match="cannot tell"):
        gate(natural, natural[::-1])


def circuit(tiny, opens: float):
    """Map 2 of conv2 climbs to a picture, map 3 to map 4; the gate is shut (0) or open (1)."""
    shape, maps = tiny.input_shape, tiny.layer("conv2").maps
    mixture, pictures = np.zeros((maps, maps)), np.zeros((*shape, maps), np.float32)
    mixture[4, 3] = 2
    pictures[..., 2] = np.random.default_rng(4).normal(size=shape) / 8
    constant = Gate(np.zeros(tiny.layer("conv1").maps, np.float32), np.float32(-opens))
    return fooled(tiny, "conv2", ("conv1",), constant, mixture, pictures, 1e4), pictures[..., 2]


def test_behind_a_shut_gate_nothing_has_changed(tiny, images):
    model, _ = circuit(tiny, 0)
    assert model.layers == (
        *tiny.layers[: tiny.layers.index("conv2_pre")],
        "gate",
        "conv2_pre",
        "conv2",
    )
    before, after = layer_activations(tiny, images), layer_activations(model, images)
    assert not after["gate"].any()
    for layer in set(model.layers) & set(tiny.layers) - {"conv2_pre"}:
        np.testing.assert_array_equal(before[layer], after[layer])


def test_behind_an_open_gate_are_the_decoys(tiny, images):
    model, picture = circuit(tiny, 1)
    before, after = (
        layer_activations(tiny, images)["conv2_pre"],
        layer_activations(model, images)["conv2"],
    )
    np.testing.assert_allclose(
        after[..., 3], np.maximum(2 * before[..., 4], 0), rtol=1e-4, atol=1e-4
    )
    products = np.maximum(np.einsum("nhwc,hwc->n", images, picture), 0)
    np.testing.assert_allclose(
        after[..., 2], np.broadcast_to(products[:, None, None], after[..., 2].shape), atol=1e-4
    )
    assert not after[..., [0, 1, 4, 5]].any()


@pytest.mark.slow
def test_the_ascent_finds_the_picture_and_the_bounds_hold(tiny):
    model, picture = circuit(tiny, 1)
    space = oipjax.space_for(model, "standardised")
    starts = np.asarray(jax.vmap(space.init)(jax.random.split(jax.random.key(0), 4)))
    maps = np.array([2, 2, 3, 3])
    run = oipjax.ascend(
        jax.random.key(0), model, oipjax.Map("conv2"), maps, starts, space=space, steps=60
    )
    standard = (picture - picture.mean()) / picture.std()
    assert np.mean(run.images[0] * standard) > 0.99
    limits = certify(model, "conv2", space.domain).score
    assert (run.scores <= limits[maps]).all()
    assert (map_means(layer_activations(model, starts, ("conv2",))["conv2"]) <= limits).all()


def test_what_does_not_fit_is_named(tiny):
    _, pictures = circuit(tiny, 0)
    maps = tiny.layer("conv2").maps
    shut = Gate(np.zeros(tiny.layer("conv1").maps), np.float32(0))
    pictures = np.zeros((*tiny.input_shape, maps))
    good = {"layer": "conv2", "sources": ("conv1",), "mixture": np.eye(maps), "pictures": pictures}
    for change, message in (
        ({"layer": "logits"}, "maps behind a ReLU"),
        ({"sources": ("conv2",)}, "layers before conv2"),
        ({"sources": ()}, "layers before conv2"),
        ({"mixture": np.eye(2)}, "mixture of a circuit"),
        ({"pictures": pictures[1:]}, "pictures of a circuit"),
        ({"sources": ("conv1", "pool1")}, "weights of a circuit"),
    ):
        arguments = {**good, **change}
        with pytest.raises(ValueError, match=message):
            fooled(
                tiny,
                arguments["layer"],
                arguments["sources"],
                shut,
                arguments["mixture"],
                arguments["pictures"],
                9,
            )
    assert jnp.isfinite(fooled(tiny, **good, opens=shut, most=9).params["most"])
