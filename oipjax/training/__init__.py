"""Training a classifier or an autoencoder to the same bits."""

from oipjax.training.autoencoder import reconstruct
from oipjax.training.config import Epoch, ReconstructionEpoch, TrainConfig, described
from oipjax.training.corruptions import (
    LUMA,
    Chain,
    Corruption,
    Dropped,
    Grey,
    Noise,
    OneOf,
    corrupted,
    parse,
)

__all__ = [
    "LUMA",
    "Chain",
    "Corruption",
    "Dropped",
    "Epoch",
    "Grey",
    "Noise",
    "OneOf",
    "ReconstructionEpoch",
    "TrainConfig",
    "corrupted",
    "described",
    "parse",
    "reconstruct",
]
