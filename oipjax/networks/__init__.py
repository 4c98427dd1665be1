"""Networks of our own, and the way from a folder on disk to a `Model`."""

from oipjax.networks import autoencoder, checkpoint, cnn
from oipjax.networks.autoencoder import Autoencoder, AutoencoderConfig
from oipjax.networks.checkpoint import load, load_autoencoder
from oipjax.networks.cnn import CNNConfig

__all__ = [
    "Autoencoder",
    "AutoencoderConfig",
    "CNNConfig",
    "autoencoder",
    "checkpoint",
    "cnn",
    "load",
    "load_autoencoder",
]
