"""``oipjax train``."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from oipjax.cli.options import OUT, key_of, use_cores
from oipjax.cli.progress import DownloadBar, progress, stderr
from oipjax.storage import surroundings

SHOWN = 3  # names of unreadable files that are told
PICTURES = 24  # test images in the picture of reconstructions


def train(
    *,
    network: Literal["cnn", "autoencoder"] = "cnn",
    dataset: str = "mnist",
    data: str = "",
    crop: tuple[int, int, int, int] | None = None,
    size: tuple[int, int] | None = None,
    channels: Literal["auto", "grey", "colour"] = "auto",
    test: float = 0.1,
    preset: Literal["mnist", "fashion", "faces"] | None = None,
    out: Path | None = None,
    name: str | None = None,
    epochs: int | None = None,
    batch: int | None = None,
    optimizer: Literal["adam", "rmsprop", "sgd"] | None = None,
    learning_rate: float | None = None,
    schedule: Literal["constant", "cosine", "exponential", "inverse", "piecewise"] | None = None,
    momentum: float | None = None,
    l2: float | None = None,
    loss: Literal["mse", "bce"] | None = None,
    validation: int | None = None,
    filters: tuple[int, ...] | None = None,
    kernel: int | None = None,
    pools: tuple[int, ...] | None = None,
    dense: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
    latent: int | None = None,
    activation: Literal["relu", "leaky_relu", "elu", "tanh"] | None = None,
    corrupt: tuple[str, ...] = (),
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Train a classifier or an autoencoder and write a checkpoint, with its curves and results as pictures.

    What is not given is that of the CNN which ships with oipjax, or of the autoencoder's preset.
    Interrupted, the same call goes on after the last epoch that was finished, and ends in the same
    bits.

    On a CPU each core, up to four, takes a part of every batch; JAX_NUM_CPU_DEVICES in the
    environment says otherwise. Their number is among what decides the bits: to go on with other
    cores, say with how many it began.

    Example: oipjax train --network autoencoder --dataset fashion --latent 16

    Args:
        network: a classifier, or an autoencoder.
        dataset: mnist, fashion, or one's own images: a folder or zip of image files, in sub-folders
            by class or all in one; an .npz with images and labels; olivettifaces.mat.
        data: folder with the official files of mnist or fashion; else the environment variable
            OIPJAX_DATA; else they are downloaded. 'sample': the 1,000 digits that ship with oipjax,
            for a quick try.
        crop: left, top, right and bottom edge of the part of one's own images that is used, in
            pixels.
        size: height and width to which one's own images are brought.
        channels: of one's own images; auto: grey if all of them are.
        test: share of one's own images that is held out for the test.
        preset: of an autoencoder; by default that of the data set, faces (64 x 64 pixels) for one's
            own images.
        out: checkpoint folder to write; by default oipjax-out/train/NAME.
        name: of the network; by default DATASET-NETWORK.
        epochs: passes through the training images; of a CNN 12.
        batch: images per step; of a CNN 64.
        optimizer: of optax; adam.
        learning_rate: at the start; of a CNN 1e-3.
        schedule: of the learning rate; cosine.
        momentum: of sgd and rmsprop; 0.9.
        l2: times the sum of squares of all kernels is added to the loss; of a CNN 3e-4, of an
            autoencoder 0.
        loss: of an autoencoder: binary cross-entropy, or mean squared error of pixels, as for
            faces.
        validation: training images held out to choose the best epoch; by default a twelfth of them.
        filters: maps of each convolution; of a CNN 32 64 128, of the autoencoder for MNIST 32 64 64
            64.
        kernel: side of the kernels; 3.
        pools: of a CNN: side of the max-pool after each convolution, 1 for none; 2 2 1.
        dense: of a CNN: nodes of each hidden dense layer; 100.
        strides: of an autoencoder: of each convolution of its encoder; for MNIST 2 2 1 1.
        latent: of an autoencoder: how many numbers describe an image; 16, of faces 256.
        activation: after every hidden layer; of a CNN relu, of an autoencoder leaky_relu.
        corrupt: of an autoencoder: what is done to images before it sees them, which it is trained
            to undo; noise:SIGMA (Gaussian, cut to the range of pixels, 0 to 1), dropped:SHARE (of
            the pixels), grey; several in this order.
        seed: of the initial weights and the order of images.
        overwrite: replace the checkpoint, or the unfinished training, in that folder.
    """
    from oipjax.networks import checkpoint
    from oipjax.training import autoencoder as autoencoding
    from oipjax.training import corruptions, described
    from oipjax.training import loop as training

    use_cores()
    own = dataset not in ("mnist", "fashion")
    named = Path(dataset).stem if own else dataset
    name = name if name is not None else f"{named}-{network}"
    out = out if out is not None else OUT / "train" / name
    is_cnn = network == "cnn"
    _refuse(not is_cnn, pools=pools, dense=dense)
    _refuse(
        is_cnn, preset=preset, loss=loss, strides=strides, latent=latent, corrupt=corrupt or None
    )
    if not own and (crop, size, channels, test) != (None, None, "auto", 0.1):
        raise ValueError(
            "--crop, --size, --channels and --test are for one's own images: --dataset FOLDER"
        )
    chosen = preset if preset is not None else "faces" if own else dataset
    base = training.TrainConfig() if is_cnn else autoencoding.PRESETS[chosen]
    if own and not is_cnn and size is None:
        size = base.network.input_shape[:2]
    corruption = corruptions.parse(corrupt)
    checkpoint.check_free(out, overwrite=overwrite)
    begin, key = time.perf_counter(), key_of(seed)
    with progress() as report:
        source = _read(dataset, data, report, crop, size, channels, test)
        parts = _given(
            filters=filters,
            kernel=kernel,
            activation=activation,
            input_shape=source.train.images.shape[1:],
        )
        parts |= _given(pools=pools, dense=dense, strides=strides, latent=latent)
        parts |= {"classes": max(1, len(source.classes))} if is_cnn else {}
        held_out = len(source.train.images) // 12 if validation is None else validation
        changes = _given(
            epochs=epochs, batch=batch, optimizer=optimizer, learning_rate=learning_rate, loss=loss
        )
        changes |= _given(
            schedule=schedule, momentum=momentum, l2=l2, validation=held_out, seed=seed
        )
        changes |= {"corrupt": corruption}
        config = replace(base, network=replace(base.network, **parts), **changes)

        told: list[int] = []

        def tell(epoch: Any) -> None:
            if not told and epoch.epoch > 1:
                stderr.print(f"goes on after epoch {epoch.epoch - 1}, where it was interrupted")
            told.append(epoch.epoch)
            report("epochs", epoch.epoch, config.epochs)
            stderr.print(_line(epoch))

        report("epochs", 0, config.epochs)
        fit = training.train if is_cnn else autoencoding.train
        state = out / checkpoint.STATE
        trained: Any = fit(
            key, config, source, name=name, progress=tell, state=state, overwrite=overwrite
        )
    # The time is told, not stored: the same call writes the same file.
    facts = {
        "command": "oipjax train",
        "data": source.name,
        "config": described(config),
        "history": [epoch._asdict() for epoch in trained.history],
        "best_epoch": trained.best_epoch,
        "test_images": len(source.test.images),
        **_results(trained),
        **surroundings(),
    }
    checkpoint.save(
        out, trained.model if is_cnn else trained.autoencoder, facts, overwrite=overwrite
    )
    said = _pictures(out, name, source, trained, corruption)
    print(f"{said}, epoch {trained.best_epoch} kept, in {time.perf_counter() - begin:.0f} s: {out}")


def _read(
    dataset: str, data: str, report: Any, crop: Any, size: Any, channels: str, test: float
) -> Any:
    """The data set; files that cannot be read are told."""
    from oipjax.data import folder as pictures
    from oipjax.data import mnist as datasets

    if data == "sample":
        return datasets.sample_dataset()
    if dataset in ("mnist", "fashion"):
        source = datasets.MNIST if dataset == "mnist" else datasets.FASHION
        bar: Any = DownloadBar(report)
        return datasets.load(source, folder=data or None, progress=bar)
    colour = {"auto": None, "grey": False, "colour": True}[channels]
    read = pictures.load(dataset, crop=crop, size=size, colour=colour, test=test, progress=report)
    if read.skipped:
        count = len(read.skipped) + len(read.train.images) + len(read.test.images)
        stderr.print(
            f"{len(read.skipped):,} of {count:,} images cannot be read and are left out:",
            style="yellow",
        )
        for line in read.skipped[:SHOWN]:
            stderr.print(f"  {line}", markup=False)
        if len(read.skipped) > SHOWN:
            stderr.print(f"  and {len(read.skipped) - SHOWN:,} more")
    return read


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _refuse(wrong: bool, **options: Any) -> None:
    """Say which options do not go with the network that is asked for."""
    given = ", ".join(f"--{name}" for name in _given(**options))
    if wrong and given:
        raise ValueError(f"{given}: not for this --network")


def _line(epoch: Any) -> str:
    start = f"epoch {epoch.epoch:3d}  loss {epoch.loss:.4f}  "
    if hasattr(epoch, "train_mse"):
        return f"{start}squared error {epoch.train_mse:.5f}  held out {epoch.validation_mse:.5f}"
    return f"{start}accuracy {epoch.train_accuracy:.4f}  held out {epoch.validation_accuracy:.4f}"


def _results(trained: Any) -> dict[str, Any]:
    if hasattr(trained, "test_mse"):
        return {"test_mse": trained.test_mse, "test_bce": trained.test_bce}
    return {"test_accuracy": trained.test_accuracy, "confusion": trained.confusion.tolist()}


def _pictures(out: Path, name: str, source: Any, trained: Any, corruption: Any) -> str:
    """Write them, and say in a few words how good the network is."""
    from oipjax import keys, plots
    from oipjax.training import autoencoder as autoencoding
    from oipjax.training import corruptions

    tested = f"{len(source.test.images):,} {'' if corruption is None else 'corrupted '}test images"
    if hasattr(trained, "test_mse"):
        said = f"mean squared error {trained.test_mse:.5f} on {tested}"
        shown, seen = source.test.images[:PICTURES], None
        if corruption is not None:
            seen = corruptions.corrupted(corruption, keys.stream(key_of(0), keys.NOISE), shown)
        back = autoencoding.reconstruct(trained.autoencoder, shown if seen is None else seen)
        note = f"the first of {tested}; each as {trained.autoencoder.config.latent} numbers; {said}"
        figure = plots.reconstruction_figure(
            shown / 255, back, f"{name}: test images given back", note, seen
        )
        figure.savefig(out / "reconstructions.png", dpi=150)
    else:
        said = f"{100 * trained.test_accuracy:.2f} % of {tested}"
    title = f"{name} on {source.name}: {said}"
    plots.history_figure(trained.history, trained.best_epoch, title).savefig(
        out / "curves.png", dpi=150
    )
    if hasattr(trained, "confusion"):
        figure = plots.confusion_figure(trained.confusion, source.classes, title)
        figure.savefig(out / "confusion.png", dpi=150)
        said += " right"
    return said
