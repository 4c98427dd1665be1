"""Training in tf.keras: ``model.fit``, and a loop over batches in one ``tf.function``.

A request is one epoch: ``steps`` is its number, and 1 starts anew from the weights of
``start{round}.npz``. The one target is the number of images. The seed is 1000 times the round, as
`protocol` makes it. The answer is ``[[seconds, test accuracy]]``, without the time of the test.

Settings are ``fit, arrays``, ``fit, dataset`` (shuffled and cut by tf.data) or ``loop, tensors``,
each with ``XLA`` or ``no XLA``: whether XLA compiles the steps, which is the default of ``fit``.
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
from protocol import Network, serve

FOLDER = Path(sys.argv[1])
WHITE = 255.0
TEST_BATCH = 500
SHUFFLED = 10_000
"""Images among which tf.data draws the next one."""


class Keras:
    """A `protocol.Worker`.

    Args:
        network: as exported.
    """

    def __init__(self, network: Network):
        self.network = network
        with np.load(FOLDER / "training.npz") as file:
            plan = dict(file)
        self.batch = int(plan["batch"])
        self.rate = float(plan["rate"])
        self.images = plan["train_images"].astype(np.float32)
        self.test_images = plan["test_images"].astype(np.float32)
        self.labels = plan["train_labels"].astype(np.int32)
        self.test_labels = plan["test_labels"].astype(np.int32)
        self.loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.trainings: dict[str, Training] = {}

    def versions(self) -> dict[str, str]:
        """See `protocol.Worker`."""
        return {name: version(name) for name in ("tensorflow-cpu", "keras")}

    def conv3(self, images: np.ndarray) -> np.ndarray:
        """See `protocol.Worker`."""
        return keras_network.conv3(self.network_from({}), self.network, WHITE, images)

    def network_from(self, start: Network) -> tf.keras.Model:
        """The network with some weights replaced."""
        return keras_network.model(self.network | start, WHITE, separate=False)

    def climb(self, setting: str, targets: list[int], steps: int, seed: int) -> np.ndarray:
        """Train one epoch."""
        if setting not in self.trainings:
            self.trainings[setting] = Training(self, setting)
        training = self.trainings[setting]
        if steps == 1:
            with np.load(FOLDER / f"start{seed // 1000}.npz") as file:
                start = self.network_from(dict(file))
            training.reset(start.get_weights())
        (count,) = targets
        tf.keras.utils.set_random_seed(seed + steps)
        begin = time.perf_counter()
        training.epoch(count)
        seconds = time.perf_counter() - begin
        return np.array([[seconds, self._accuracy(training.model)]])

    def _accuracy(self, model: tf.keras.Model) -> float:
        """Share of the test images that are classified rightly."""
        logits = []
        for first in range(0, len(self.test_images), TEST_BATCH):
            images = self.test_images[first : first + TEST_BATCH]
            logits.append(model(images).numpy())
        classes = np.concatenate(logits).argmax(1)
        return float(np.mean(classes == self.test_labels))


class Training:
    """A network, its optimiser, and one epoch of training; traced once.

    Args:
        worker: with the images and the plan.
        setting: as `Keras` takes it.
    """

    def __init__(self, worker: Keras, setting: str):
        self.worker = worker
        self.model = worker.network_from({})
        self.optimiser = tf.keras.optimizers.Adam(worker.rate, epsilon=1e-8)
        self.optimiser.build(self.model.trainable_variables)
        self.fresh = [variable.numpy() for variable in self.optimiser.variables]
        way, self.source, compiler = setting.split(", ")
        with_xla = compiler == "XLA"
        self.epoch: Callable[[int], None] = self._fit
        if way == "fit":
            self.model.compile(self.optimiser, worker.loss, jit_compile=with_xla)
        else:
            self.epoch = self._loop(with_xla)

    def reset(self, weights: list[np.ndarray]) -> None:
        """Begin again from some weights."""
        self.model.set_weights(weights)
        for variable, value in zip(self.optimiser.variables, self.fresh, strict=True):
            variable.assign(value)

    def _fit(self, count: int) -> None:
        batch = self.worker.batch
        whole = count // batch * batch
        images = self.worker.images[:whole]
        labels = self.worker.labels[:whole]
        if self.source == "arrays":
            self.model.fit(images, labels, batch_size=batch, verbose=0)
        else:
            digits = tf.data.Dataset.from_tensor_slices((images, labels))
            batches = digits.shuffle(SHUFFLED).batch(batch)
            self.model.fit(batches.prefetch(tf.data.AUTOTUNE), verbose=0)

    def _loop(self, with_xla: bool) -> Callable[[int], None]:
        batch = self.worker.batch
        loss = self.worker.loss
        model = self.model
        optimiser = self.optimiser
        all_images = tf.constant(self.worker.images)
        all_labels = tf.constant(self.worker.labels)

        @tf.function(jit_compile=with_xla)
        def step(images, labels):
            with tf.GradientTape() as tape:
                value = loss(labels, model(images, training=True))
            variables = model.trainable_variables
            optimiser.apply(tape.gradient(value, variables), variables)

        @tf.function(input_signature=[tf.TensorSpec((None, batch), tf.int32)])
        def steps(order):
            for numbers in order:
                images = tf.gather(all_images, numbers)
                labels = tf.gather(all_labels, numbers)
                step(images, labels)

        def epoch(count):
            whole = count // batch * batch
            order = tf.random.shuffle(tf.range(count))[:whole]
            steps(tf.reshape(order, (-1, batch)))
            # Reading a variable waits for the steps.
            model.trainable_variables[0].numpy()

        return epoch


serve(Keras)
