"""tf-keras-vis: as its README shows it, and batched.

``documented`` is its example for a filter of a convolution: the layer made linear, default
modifiers, regularisers and optimiser, pixels from 0 to 255, one map at a time. The other settings
drop regularisers, read every image's own map with one gather, and have one modifier that clips the
pixels before every step (by itself it clips only what it returns); they are named optimiser, rate,
and ``linear`` or ``relu`` for the layer.
"""

# pyright: reportMissingImports=false, reportMissingModuleSource=false

from importlib.metadata import version

import keras_network
import numpy as np
import tensorflow as tf
from protocol import serve
from tf_keras_vis.activation_maximization import ActivationMaximization
from tf_keras_vis.utils.model_modifiers import ExtractIntermediateLayer, ReplaceToLinear
from tf_keras_vis.utils.scores import CategoricalScore

WHITE = 255.0


class TfKerasVis:
    """A `protocol.Worker`."""

    def __init__(self, network: dict[str, np.ndarray]):
        self.network = network
        self.shape = network["check_images"].shape[1:]
        self.model = made = keras_network.model(network, WHITE, separate=False)
        take = ExtractIntermediateLayer("conv3")
        self.relu = ActivationMaximization(made, take, clone=True)
        self.linear = ActivationMaximization(made, [take, ReplaceToLinear()], clone=True)

    def versions(self) -> dict[str, str]:
        """As `protocol.Worker`."""
        return {name: version(name) for name in ("tf-keras-vis", "tensorflow-cpu", "keras")}

    def conv3(self, images: np.ndarray) -> np.ndarray:
        """As `protocol.Worker`."""
        return keras_network.conv3(self.model, self.network, WHITE, images)

    def climb(self, setting: str, targets: list[int], steps: int, seed: int) -> np.ndarray:
        """As `protocol.Worker`."""
        tf.random.set_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  (its modifiers draw from it)
        if setting == "documented":
            pixels = [
                np.asarray(self.linear(CategoricalScore(target), steps=steps)) for target in targets
            ]
        else:
            pixels = [np.asarray(self._batch(setting, targets, steps))]
        return (np.concatenate(pixels) / WHITE - self.network["mean"]) / self.network["std"]

    def _batch(self, setting: str, targets: list[int], steps: int):
        name, rate, layer = setting.split(", ")
        optimiser = {
            "RMSprop": lambda: tf.keras.optimizers.RMSprop(float(rate), 0.999),
            "Adam": lambda: tf.keras.optimizers.Adam(float(rate)),
        }[name]()
        maps = tf.constant(targets)

        def score(output):
            return tf.reduce_mean(tf.gather(output, maps, axis=3, batch_dims=1), axis=(1, 2))

        return {"relu": self.relu, "linear": self.linear}[layer](
            score,
            seed_input=tf.random.uniform((len(targets), *self.shape), 0, WHITE),
            input_range=(0.0, WHITE),
            input_modifiers=[lambda pixels: tf.clip_by_value(pixels, 0, WHITE)],
            regularizers=None,
            steps=steps,
            optimizer=optimiser,
        )


serve(TfKerasVis)
