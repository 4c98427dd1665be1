"""Xplique: ``optimize`` as documented, and batched.

``documented`` takes its defaults (Fourier parameterisation, standard transformations, Adam 0.05),
one channel at a time, for images of the network's size. The other settings give a list of channels
and no transformations. They are named parameterisation, layer, rate, and ``warm-up`` where its
open-ReLU steps come first.
"""

# pyright: reportMissingImports=false, reportMissingModuleSource=false

import keras_network
import numpy as np
import tensorflow as tf
import xplique
from protocol import Network, serve
from xplique.features_visualizations import Objective, optimize

WARM_UP = 16


class Xplique:
    """A `protocol.Worker`.

    Args:
        network: as exported.
    """

    def __init__(self, network: Network):
        self.network = network
        self.model = keras_network.model(network, 1.0, separate=True)

    def versions(self) -> dict[str, str]:
        """See `protocol.Worker`."""
        return {
            "xplique": xplique.__version__,
            "tensorflow-cpu": tf.__version__,
            "keras": tf.keras.__version__,
        }

    def conv3(self, images: np.ndarray) -> np.ndarray:
        """See `protocol.Worker`."""
        return keras_network.conv3(self.model, self.network, 1.0, images)

    def climb(self, setting: str, targets: list[int], steps: int, seed: int) -> np.ndarray:
        """See `protocol.Worker`."""
        tf.random.set_seed(seed)
        if setting == "documented":
            pixels = [self._documented(target, steps) for target in targets]
        else:
            pixels = [self._batch(setting, targets, steps)]
        return (np.concatenate(pixels) - self.network["mean"]) / self.network["std"]

    def _documented(self, target: int, steps: int):
        """Pixels of one image, by the defaults."""
        objective = Objective.channel(self.model, "conv3", target)
        images, *_ = optimize(objective, nb_steps=steps, custom_shape=None)
        return images[-1]

    def _batch(self, setting: str, targets: list[int], steps: int):
        """Pixels of an image for each target."""
        kind, layer, rate, *warm_up = setting.split(", ")
        images, _ = optimize(
            Objective.channel(self.model, layer, list(targets)),
            optimizer=tf.keras.optimizers.Adam(float(rate)),
            nb_steps=steps,
            use_fft=kind == "fft",
            transformations=None,
            warmup_steps=WARM_UP if warm_up else False,
            custom_shape=None,
        )
        return images[-1]


serve(Xplique)
