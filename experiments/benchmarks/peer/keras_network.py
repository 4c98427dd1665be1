"""The exported network in Keras."""

# pyright: reportMissingImports=false, reportMissingModuleSource=false

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from protocol import CONVOLUTIONS, DENSE, Network

L = tf.keras.layers


def model(network: Network, white: float, separate: bool) -> tf.keras.Model:
    """The network from pixels to logits.

    Args:
        network: as exported.
        white: value of a white pixel; black is 0.
        separate: whether the ReLU of conv3 is a layer of its own behind ``conv3_pre``, instead of a
            part of the convolution.
    """
    mean = float(network["mean"][0])
    std = float(network["std"][0])
    image = L.Input(network["check_images"].shape[1:])
    x = L.Rescaling(1 / (white * std), -mean / std)(image)
    for name in CONVOLUTIONS:
        is_last = name == CONVOLUTIONS[-1]
        x = _convolution(network, name, separate and is_last, x)
        if not is_last:
            x = L.MaxPool2D()(x)
    x = L.Flatten()(x)
    for name in DENSE:
        units = network[f"{name}_kernel"].shape[1]
        activation = None if name == DENSE[-1] else "relu"
        x = L.Dense(units, activation=activation, name=name)(x)
    made = tf.keras.Model(image, x)
    for layer in made.layers:
        if layer.get_weights():
            name = layer.name.removesuffix("_pre")
            layer.set_weights([network[f"{name}_kernel"], network[f"{name}_bias"]])
    return made


def _convolution(network: Network, name: str, separate: bool, x):
    """A convolution and its ReLU, which may be a layer of its own, applied to ``x``."""
    kernel = network[f"{name}_kernel"]
    shape = kernel.shape[:2]
    filters = kernel.shape[3]
    if not separate:
        return L.Conv2D(filters, shape, activation="relu", name=name)(x)
    x = L.Conv2D(filters, shape, activation=None, name=f"{name}_pre")(x)
    return L.Activation("relu", name=name)(x)


def conv3(made: tf.keras.Model, network: Network, white: float, images: np.ndarray) -> np.ndarray:
    """Activations of conv3 for network inputs.

    Args:
        made: from `model`.
        network: as exported.
        white: value of a white pixel.
        images: network inputs ``[n, h, w, c]``.
    """
    part = tf.keras.Model(made.inputs, made.get_layer("conv3").output)
    pixels = (images * network["std"] + network["mean"]) * white
    return part(pixels).numpy()
