"""``oipjax train``."""

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from oipjax.cli.flags import Varying, read_some
from oipjax.cli.options import OUT, RULES, key_of, use_cores
from oipjax.cli.progress import DownloadBar, Report, progress, stderr
from oipjax.data import Dataset, folder, mnist
from oipjax.networks import checkpoint
from oipjax.storage import surroundings
from oipjax.training import (
    PRESETS,
    AutoencoderTrainConfig,
    ClassifierTrainConfig,
    ConfusionMatrix,
    Curves,
    Epoch,
    Picture,
    ReconstructionEpoch,
    Reconstructions,
    TrainConfig,
    Trained,
    train_autoencoder,
    train_classifier,
)

NAMED = 3
"""How many unreadable files are named."""


@dataclass(frozen=True)
class Kind:
    """What is trained; this decides the defaults of the other options.

    Attributes:
        network: a classifier (``cnn``) or an autoencoder. Each has options of its own: see also
            --network autoencoder --help.
        dataset: mnist, fashion, or your images: a folder or zip of image files, in sub-folders by
            class or all in one; an .npz with images and labels; olivettifaces.mat.
        preset: for an autoencoder: training whose options are the defaults. ``auto``: that of the
            data set, and ``faces`` (64 x 64 pixels) for your images.
    """

    network: Literal["cnn", "autoencoder"] = "cnn"
    dataset: str = "mnist"
    preset: Literal["auto", "mnist", "fashion", "faces"] = "auto"

    @property
    def is_official(self) -> bool:
        """Whether the images are those of MNIST or Fashion-MNIST."""
        return self.dataset in ("mnist", "fashion")

    def default_config(self) -> TrainConfig:
        """The default options of the training."""
        if self.network == "cnn":
            if self.preset != "auto":
                raise ValueError(f"--preset {self.preset}: is for --network autoencoder")
            return ClassifierTrainConfig()
        if self.preset != "auto":
            return PRESETS[self.preset]
        return PRESETS[self.dataset if self.is_official else "faces"]

    def default_name(self) -> str:
        """The default name of the network; no network that ships with oipjax has such a name."""
        dataset = self.dataset if self.is_official else Path(self.dataset).stem
        return f"my-{dataset}-{self.network}"


@dataclass(frozen=True)
class Images:
    """Where the images come from, and how your images are prepared.

    Attributes:
        data: folder with the official files of mnist or fashion. ``auto``: the environment variable
            OIPJAX_DATA names it, or else they are downloaded; ``sample``: the 1,000 digits that
            ship with oipjax, for a quick try.
        crop: left, top, right and bottom edge of the used part of your images, in pixels.
        size: height and width to which your images are resized. ``auto``: those of the preset for
            an autoencoder, else their own.
        channels: channels of your images. ``auto``: grey if all of them are.
        test: share of your images that is held out for the test.
    """

    data: str = "auto"
    crop: tuple[int, int, int, int] | Literal["none"] = "none"
    size: tuple[int, int] | Literal["auto"] = "auto"
    channels: Literal["auto", "grey", "colour"] = "auto"
    test: float = 0.1

    def check(self, kind: Kind) -> None:
        """Refuse options for your images where the images are official ones."""
        if kind.is_official and self != Images(data=self.data):
            raise ValueError(
                "--crop, --size, --channels and --test are for your images: --dataset FOLDER"
            )

    def read(self, kind: Kind, config: TrainConfig, report: Report) -> Dataset:
        """The data set; unreadable files are reported on stderr."""
        if self.data == "sample":
            return mnist.sample_dataset()
        if kind.is_official:
            source = mnist.MNIST if kind.dataset == "mnist" else mnist.FASHION
            place = None if self.data == "auto" else self.data
            bar: Any = DownloadBar(report)
            return mnist.load(source, folder=place, progress=bar)
        size = None if self.size == "auto" else self.size
        if size is None and isinstance(config, AutoencoderTrainConfig):
            size = config.network.input_shape[:2]
        data = folder.load(
            kind.dataset,
            crop=None if self.crop == "none" else self.crop,
            size=size,
            colour=None if self.channels == "auto" else self.channels == "colour",
            test=self.test,
            progress=report,
        )
        _report_skipped(data)
        return data


def _report_skipped(data: Dataset) -> None:
    skipped = data.skipped
    if not skipped:
        return
    count = len(skipped) + len(data.train.images) + len(data.test.images)
    stderr.print(
        f"{len(skipped):,} of {count:,} images cannot be read and are left out:", style="yellow"
    )
    for line in skipped[:NAMED]:
        stderr.print(f"  {line}", markup=False)
    if len(skipped) > NAMED:
        stderr.print(f"  and {len(skipped) - NAMED:,} more")


def _train(
    *,
    kind: Kind = Kind(),
    images: Images = Images(),
    config: TrainConfig = ClassifierTrainConfig(),
    name: str = "auto",
    out: Literal["auto"] | Path = "auto",
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Train a classifier or an autoencoder.

    Example: oipjax train --network autoencoder --dataset fashion --latent 16

    Writes a checkpoint, with its curves and results as pictures.

    The defaults are those of the CNN that ships with oipjax, or of the autoencoder's preset.
    Interrupted, the same call goes on after the last epoch that was finished, and ends in the same
    bits.

    On a CPU each core, up to four, takes a part of every batch; JAX_NUM_CPU_DEVICES in the
    environment sets another number. The number of cores is among what decides the bits: to go on
    with other cores, set the number that the training began with.

    Args:
        kind: what is trained.
        images: where the images come from.
        config: the network, and how it is trained.
        name: name of the network; auto: my-DATASET-NETWORK.
        out: checkpoint folder to write; auto: oipjax-out/train/NAME.
        seed: decides the initial weights and the order of images.
        overwrite: replace the checkpoint, or the unfinished training, in that folder.
    """
    use_cores()
    name = kind.default_name() if name == "auto" else name
    place = OUT / "train" / name if out == "auto" else Path(out)
    images.check(kind)
    checkpoint.check_free(place, overwrite=overwrite)
    begin = time.perf_counter()
    with progress() as report:
        data = images.read(kind, config, report)
        config = config.for_data(data)
        train: Any = train_classifier if kind.network == "cnn" else train_autoencoder
        report("epochs", 0, config.epochs)
        trained: Trained = train(
            key_of(seed),
            config,
            data,
            name=name,
            progress=_telling(report, config.epochs),
            state=place / checkpoint.STATE,
            overwrite=overwrite,
        )
    # The time is printed, not stored: the same call writes the same file.
    facts = {
        "command": "oipjax train",
        "data": data.name,
        "seed": seed,
        "config": config.describe(),
        "history": [epoch._asdict() for epoch in trained.history],
        "best_epoch": trained.best_epoch,
        "test_images": len(data.test.images),
        **trained.facts(),
        **surroundings(),
    }
    checkpoint.save(place, trained.network, facts, overwrite=overwrite)
    for label, picture in trained.figures(data).items():
        figure = _figure(picture, name, f"{name} on {data.name}: {trained.summary()}")
        figure.savefig(place / f"{label}.png", dpi=150)
    seconds = time.perf_counter() - begin
    print(f"{trained.summary()}, epoch {trained.best_epoch} kept, in {seconds:.0f} s: {place}")


def _choose(arguments: list[str]) -> functools.partial[None]:
    """`_train`, with the defaults of the kind that the arguments name."""
    kind = read_some(Kind, "oipjax train", arguments, RULES)
    return functools.partial(_train, config=kind.default_config())


train = Varying(_choose)


def _telling(report: Report, epochs: int) -> Any:
    """A function that reports each epoch, and first where an interrupted training goes on."""
    numbers: list[int] = []

    def tell(epoch: Epoch | ReconstructionEpoch) -> None:
        if not numbers and epoch.epoch > 1:
            stderr.print(f"goes on after epoch {epoch.epoch - 1}, where it was interrupted")
        numbers.append(epoch.epoch)
        report("epochs", epoch.epoch, epochs)
        stderr.print(epoch.summary())

    return tell


def _figure(picture: Picture, name: str, title: str) -> Any:
    from oipjax import plots

    match picture:
        case Curves(epochs, curves, best_epoch):
            return plots.history_figure(epochs, curves, best_epoch, title)
        case ConfusionMatrix(counts, classes):
            return plots.confusion_figure(counts, classes, title)
        case Reconstructions(images, reconstructions, corrupted, note):
            title = f"{name}: test images and their reconstructions"
            return plots.reconstruction_figure(images, reconstructions, title, note, corrupted)
