"""The exported network in Keras."""

# pyright: reportMissingImports=false, reportMissingModuleSource=false

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from protocol import CONVOLUTIONS, DENSE

L = tf.keras.layers


def model(network: dict[str, np.ndarray], white: float, separate: bool) -> tf.keras.Model:
    """From pixels to logits.

    Args:
        network: as exported.
        white: value of a white pixel; black is 0.
        separate: a ReLU of conv3 is a layer of its own behind ``conv3_pre``, instead of a part of
            the convolution.
    """
    mean, std = (float(network[name][0]) for name in ("mean", "std"))
    x = image = L.Input(network["check_images"].shape[1:])
    x = L.Rescaling(1 / (white * std), -mean / std)(x)
    for name in CONVOLUTIONS:
        apart = separate and name == CONVOLUTIONS[-1]
        kernel = network[f"{name}_kernel"]
        shape, activation = kernel.shape[:2], None if apart else "relu"
        x = L.Conv2D(
            kernel.shape[3], shape, activation=activation, name=f"{name}_pre" if apart else name
        )(x)
        x = L.Activation("relu", name=name)(x) if apart else x
        if name != CONVOLUTIONS[-1]:
            x = L.MaxPool2D()(x)
    x = L.Flatten()(x)
    for name in DENSE:
        activation = None if name == DENSE[-1] else "relu"
        x = L.Dense(network[f"{name}_kernel"].shape[1], activation=activation, name=name)(x)
    made = tf.keras.Model(image, x)
    for layer in made.layers:
        if layer.get_weights():
            name = layer.name.removesuffix("_pre")
            layer.set_weights([network[f"{name}_kernel"], network[f"{name}_bias"]])
    return made


def conv3(
    made: tf.keras.Model, network: dict[str, np.ndarray], white: float, images: np.ndarray
) -> np.ndarray:
    """Activations of conv3 for network inputs."""
    part = tf.keras.Model(made.inputs, made.get_layer("conv3").output)
    return part((images * network["std"] + network["mean"]) * white).numpy()
