"""tf-keras-vis: as its README shows it, and batched.

``documented`` is its example for a filter of a convolution: the layer made linear, default
modifiers, regularisers and optimiser, pixels from 0 to 255, one map at a time. The other settings
have no regularisers, read every image's own map with one gather, and have one modifier that clips
the pixels before every step (by itself the library clips only the images that it returns). They are
named optimiser, rate, and ``linear`` or ``relu`` for the layer.
"""

# pyright: reportMissingImports=false, reportMissingModuleSource=false

from importlib.metadata import version

import keras_network
import numpy as np
import tensorflow as tf
from protocol import Network, serve
from tf_keras_vis.activation_maximization import ActivationMaximization
from tf_keras_vis.utils.model_modifiers import ExtractIntermediateLayer, ReplaceToLinear
from tf_keras_vis.utils.scores import CategoricalScore

WHITE = 255.0


class TfKerasVis:
    """A `protocol.Worker`.

    Args:
        network: as exported.
    """

    def __init__(self, network: Network):
        self.network = network
        self.shape = network["check_images"].shape[1:]
        self.model = keras_network.model(network, WHITE, separate=False)
        take = ExtractIntermediateLayer("conv3")
        linear = [take, ReplaceToLinear()]
        self.climbers = {
            "relu": ActivationMaximization(self.model, take, clone=True),
            "linear": ActivationMaximization(self.model, linear, clone=True),
        }

    def versions(self) -> dict[str, str]:
        """See `protocol.Worker`."""
        return {name: version(name) for name in ("tf-keras-vis", "tensorflow-cpu", "keras")}

    def conv3(self, images: np.ndarray) -> np.ndarray:
        """See `protocol.Worker`."""
        return keras_network.conv3(self.model, self.network, WHITE, images)

    def climb(self, setting: str, targets: list[int], steps: int, seed: int) -> np.ndarray:
        """See `protocol.Worker`."""
        tf.random.set_seed(seed)
        # The library's modifiers draw from numpy's generator.
        np.random.seed(seed)  # noqa: NPY002
        if setting == "documented":
            pixels = [self._documented(target, steps) for target in targets]
        else:
            pixels = [self._batch(setting, targets, steps)]
        brightness = np.concatenate(pixels) / WHITE
        return (brightness - self.network["mean"]) / self.network["std"]

    def _documented(self, target: int, steps: int) -> np.ndarray:
        """Pixels of one image, by the defaults."""
        return np.asarray(self.climbers["linear"](CategoricalScore(target), steps=steps))

    def _batch(self, setting: str, targets: list[int], steps: int) -> np.ndarray:
        """Pixels of an image for each target."""
        name, rate, layer = setting.split(", ")
        maps = tf.constant(targets)

        def score(output):
            own_maps = tf.gather(output, maps, axis=3, batch_dims=1)
            return tf.reduce_mean(own_maps, axis=(1, 2))

        def clip(pixels):
            return tf.clip_by_value(pixels, 0, WHITE)

        shape = (len(targets), *self.shape)
        images = self.climbers[layer](
            score,
            seed_input=tf.random.uniform(shape, 0, WHITE),
            input_range=(0.0, WHITE),
            input_modifiers=[clip],
            regularizers=None,
            steps=steps,
            optimizer=_optimiser(name, float(rate)),
        )
        return np.asarray(images)


def _optimiser(name: str, rate: float):
    if name == "RMSprop":
        return tf.keras.optimizers.RMSprop(rate, 0.999)
    if name == "Adam":
        return tf.keras.optimizers.Adam(rate)
    raise KeyError(name)


serve(TfKerasVis)
