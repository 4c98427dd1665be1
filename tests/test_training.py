"""Training: optimisers, schedules, what is kept, and that the same seed gives the same network."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from oipjax.data import mnist as data
from oipjax.networks import checkpoint, cnn
from oipjax.runtime import cores
from oipjax.training import (
    ClassifierTrainConfig,
    ConfusionMatrix,
    Curves,
    normalisation,
    optimizer,
    schedule,
)
from oipjax.training import classifier as training

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def _optax_is_exempt_from_strict_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def squares() -> data.Dataset:
    """Three classes that a network can tell apart at once: the bright third of the image."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400).astype(np.uint8)
    images = rng.integers(0, 60, (400, 8, 8, 1)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 2 * label : 2 * label + 3] += 120
    return data.Dataset(
        "squares",
        data.Split(images[:300], labels[:300]),
        data.Split(images[300:], labels[300:]),
        tuple("abc"),
    )


NETWORK = cnn.CNNConfig((8, 8, 1), (4, 6), 3, (2, 1), (5,), 3)
CONFIG = ClassifierTrainConfig(NETWORK, epochs=4, batch=20, validation=60, learning_rate=3e-3)


def run(config, dataset, key=KEY):
    return training.train(key, config, dataset)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_every_optimizer_learns(squares, optimizer):
    rate = {"adam": 3e-3, "rmsprop": 1e-3, "sgd": 2e-2}[optimizer]
    trained = run(replace(CONFIG, optimizer=optimizer, learning_rate=rate, epochs=8), squares)
    assert trained.test_accuracy > 0.9, trained.history
    assert trained.confusion.sum() == 100 and trained.confusion.shape == (3, 3)
    assert trained.test_accuracy == np.trace(trained.confusion) / 100
    assert trained.history[-1].loss < trained.history[0].loss


def test_the_best_epoch_is_kept(squares):
    trained = run(replace(CONFIG, epochs=6), squares)
    held = [epoch.validation_accuracy for epoch in trained.history]
    assert trained.best_epoch == int(np.argmax(held)) + 1
    images, labels = squares.train.images[240:], squares.train.labels[240:]
    confusion, loss = training.evaluate(
        trained.model, trained.model.params, data.Split(images, labels)
    )
    assert np.trace(confusion) / 60 == max(held)
    assert loss == pytest.approx(trained.history[trained.best_epoch - 1].validation_loss, rel=1e-4)


def test_the_same_seed_gives_the_same_network(squares):
    first, second, other = (
        run(CONFIG, squares),
        run(CONFIG, squares),
        run(CONFIG, squares, jax.random.key(1)),
    )
    equal = jax.tree.map(np.array_equal, first.model.params, second.model.params)
    assert jax.tree.all(equal) and first.history == second.history
    kernels = [
        (first.model.params[layer]["kernel"], other.model.params[layer]["kernel"])
        for layer in first.model.params
    ]
    assert not any(np.array_equal(a, b) for a, b in kernels)


def test_l2_is_the_gradient_of_the_sum_of_squares_of_kernels():
    params = jax.tree.map(lambda leaf: leaf + 1, cnn.init(KEY, NETWORK))
    config = replace(
        CONFIG, optimizer="sgd", schedule="constant", momentum=0.0, learning_rate=1.0, l2=0.1
    )
    tx = optimizer(config, 10)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    penalty = jax.grad(
        lambda p: 0.1 * sum(jnp.sum(jnp.square(p[layer]["kernel"])) for layer in p)  # pyright: ignore[reportArgumentType]
    )(params)
    jax.tree.map(lambda u, g: np.testing.assert_allclose(u, -g, rtol=1e-6), updates, penalty)
    assert all(not np.any(updates[layer]["bias"]) for layer in updates)


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("constant", 1.0),
        ("cosine", 0.0),
        ("exponential", 0.01),
        ("inverse", 0.1),
        ("piecewise", 0.01),
    ],
)
def test_schedules_start_at_the_rate_and_end_where_they_say(name, end):
    rate = schedule(replace(CONFIG, schedule=name, learning_rate=0.5), 1000)
    assert float(rate(0)) == pytest.approx(0.5) and float(rate(1000)) == pytest.approx(
        0.5 * end, abs=1e-6
    )
    values = [float(rate(step)) for step in range(0, 1001, 50)]
    assert values == sorted(values, reverse=True)


@pytest.mark.slow
def test_an_epoch_sees_every_image_once(squares):
    """With one step per epoch over all images, an epoch is the full-batch gradient step."""
    config = replace(
        CONFIG,
        optimizer="sgd",
        schedule="constant",
        momentum=0.0,
        l2=0.0,
        batch=300,
        validation=0,
        epochs=1,
    )
    trained = run(config, squares)
    params = cnn.init(jax.random.fold_in(jax.random.fold_in(KEY, 3), 0), NETWORK)
    images = (
        squares.train.images.astype(np.float32) / 255 - trained.model.mean[0]
    ) / trained.model.std[0]

    def loss(params):
        logits = cnn.model(params, NETWORK).apply(params, jnp.asarray(images, jnp.float32))[
            "logits"
        ]
        return optax.softmax_cross_entropy_with_integer_labels(
            logits, squares.train.labels.astype(int)
        ).mean()

    value, gradient = jax.value_and_grad(loss)(params)
    stepped = jax.tree.map(lambda p, g: p - config.learning_rate * g, params, gradient)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        trained.model.params,
        stepped,
    )
    assert (
        trained.history[0].loss == pytest.approx(float(value), rel=1e-4) and trained.best_epoch == 1
    )


def test_a_result_says_what_it_is(squares):
    trained = run(replace(CONFIG, epochs=1), squares)
    assert trained.summary() == f"{100 * trained.test_accuracy:.2f} % of 100 test images right"
    assert json.loads(json.dumps(trained.facts())) == {
        "test_accuracy": trained.test_accuracy,
        "confusion": trained.confusion.tolist(),
    }
    figures = trained.figures(squares)
    curves = figures["curves"]
    assert isinstance(curves, Curves)
    assert curves.epochs == (1,) and curves.best_epoch == trained.best_epoch
    assert [curve.label for curve in curves.curves] == ["cross-entropy (nats)", "accuracy (%)"]
    assert curves.curves[0].train == [trained.history[0].loss]
    assert isinstance(figures["confusion"], ConfusionMatrix) and len(figures) == 2
    assert figures["confusion"].classes == squares.classes
    assert trained.history[0].summary().startswith("epoch   1  loss ")


def test_a_twelfth_is_held_out_by_default(squares):
    config = ClassifierTrainConfig(NETWORK, epochs=1, batch=20)
    assert config.held_out(60_000) == 5000 and config.held_out(300) == 25
    other = replace(NETWORK, input_shape=(9, 9, 3), classes=7)
    fitted = replace(config, network=other).for_data(squares)
    assert fitted.validation == 25 and fitted.network.classes == 3
    assert fitted.network.input_shape == (8, 8, 1)
    auto, number = run(config, squares), run(replace(config, validation=25), squares)
    assert auto.history == number.history
    with pytest.raises(TypeError, match="seed"):
        ClassifierTrainConfig(seed=1)  # pyright: ignore[reportCallIssue]


def interrupted(after: int, config, dataset, file, **options) -> list[int]:
    """Train, and end in the progress report of epoch ``after``; what was told."""
    told = []

    def progress(epoch):
        told.append(epoch.epoch)
        if epoch.epoch == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(KEY, config, dataset, progress=progress, state=file, **options)
    return told


@pytest.mark.parametrize(
    ("after", "changes"), [(1, {}), (3, {"validation": 0}), (2, {"optimizer": "sgd"})]
)
def test_an_interrupted_training_goes_on_and_ends_in_the_same_bits(
    squares, tmp_path, after, changes
):
    config, file, told = replace(CONFIG, **changes), tmp_path / "out" / "training.npz", []
    straight = run(config, squares)
    assert interrupted(after, config, squares, file) == list(range(1, after + 1))
    assert [path.name for path in file.parent.iterdir()] == ["training.npz"]
    resumed = training.train(
        KEY, config, squares, progress=lambda e: told.append(e.epoch), state=file
    )
    assert told == list(range(after + 1, 5)) and str(resumed.history) == str(straight.history)
    assert jax.tree.all(jax.tree.map(np.array_equal, resumed.model.params, straight.model.params))
    assert (
        resumed.best_epoch == straight.best_epoch
        and resumed.test_accuracy == straight.test_accuracy
    )
    # A training that was finished, but whose result was not stored, is not repeated.
    again = training.train(
        KEY, config, squares, progress=lambda e: told.append(e.epoch), state=file
    )
    assert told[-1] == 4 and len(told) == 4 - after
    assert jax.tree.all(jax.tree.map(np.array_equal, again.model.params, straight.model.params))


def test_the_state_of_another_training_is_refused_and_replaced_only_on_demand(squares, tmp_path):
    file = tmp_path / "training.npz"
    interrupted(2, CONFIG, squares, file)
    before = file.read_bytes()
    for other, words in (
        (
            (replace(CONFIG, batch=30), squares),
            r"--overwrite replaces it(.|\n)*config.batch: 20 there, 30 asked for",
        ),
        (
            (CONFIG, squares._replace(name="circles")),
            r"data.name: \"squares\" there, \"circles\" asked for",
        ),
        ((CONFIG, squares._replace(train=squares.test)), "data.sha256"),
    ):
        with pytest.raises(ValueError, match=words):
            training.train(KEY, *other, state=file)
    with pytest.raises(ValueError, match="key.data"):
        training.train(jax.random.key(7), CONFIG, squares, state=file)
    assert file.read_bytes() == before
    assert interrupted(1, replace(CONFIG, batch=30), squares, file, overwrite=True) == [1]
    assert interrupted(2, replace(CONFIG, batch=30), squares, file, overwrite=True) == [
        2
    ]  # its own state it keeps


def test_a_damaged_state_is_no_state(squares, tmp_path):
    file = tmp_path / "training.npz"
    interrupted(2, CONFIG, squares, file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert interrupted(1, CONFIG, squares, file) == [1]


def test_who_watches_sees_the_parameters_of_each_epoch(squares):
    seen = {}
    trained = training.train(
        KEY, CONFIG, squares, watch=lambda epoch, params: seen.update({epoch.epoch: params})
    )
    assert sorted(seen) == [1, 2, 3, 4]
    assert jax.tree.all(
        jax.tree.map(np.array_equal, seen[trained.best_epoch], trained.model.params)
    )
    assert not np.array_equal(seen[1]["conv1"]["kernel"], seen[2]["conv1"]["kernel"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"l2": -1.0}, "l2 must not be negative"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"validation": 290}, "leave 10, fewer than a batch of 20"),
        ({"network": cnn.CNNConfig((9, 9, 1), (4,), 3, (1,), (), 3)}, "the network takes"),
        ({"network": replace(NETWORK, classes=2)}, "has 3 classes, the network 2"),
    ],
)
def test_what_cannot_be_trained_is_named(squares, change, words):
    with pytest.raises(ValueError, match=words):
        run(replace(CONFIG, **change), squares)


def test_normalisation_is_mean_and_standard_deviation():
    images = np.random.default_rng(0).integers(0, 200, (1203, 3, 2, 2)).astype(np.uint8)
    mean, std = normalisation(images)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), atol=5e-5)
    np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)), atol=5e-5)
    with pytest.raises(ValueError, match="all pixels of a channel are equal"):
        normalisation(np.full((3, 4, 4, 1), 7, np.uint8))


def test_images_without_classes_are_named(squares):
    with pytest.raises(ValueError, match="squares has no classes"):
        run(CONFIG, squares._replace(classes=()))


def test_a_loss_that_is_not_finite_ends_the_training(squares):
    with pytest.raises(ValueError, match="no longer finite in epoch"):
        run(replace(CONFIG, optimizer="sgd", learning_rate=1e20, schedule="constant"), squares)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"filters": (4,), "pools": (2, 2)}, "one pool per convolution"),
        ({"filters": (4, 0)}, "at least 1"),
        ({"input_shape": (4, 4, 1)}, "too small"),
        ({"activation": "swish"}, "unknown activation"),
    ],
)
def test_networks_that_cannot_be_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        replace(NETWORK, **options)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "tanh"])
def test_pooling_before_the_activation_is_pooling_after_it(activation):
    config = replace(NETWORK, activation=activation)
    params = cnn.init(KEY, config)
    acts = cnn.model(params, config).apply(params, jax.random.normal(KEY, (3, 8, 8, 1)))
    after = np.asarray(acts["conv1"]).reshape(3, 3, 2, 3, 2, 4).max((2, 4))
    np.testing.assert_allclose(acts["pool1"], after, rtol=1e-5, atol=1e-6)


def test_same_padding_keeps_the_size():
    config = replace(NETWORK, padding="SAME", pools=(1, 1))
    params = cnn.init(KEY, config)
    acts = cnn.model(params, config).apply(params, jnp.ones((2, 8, 8, 1)))
    assert acts["conv2"].shape == (2, 8, 8, 6) and list(config.layers) == sorted(
        acts, key=config.layers.index
    )


PARTS = """
import json, sys
from pathlib import Path
import jax, numpy as np
from oipjax import training
from oipjax.data import mnist

devices, folder = int(sys.argv[1]), Path(sys.argv[2])
jax.config.update("jax_num_cpu_devices", devices)
config = training.ClassifierTrainConfig(
    epochs=1, batch=32, validation=100, optimizer="sgd", learning_rate=0.01
)
trained = training.train_classifier(jax.random.key(0), config, mnist.sample_dataset())
leaves = jax.tree_util.tree_leaves_with_path(trained.model.params)
found = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
np.savez(folder, parts=training.parts_of(config), loss=trained.history[0].loss, **found)
"""


@pytest.mark.slow
def test_a_batch_may_be_shared_by_devices(tmp_path):
    """The mean of the parts' gradients is that of the batch, to rounding.

    The command line gives each core a part.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")
    }
    environment["JAX_PLATFORMS"] = "cpu"
    found = {}
    for devices in (1, 2):
        file = tmp_path / f"{devices}.npz"
        subprocess.run(
            [sys.executable, "-c", PARTS, str(devices), str(file)], check=True, env=environment
        )
        found[devices] = dict(np.load(file))
        assert found[devices].pop("parts") == devices
    for name, value in found[2].items():
        # Pools and ReLUs whose inputs are nearly equal may choose otherwise.
        off = np.linalg.norm(value - found[1][name]) / np.linalg.norm(found[1][name])
        assert off < 0.02, (name, off)
    assert any((value != found[1][name]).any() for name, value in found[2].items()), (
        "parts round differently"
    )

    options = [
        "--data",
        "sample",
        "--epochs",
        "1",
        "--batch",
        "32",
        "--validation",
        "100",
        "--out",
        str(tmp_path / "out"),
    ]
    options += ["--optimizer", "sgd", "--learning-rate", "0.01"]
    command = [sys.executable, "-c", "from oipjax.cli.main import main; main()", "train", *options]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    facts = json.loads((tmp_path / "out" / "checkpoint.json").read_text())
    assert facts["training"]["device"]["count"] == min(cores(), 4)
    if cores() == 2:
        params = checkpoint.load(tmp_path / "out").params
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            np.testing.assert_array_equal(leaf, found[2][jax.tree_util.keystr(path)])
