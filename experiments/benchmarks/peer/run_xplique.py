"""Xplique: ``optimize`` as documented, and batched.

``documented`` takes its defaults (Fourier parameterisation, standard transformations, Adam 0.05),
one channel at a time, told to make images of the network's size. The other settings give a list of
channels and no transformations; they are named parameterisation, layer, rate, and ``warm-up`` where
its open-ReLU steps come first.
"""

# pyright: reportMissingImports=false, reportMissingModuleSource=false

import keras_network
import numpy as np
import tensorflow as tf
import xplique
from protocol import serve
from xplique.features_visualizations import Objective, optimize

WARM_UP = 16


class Xplique:
    """A `protocol.Worker`."""

    def __init__(self, network: dict[str, np.ndarray]):
        self.network = network
        self.model = keras_network.model(network, 1.0, separate=True)

    def versions(self) -> dict[str, str]:
        """As `protocol.Worker`."""
        return {
            "xplique": xplique.__version__,
            "tensorflow-cpu": tf.__version__,
            "keras": tf.keras.__version__,
        }

    def conv3(self, images: np.ndarray) -> np.ndarray:
        """As `protocol.Worker`."""
        return keras_network.conv3(self.model, self.network, 1.0, images)

    def climb(self, setting: str, targets: list[int], steps: int, seed: int) -> np.ndarray:
        """As `protocol.Worker`."""
        tf.random.set_seed(seed)
        if setting == "documented":
            pixels = [
                optimize(
                    Objective.channel(self.model, "conv3", target),
                    nb_steps=steps,
                    custom_shape=None,
                )[0][-1]
                for target in targets
            ]
        else:
            kind, layer, rate, *rest = setting.split(", ")
            images, _ = optimize(
                Objective.channel(self.model, layer, list(targets)),
                optimizer=tf.keras.optimizers.Adam(float(rate)),
                nb_steps=steps,
                use_fft=kind == "fft",
                transformations=None,
                warmup_steps=WARM_UP if rest else False,
                custom_shape=None,
            )
            pixels = [images[-1]]
        return (np.concatenate(pixels) - self.network["mean"]) / self.network["std"]


serve(Xplique)
