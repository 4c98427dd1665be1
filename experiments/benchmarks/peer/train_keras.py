"""Training in tf.keras: ``model.fit``, and a loop over batches in one ``tf.function``.

A request is one epoch: ``steps`` is its number, and 1 starts anew from the weights of
``start{round}.npz``; the one target is the number of images; the seed is 1000 times the round, as
`protocol` makes it. The answer is ``[[seconds, test accuracy]]``, without the time of the test.

Settings are ``fit, arrays``, ``fit, dataset`` (shuffled and cut by tf.data) or ``loop, tensors``,
and ``XLA`` where steps are compiled by it, as they are by default in ``fit``, or ``no XLA``.
"""

# pyright: reportMissingImports=false, reportMissingModuleSource=false

import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import keras_network
import numpy as np
import tensorflow as tf
from protocol import serve

FOLDER = Path(sys.argv[1])
WHITE = 255.0
TEST_BATCH = 500
SHUFFLED = 10_000


class Keras:
    """A `protocol.Worker`."""

    def __init__(self, network: dict[str, np.ndarray]):
        self.network = network
        with np.load(FOLDER / "training.npz") as file:
            plan = dict(file)
        self.batch, self.rate = int(plan["batch"]), float(plan["rate"])
        self.images, self.test_images = (
            plan[f"{split}_images"].astype(np.float32) for split in ("train", "test")
        )
        self.labels, self.test_labels = (
            plan[f"{split}_labels"].astype(np.int32) for split in ("train", "test")
        )
        self.loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.made: dict[str, Training] = {}

    def versions(self) -> dict[str, str]:
        """As `protocol.Worker`."""
        return {name: version(name) for name in ("tensorflow-cpu", "keras")}

    def conv3(self, images: np.ndarray) -> np.ndarray:
        """As `protocol.Worker`."""
        return keras_network.conv3(self.network_from({}), self.network, WHITE, images)

    def network_from(self, start: dict[str, np.ndarray]) -> tf.keras.Model:
        """The network, with other weights."""
        return keras_network.model(self.network | start, WHITE, separate=False)

    def climb(self, setting: str, targets: list[int], steps: int, seed: int) -> np.ndarray:
        """One epoch."""
        if setting not in self.made:
            self.made[setting] = Training(self, setting)
        training = self.made[setting]
        if steps == 1:
            with np.load(FOLDER / f"start{seed // 1000}.npz") as file:
                training.reset(self.network_from(dict(file)).get_weights())
        (count,) = targets
        tf.keras.utils.set_random_seed(seed + steps)
        begin = time.perf_counter()
        training.epoch(count)
        seconds = time.perf_counter() - begin
        starts = range(0, len(self.test_images), TEST_BATCH)
        logits = [
            training.model(self.test_images[first : first + TEST_BATCH]).numpy() for first in starts
        ]
        return np.array([[seconds, np.mean(np.concatenate(logits).argmax(1) == self.test_labels)]])


class Training:
    """A network, its optimiser, and how to train them for one epoch; traced once."""

    def __init__(self, worker: Keras, setting: str):
        self.worker, self.model = worker, worker.network_from({})
        self.optimiser = tf.keras.optimizers.Adam(worker.rate, epsilon=1e-8)
        self.optimiser.build(self.model.trainable_variables)
        self.fresh = [variable.numpy() for variable in self.optimiser.variables]
        way, self.source, compiler = setting.split(", ")
        self.epoch: Callable[[int], None] = self._fit
        if way == "fit":
            self.model.compile(self.optimiser, worker.loss, jit_compile=compiler == "XLA")
        else:
            self.epoch = self._loop(compiler == "XLA")

    def reset(self, weights: list[np.ndarray]) -> None:
        """Begin again from some weights."""
        self.model.set_weights(weights)
        for variable, value in zip(self.optimiser.variables, self.fresh, strict=True):
            variable.assign(value)

    def _fit(self, count: int) -> None:
        batch = self.worker.batch
        count = count // batch * batch
        images, labels = self.worker.images[:count], self.worker.labels[:count]
        if self.source == "arrays":
            self.model.fit(images, labels, batch_size=batch, verbose=0)
        else:
            digits = tf.data.Dataset.from_tensor_slices((images, labels))
            self.model.fit(
                digits.shuffle(SHUFFLED).batch(batch).prefetch(tf.data.AUTOTUNE), verbose=0
            )

    def _loop(self, xla: bool) -> Callable[[int], None]:
        batch, model, optimiser, loss = (
            self.worker.batch,
            self.model,
            self.optimiser,
            self.worker.loss,
        )
        images, labels = tf.constant(self.worker.images), tf.constant(self.worker.labels)

        @tf.function(jit_compile=xla)
        def step(images, labels):
            with tf.GradientTape() as tape:
                value = loss(labels, model(images, training=True))
            optimiser.apply(
                tape.gradient(value, model.trainable_variables), model.trainable_variables
            )

        @tf.function(input_signature=[tf.TensorSpec((None, batch), tf.int32)])
        def steps(order):
            for some in order:
                step(tf.gather(images, some), tf.gather(labels, some))

        def epoch(count):
            order = tf.random.shuffle(tf.range(count))[: count // batch * batch]
            steps(tf.reshape(order, (-1, batch)))
            model.trainable_variables[0].numpy()  # wait

        return epoch


serve(Keras)
