"""Training a classifier or an autoencoder to the same bits."""

from oipjax.training.autoencoder import (
    PRESETS,
    TrainedAutoencoder,
    reconstruct,
    reconstruction_curves,
)
from oipjax.training.autoencoder import evaluate as evaluate_autoencoder
from oipjax.training.autoencoder import train as train_autoencoder
from oipjax.training.classifier import TrainedClassifier, accuracy_curves
from oipjax.training.classifier import evaluate as evaluate_classifier
from oipjax.training.classifier import train as train_classifier
from oipjax.training.config import (
    AutoencoderTrainConfig,
    ClassifierTrainConfig,
    Epoch,
    ReconstructionEpoch,
    TrainConfig,
    optimizer,
    schedule,
)
from oipjax.training.corruptions import (
    LUMA,
    Chain,
    Corruption,
    Dropped,
    Grey,
    Noise,
    OneOf,
    corrupted,
    each,
    parse,
)
from oipjax.training.loop import State, normalisation, parts_of, plan, run_epoch
from oipjax.training.results import (
    ConfusionMatrix,
    Curve,
    Curves,
    Picture,
    Reconstructions,
    Trained,
)

__all__ = [
    "LUMA",
    "PRESETS",
    "AutoencoderTrainConfig",
    "Chain",
    "ClassifierTrainConfig",
    "ConfusionMatrix",
    "Corruption",
    "Curve",
    "Curves",
    "Dropped",
    "Epoch",
    "Grey",
    "Noise",
    "OneOf",
    "Picture",
    "ReconstructionEpoch",
    "Reconstructions",
    "State",
    "TrainConfig",
    "Trained",
    "TrainedAutoencoder",
    "TrainedClassifier",
    "accuracy_curves",
    "corrupted",
    "each",
    "evaluate_autoencoder",
    "evaluate_classifier",
    "normalisation",
    "optimizer",
    "parse",
    "parts_of",
    "plan",
    "reconstruct",
    "reconstruction_curves",
    "run_epoch",
    "schedule",
    "train_autoencoder",
    "train_classifier",
]
