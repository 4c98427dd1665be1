"""What experiments share: trained networks, facts of the machine, tables, and files on disk."""

import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import make_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from matplotlib.axes import Axes
from rich.console import Console
from rich.table import Table

import oipjax
from experiments.tools import quality
from oipjax import training
from oipjax.data import Dataset, Split
from oipjax.data import mnist as data
from oipjax.networks import Autoencoder, AutoencoderConfig, checkpoint
from oipjax.plots import INK
from oipjax.storage import surroundings
from oipjax.training import AutoencoderTrainConfig, ClassifierTrainConfig
from oipjax.training import autoencoder as autoencoding

NETWORKS = Path("oipjax-out/seeds")
"""The folder of networks that experiments have trained, so that each is trained once."""

AUTOENCODERS = Path("oipjax-out/autoencoders")
"""The folder of autoencoders that experiments have trained."""
AUTOENCODING = replace(autoencoding.PRESETS["mnist"], epochs=6)
"""The training of studies that train many autoencoders: the preset with fewer epochs."""


def sized(train: AutoencoderTrainConfig, **network: Any) -> AutoencoderTrainConfig:
    """The same training of a network that differs in some of its sizes."""
    return replace(train, network=replace(train.network, **network))


SMALL = sized(replace(AUTOENCODING, epochs=1, validation=66), filters=(4,), strides=(4,))
"""The training of a tiny autoencoder with the sample of digits, to try experiments out."""


def machine() -> dict[str, Any]:
    """Date, processor, cores, versions, commit and device: facts to be kept beside every figure."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        **surroundings(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def network(
    seed: int,
    train: ClassifierTrainConfig = ClassifierTrainConfig(),
    folder: Path = NETWORKS,
    digits: Dataset | None = None,
) -> oipjax.Model:
    """The shipped network's architecture, trained with another seed; a second call reads it.

    Args:
        seed: of the initial weights and of the order of images.
        train: how to train.
        folder: of the networks that were trained.
        digits: to train with; by default MNIST, from the folder ``OIPJAX_DATA`` or downloaded.
    """
    name = f"seed{seed}"
    place = folder / name

    def report(epoch: Any) -> None:
        print(f"seed {seed}: epoch {epoch.epoch}, held out {epoch.validation_accuracy:.4f}")

    if not place.exists():
        images = data.load() if digits is None else digits
        trained = training.train_classifier(
            jax.random.key(seed), train, images, name=name, progress=report
        )
        facts = {"config": train.describe(), "seed": seed, "test_accuracy": trained.test_accuracy}
        checkpoint.save(place, trained.model, facts)
    return oipjax.load(place)


def autoencoder(
    config: AutoencoderTrainConfig, images: Dataset, folder: Path = AUTOENCODERS, seed: int = 0
) -> Autoencoder:
    """An autoencoder, trained once; a second call with an equal configuration and images reads it.

    An interrupted training goes on after the last epoch that was finished.

    Args:
        config: how to train.
        images: the images to train with.
        folder: of the autoencoders that were trained.
        seed: of the initial weights, the order of images and the corruption.
    """
    if not isinstance(config.network, AutoencoderConfig):
        raise ValueError(f"expected the training of an autoencoder, got {config.network}")
    key = jax.random.key(seed)
    plan = training.plan(key, config, images)
    # Versions are left out: an update of a library is no new training.
    facts = {part: plan[part] for part in ("config", "key", "data")}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    name = f"{images.name}-latent{config.network.latent}-{digest}"
    place = folder / name

    def report(epoch: Any) -> None:
        print(f"  epoch {epoch.epoch}, held out {epoch.validation_mse:.5f}", flush=True)

    if not (place / checkpoint.FILE).exists():
        task = "" if config.corrupt is None else f", {config.corrupt}"
        count = len(images.train.images)
        print(f"{name}{task}: {config.epochs} epochs with {count:,} images")
        state = place / checkpoint.STATE
        trained = autoencoding.train(key, config, images, name=name, state=state, progress=report)
        history = [list(epoch) for epoch in trained.history]
        results = {"history": history, "test_mse": trained.test_mse}
        checkpoint.save(place, trained.autoencoder, facts | results)
    return checkpoint.load_autoencoder(place)


def images_of(source: str, folder: Path | None = None) -> Dataset:
    """MNIST or Fashion-MNIST, from the folder or that of ``OIPJAX_DATA``, or downloaded."""
    sources = {"mnist": data.MNIST, "fashion": data.FASHION}
    return data.load(sources[source], folder=folder)


def unseen() -> Split:
    """Digits that no network was trained with.

    All 10,000 test images if ``OIPJAX_DATA`` is set, else the sample of 1,000.
    """
    return data.load().test if os.environ.get(data.ENVIRONMENT) else data.sample()


def scores(images: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Means over images ``[n, h, w, c]`` of the squared error, the PSNR in dB and the SSIM."""
    measures = {"mse": quality.mse, "psnr": quality.psnr, "ssim": quality.ssim}
    return {name: float(measure(images, truth).mean()) for name, measure in measures.items()}


def command(
    main: Callable[..., Any], config: type, doc: str | None, results: Path, *, digits: bool = False
) -> None:
    """Run an experiment as a program; unusable input is told in one line, with exit code 2.

    Its options are the fields of its configuration and ``--results``.

    Args:
        main: called with the configuration, ``results=`` and, where a folder is given, ``digits=``.
        config: the class of the configuration.
        doc: printed by ``--help``.
        results: the folder that is written to unless another is given.
        digits: whether ``main`` takes images; ``--data`` then names a folder with them.
    """
    try:
        given = tyro.cli(_arguments(config, results, digits), description=doc)
        options = {"results": given.results}
        if digits and given.data is not None:
            source = getattr(given.config, "source", "mnist")
            options["digits"] = images_of(source, given.data)
        main(given.config, **options)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def _arguments(config: type, results: Path, digits: bool) -> type:
    """A dataclass of an experiment's configuration and of the folders that it reads and writes."""
    flat = Annotated[config, tyro.conf.arg(name="")]
    folder = Annotated[Path, tyro.conf.arg(help="folder to write to")]
    fields: list[Any] = [("config", flat, config()), ("results", folder, results)]
    if digits:
        help_text = "folder with the files of the images; else that of OIPJAX_DATA"
        source = Annotated[Path | None, tyro.conf.arg(help=help_text)]
        fields.append(("data", source, None))
    return make_dataclass("Arguments", fields, frozen=True)


def progress_line(name: str) -> Callable[[str, int, int], None]:
    """A report of progress on one line of the terminal, which each call writes anew.

    Args:
        name: of the work; the line goes on with the phase, and how many of how many are done.
    """

    def report(phase: str, done: int, total: int) -> None:
        print(f"{name}: {phase} {done}/{total}".ljust(60), end="\r", flush=True)

    return report


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; numbers to the right."""
    table = Table(*columns, title=title, title_justify="left", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*map(_cell, row))
    Console(highlight=False, width=140).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def words(axes: Axes, title: str, x: str, y: str = "") -> None:
    """Title a panel, name its axes, and draw a faint grid and no box."""
    axes.set_title(title, fontsize=10, color=INK, loc="left", fontweight="bold")
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors="#444444")


def save(folder: Path, name: str, content: dict[str, Any], figure: Any = None) -> None:
    """Write ``name.json``, with the facts of the machine, and ``name.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine(), **content}, indent=1, allow_nan=False)
    (folder / f"{name}.json").write_text(text + "\n")
    if figure is not None:
        figure.savefig(folder / f"{name}.png", dpi=150)
    print(f"written: {folder / name}.json")
