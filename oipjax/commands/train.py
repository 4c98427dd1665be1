"""``oipjax train``."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from oipjax import records
from oipjax.commands.common import OUT, key_of
from oipjax.console import DownloadBar, progress, stderr


def train(
    *,
    data: str = "",
    out: Path = OUT / "train" / "mnist-cnn",
    name: str = "mnist-cnn",
    epochs: int = 12,
    batch: int = 64,
    optimizer: Literal["adam", "rmsprop", "sgd"] = "adam",
    learning_rate: float = 1e-3,
    schedule: Literal["constant", "cosine", "exponential", "inverse", "piecewise"] = "cosine",
    momentum: float = 0.9,
    l2: float = 3e-4,
    validation: int | None = None,
    filters: tuple[int, ...] = (32, 64, 128),
    kernel: int = 3,
    pools: tuple[int, ...] = (2, 2, 1),
    dense: tuple[int, ...] = (100,),
    activation: Literal["relu", "leaky_relu", "elu", "tanh"] = "relu",
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Train a CNN on MNIST and write a checkpoint, with curves and the confusion matrix as pictures.

    Example: oipjax train --epochs 12 --out networks/mine

    Args:
        data: folder with the four official MNIST files; else the environment variable OIPJAX_DATA; else they are
            downloaded. 'sample': the 1,000 digits that ship with oipjax, for a quick try.
        out: checkpoint folder to write.
        name: of the network.
        epochs: passes through the training images.
        batch: images per step.
        optimizer: of optax.
        learning_rate: at the start.
        schedule: of the learning rate.
        momentum: of sgd and rmsprop.
        l2: times the sum of squares of all kernels is added to the loss.
        validation: training images held out to choose the best epoch; by default a twelfth of them.
        filters: maps of each convolution.
        kernel: side of the kernels.
        pools: side of the max-pool after each convolution, 1 for none.
        dense: nodes of each hidden dense layer.
        activation: after every hidden layer.
        seed: of the initial weights and the order of images.
        overwrite: replace the checkpoint in that folder.
    """
    from oipjax import data as datasets
    from oipjax import plots, training
    from oipjax.networks import checkpoint, cnn

    checkpoint.check_free(out, overwrite=overwrite)
    begin, key = time.perf_counter(), key_of(seed)
    with progress() as report:
        bar: Any = DownloadBar(report)
        source = datasets.sample_dataset() if data == "sample" else datasets.load(folder=data or None, progress=bar)
        held_out = len(source.train.images) // 12 if validation is None else validation
        shape: Any = source.train.images.shape[1:]
        network = cnn.CNNConfig(shape, filters, kernel, pools, dense, len(source.classes), activation)
        config = training.TrainConfig(
            network, optimizer, learning_rate, schedule, momentum, l2, epochs, batch, held_out, seed
        )

        def tell(epoch: training.Epoch) -> None:
            report("epochs", epoch.epoch, epochs)
            stderr.print(
                f"epoch {epoch.epoch:3d}  loss {epoch.loss:.4f}  accuracy {epoch.train_accuracy:.4f}  "
                f"held out {epoch.validation_accuracy:.4f}"
            )

        report("epochs", 0, epochs)
        trained = training.train(key, config, source, name=name, progress=tell)
    # The time is told, not stored: the same call writes the same file.
    facts = {
        "command": "oipjax train",
        "data": source.name,
        "config": asdict(config),
        "history": [epoch._asdict() for epoch in trained.history],
        "best_epoch": trained.best_epoch,
        "test_accuracy": trained.test_accuracy,
        "test_images": len(source.test.images),
        "confusion": trained.confusion.tolist(),
        **records.surroundings(),
    }
    checkpoint.save(out, trained.model, facts, overwrite=overwrite)
    accuracy = f"{100 * trained.test_accuracy:.2f} % of {len(source.test.images):,} test images"
    title = f"{name} on {source.name}: {accuracy}"
    plots.history_figure(trained.history, trained.best_epoch, title).savefig(out / "curves.png", dpi=150)
    plots.confusion_figure(trained.confusion, source.classes, title).savefig(out / "confusion.png", dpi=150)
    print(f"{accuracy} right, epoch {trained.best_epoch} kept, in {time.perf_counter() - begin:.0f} s: {out}")
