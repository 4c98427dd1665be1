"""Autoencoders: shapes, training, codes and images, checkpoints, and what goes wrong."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oipjax
from oipjax import keys
from oipjax.data import mnist as data
from oipjax.networks import Autoencoder, AutoencoderConfig, autoencoder, checkpoint
from oipjax.training import AutoencoderTrainConfig, ClassifierTrainConfig, Noise, corruptions
from oipjax.training import autoencoder as autoencoding

KEY = jax.random.key(0)
SMALL = AutoencoderConfig((8, 8, 1), (4, 6), 3, (2, 1), 3)
CONFIG = AutoencoderTrainConfig(
    SMALL, learning_rate=2e-2, l2=0.0, epochs=4, batch=20, validation=60, loss="bce"
)


@pytest.fixture(autouse=True)
def _optax_is_exempt_from_strict_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def bars() -> data.Dataset:
    """One bright bar at any of 8 places and of any brightness: two numbers describe an image."""
    rng = np.random.default_rng(0)
    images = np.zeros((400, 8, 8, 1), np.uint8)
    images[np.arange(400), :, rng.integers(0, 8, 400)] = rng.integers(100, 256, (400, 1, 1))
    labels = np.zeros(400, np.uint8)
    return data.Dataset(
        "bars", data.Split(images[:300], labels[:300]), data.Split(images[300:], labels[300:]), ()
    )


@pytest.fixture(scope="module")
def fresh() -> Autoencoder:
    return Autoencoder(SMALL, autoencoder.init(KEY, SMALL), (0.2,), (0.3,), "fresh")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "filters", "strides", "kernel"),
    [
        ((28, 28, 1), (4, 5, 6, 7), (2, 2, 2, 2), 3),
        ((7, 10, 3), (4, 5), (2, 3), 3),
        ((9, 9, 2), (3,), (1,), 5),
        ((8, 6, 1), (3, 4), (2, 1), 4),
        ((5, 5, 1), (3,), (4,), 2),
    ],
)
def test_images_come_back_in_their_size(shape, filters, strides, kernel):
    config = AutoencoderConfig(shape, filters, kernel, strides, 4)
    auto = Autoencoder(config, autoencoder.init(KEY, config))
    pixels = jax.random.uniform(KEY, (2, *shape))
    codes = auto.encode(auto.params, pixels)
    back = auto.decode(auto.params, codes)
    assert codes.shape == (2, 4) and back.shape == (2, *shape)
    assert float(back.min()) >= 0 and float(back.max()) <= 1 and float(back.std()) > 0
    expected, given = (
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
        for tree in (autoencoder.shapes(config), auto.params)
    )
    assert expected == given


def test_the_model_is_encoder_and_decoder(fresh):
    pixels = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 1), np.uint8)
    model = fresh.model
    acts = model.apply(model.params, jnp.asarray(model.to_input(pixels)))
    codes = fresh.encode(fresh.params, pixels)
    np.testing.assert_allclose(acts["latent"], codes, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        acts["image"], fresh.decode(fresh.params, codes), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        fresh.encode(fresh.params, pixels / np.float32(255)), codes, rtol=1e-4, atol=1e-5
    )
    assert set(acts) == set(model.layers) and model.default_layer == "conv2"
    assert model.layer("conv2").shape == (4, 4, 6) and model.layer("latent").maps == 3
    assert (
        fresh.encode == Autoencoder(SMALL, None, (0.2,), (0.3,)).encode
    )  # compiled programs are shared


@pytest.mark.slow
def test_maps_of_an_encoder_have_patterns_and_bounds():
    config = replace(SMALL, activation="relu")
    params = jax.tree.map(np.array, autoencoder.init(KEY, config))
    params["encoder"]["conv2"]["kernel"][..., 1] = 0
    params["encoder"]["conv2"]["bias"][1] = -1
    model = Autoencoder(config, jax.tree.map(jnp.asarray, params)).model
    atlas = oipjax.atlas(KEY, model, "conv2", draws=64, keep=1, steps=8, restarts=2)
    assert atlas.counts == {"maps": 6, "found": 5, "dead": 1, "unresolved": 0}
    run = oipjax.ascend(KEY, model, oipjax.Map("latent"), np.array([2]), np.array([0]), steps=8)
    assert run.scores[0] > run.start_scores[0]


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "rate", "share"), [("bce", 2e-2, 0.25), ("mse", 1e-2, 0.85)])
def test_it_learns(bars, loss, rate, share):
    trained = autoencoding.train(
        KEY, replace(CONFIG, loss=loss, learning_rate=rate, epochs=12), bars
    )
    assert trained.test_mse < share * float(np.var(bars.test.images / 255))
    assert trained.history[-1].loss < trained.history[0].loss
    held = [epoch.validation_mse for epoch in trained.history]
    assert trained.best_epoch == int(np.argmin(held)) + 1
    back = autoencoding.reconstruct(trained.autoencoder, bars.test.images)
    assert np.mean((back - bars.test.images / 255) ** 2) == pytest.approx(
        trained.test_mse, rel=1e-4
    )
    mse, _ = autoencoding.evaluate(
        trained.autoencoder, trained.autoencoder.params, bars.train.images[240:]
    )
    assert mse == pytest.approx(min(held), rel=1e-4)


@pytest.mark.slow
def test_an_interrupted_training_goes_on_and_ends_in_the_same_bits(bars, tmp_path):
    epochs = []

    def interrupt(epoch):
        epochs.append(epoch.epoch)
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    config = replace(CONFIG, corrupt=Noise(0.3))
    straight = autoencoding.train(KEY, config, bars)
    with pytest.raises(KeyboardInterrupt):
        autoencoding.train(
            KEY, config, bars, progress=interrupt, state=tmp_path / "a" / "state.npz"
        )
    resumed = autoencoding.train(
        KEY, config, bars, progress=interrupt, state=tmp_path / "a" / "state.npz"
    )
    assert (
        epochs == [1, 2, 3, 4]
        and resumed.history == straight.history
        and resumed.best_epoch == straight.best_epoch
    )
    equal = jax.tree.map(np.array_equal, resumed.autoencoder.params, straight.autoencoder.params)
    assert jax.tree.all(equal)


@pytest.mark.slow
def test_what_it_sees_may_be_corrupted_and_what_it_gives_may_not(bars):
    clean, noisy = (
        autoencoding.train(KEY, replace(CONFIG, epochs=8, corrupt=c), bars)
        for c in (None, Noise(0.5))
    )
    assert clean.history[-1].train_mse < noisy.history[-1].train_mse
    damaged = Noise(0.5)(KEY, jnp.asarray(bars.test.images / np.float32(255)))
    means = []
    for trained in (clean, noisy):
        back = autoencoding.decode(
            trained.autoencoder, autoencoding.encode(trained.autoencoder, np.asarray(damaged))
        )
        means.append(np.mean((back - bars.test.images / 255) ** 2))
    assert means[1] < means[0]
    auto = noisy.autoencoder
    key = jax.random.fold_in(keys.stream(KEY, keys.NOISE), 1)
    back = autoencoding.reconstruct(auto, corruptions.corrupted(Noise(0.5), key, bars.test.images))
    assert np.mean((back - bars.test.images / 255) ** 2) == pytest.approx(noisy.test_mse, rel=1e-4)
    assert autoencoding.evaluate(auto, auto.params, bars.test.images)[0] < 0.9 * noisy.test_mse
    with pytest.raises(ValueError, match="expected a key to corrupt images with"):
        autoencoding.evaluate(auto, auto.params, bars.test.images, Noise(0.5))


def test_batches_do_not_matter(fresh):
    images = np.random.default_rng(0).integers(0, 256, (503, 8, 8, 1), np.uint8)
    codes = autoencoding.encode(fresh, images)
    assert codes.shape == (503, 3) and codes.dtype == np.float32
    np.testing.assert_array_equal(autoencoding.encode(fresh, images[500:]), codes[500:])
    np.testing.assert_allclose(
        fresh.decode(fresh.params, codes[:2]), autoencoding.decode(fresh, codes)[:2], atol=1e-6
    )


def test_checkpoints(fresh, tiny_folder, tmp_path):
    folder = checkpoint.save(tmp_path / "auto", fresh, {"command": "test"})
    again = checkpoint.load_autoencoder(folder, latent=3)
    assert (again.config, again.mean, again.std, again.name) == (SMALL, (0.2,), (0.3,), "fresh")
    assert jax.tree.all(jax.tree.map(np.array_equal, again.params, fresh.params))
    assert oipjax.load(folder).layers == fresh.model.layers
    with pytest.raises(ValueError, match="has 3 latent numbers, expected 16"):
        checkpoint.load_autoencoder(folder, latent=16)
    with pytest.raises(ValueError, match="tiny is no autoencoder"):
        checkpoint.load_autoencoder(tiny_folder)
    facts = json.loads((folder / checkpoint.FILE).read_text())
    facts["architecture"]["config"]["latent"] = 4
    facts["sha256"] = checkpoint.digest(facts)
    (folder / checkpoint.FILE).write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="do not fit the architecture: decoder/dense/kernel"):
        checkpoint.load_autoencoder(folder)


def test_wrong_shapes_are_named(fresh):
    with pytest.raises(ValueError, match=r"expected latent vectors \[n, 3\], got \[2, 16\]"):
        fresh.decode(fresh.params, np.zeros((2, 16), np.float32))
    with pytest.raises(ValueError, match=r"expected images \[n, 8, 8, 1\], got \[2, 9, 8, 1\]"):
        fresh.encode(fresh.params, np.zeros((2, 9, 8, 1), np.uint8))
    with pytest.raises(ValueError, match="at least one image or code"):
        autoencoding.encode(fresh, np.zeros((0, 8, 8, 1), np.uint8))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"strides": (2,)}, "one stride per convolution"),
        ({"filters": (), "strides": ()}, "one stride per convolution"),
        ({"latent": 0}, "at least 1"),
        ({"activation": "swish"}, "unknown activation"),
    ],
)
def test_networks_that_cannot_be_are_named(change, words):
    with pytest.raises(ValueError, match=words):
        replace(SMALL, **change)


def test_trainings_that_cannot_be_are_named(bars):
    with pytest.raises(ValueError, match="unknown loss 'l1'; there are bce, mse"):
        replace(CONFIG, loss="l1")
    with pytest.raises(ValueError, match="the network takes"):
        autoencoding.train(
            KEY, replace(CONFIG, network=replace(SMALL, input_shape=(9, 8, 1))), bars
        )
    with pytest.raises(ValueError, match="trains classifiers"):
        autoencoding.train(KEY, ClassifierTrainConfig(), bars)
    with pytest.raises(ValueError, match="trains autoencoders"):
        from oipjax import training

        training.train_classifier(KEY, CONFIG, bars)


def test_the_shipped_autoencoder_is_what_it_says():
    auto = checkpoint.load_autoencoder("mnist-autoencoder", latent=16)
    facts = checkpoint.read_facts(checkpoint.shipped()["mnist-autoencoder"])["training"]
    assert facts["test_mse"] <= 0.010 and facts["test_images"] == 10_000
    mse, _ = autoencoding.evaluate(auto, auto.params, data.sample().images)
    assert mse == pytest.approx(facts["test_mse"], rel=0.1)
