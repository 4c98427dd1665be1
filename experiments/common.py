"""What experiments share: networks by their seed, machine facts, a table on the terminal, JSON and figure on disk."""

import hashlib
import inspect
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
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
from oipjax.training import AutoencoderTrainConfig
from oipjax.training import autoencoder as autoencoding

KEYWORD = inspect.Parameter.KEYWORD_ONLY

NETWORKS = Path("oipjax-out/seeds")
"""Where networks that experiments have trained are kept, so that each is trained once."""

AUTOENCODERS = Path("oipjax-out/autoencoders")
"""Likewise autoencoders."""
AUTOENCODING = replace(autoencoding.PRESETS["mnist"], epochs=6)
"""How studies train many autoencoders: the preset with fewer epochs."""


def sized(train: AutoencoderTrainConfig, **network: Any) -> AutoencoderTrainConfig:
    """The same training of a network that differs in some of its sizes."""
    return replace(train, network=replace(train.network, **network))


SMALL = sized(replace(AUTOENCODING, epochs=1, validation=66), filters=(4,), strides=(4,))
"""The training of a tiny autoencoder with the sample of digits, for trying experiments out."""


def machine() -> dict[str, Any]:
    """Date, processor, cores, versions and device, to be kept beside every figure."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":")[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    today = datetime.now(UTC).date().isoformat()
    return {"date": today, "processor": model, "cores": os.cpu_count(), **surroundings()}


def network(
    seed: int,
    train: training.ClassifierTrainConfig = training.ClassifierTrainConfig(),
    folder: Path = NETWORKS,
    digits: Dataset | None = None,
) -> oipjax.Model:
    """The shipped network's architecture trained with another seed; done once, then read from ``folder``.

    Args:
        seed: of the initial weights and of the order of images.
        train: how to train.
        folder: of the networks that were trained.
        digits: to train with; by default MNIST, from the folder ``OIPJAX_DATA`` or downloaded.
    """
    place = folder / f"seed{seed}"
    if not place.exists():
        trained = training.train_classifier(
            jax.random.key(seed), train, digits or data.load(), name=f"seed{seed}",
            progress=lambda epoch: print(f"seed {seed}: epoch {epoch.epoch}, held out {epoch.validation_accuracy:.4f}"),
        )  # fmt: skip
        facts = {"config": train.describe(), "seed": seed, "test_accuracy": trained.test_accuracy}
        checkpoint.save(place, trained.model, facts)
    return oipjax.load(place)


def autoencoder(
    config: AutoencoderTrainConfig, images: Dataset, folder: Path = AUTOENCODERS, seed: int = 0
) -> Autoencoder:
    """An autoencoder, trained once and then read from ``folder``; the whole configuration and the images name it.

    An interrupted training goes on after the last epoch that was finished.

    Args:
        config: how to train.
        images: what with.
        folder: of the autoencoders that were trained.
        seed: of the initial weights, the order of images and the corruption.
    """
    if not isinstance(config.network, AutoencoderConfig):
        raise ValueError(f"expected the training of an autoencoder, got {config.network}")
    key = jax.random.key(seed)
    plan = training.plan(key, config, images)
    facts = {
        part: plan[part] for part in ("config", "key", "data")
    }  # not the versions: an update is no new training
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    name = f"{images.name}-latent{config.network.latent}-{digest}"
    place = folder / name
    if not (place / checkpoint.FILE).exists():
        what = "" if config.corrupt is None else f", {config.corrupt}"
        print(f"{name}{what}: {config.epochs} epochs with {len(images.train.images):,} images")
        trained = autoencoding.train(
            key, config, images, name=name, state=place / checkpoint.STATE,
            progress=lambda epoch: print(f"  epoch {epoch.epoch}, held out {epoch.validation_mse:.5f}", flush=True),
        )  # fmt: skip
        results = {
            "history": [list(epoch) for epoch in trained.history],
            "test_mse": trained.test_mse,
        }
        checkpoint.save(place, trained.autoencoder, facts | results)
    return checkpoint.load_autoencoder(place)


def images_of(source: str, folder: Path | None = None) -> Dataset:
    """MNIST or Fashion-MNIST, from the folder or that of ``OIPJAX_DATA``, or downloaded."""
    return data.load({"mnist": data.MNIST, "fashion": data.FASHION}[source], folder=folder)


def scores(images: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Means over images ``[n, h, w, c]`` of the squared error, the PSNR in dB and the SSIM."""
    measures = {"mse": quality.mse, "psnr": quality.psnr, "ssim": quality.ssim}
    return {name: float(measure(images, truth).mean()) for name, measure in measures.items()}


def command(main: Callable[..., Any], config: type, doc: str | None) -> None:
    """An experiment as a program: input that cannot be used is told in one line, with exit code 2.

    Its options are the fields of its configuration, ``--results`` (a folder to write to) and, if it
    takes digits and has no option of that name, ``--data`` (a folder with them, instead of
    ``OIPJAX_DATA``).
    """
    known = inspect.signature(main).parameters
    loads = "digits" in known and "data" not in {field.name for field in fields(config)}

    def run(config: Any, results: Path, folder: Path | None = None) -> None:
        source = getattr(config, "source", "mnist")
        given = {"digits": images_of(source, folder)} if folder is not None else {}
        main(config, results=results, **given)

    run.__doc__ = (
        f"{doc}\n\nArgs:\n    results: folder to write to.\n    folder: with the files of MNIST."
    )
    run.__annotations__ |= {
        "config": Annotated[config, tyro.conf.arg(name="")],
        "folder": Annotated[Path | None, tyro.conf.arg(name="data")],
    }
    parameters = [
        inspect.Parameter(
            "config", KEYWORD, default=config(), annotation=run.__annotations__["config"]
        ),
        inspect.Parameter("results", KEYWORD, default=known["results"].default, annotation=Path),
        inspect.Parameter(
            "folder", KEYWORD, default=None, annotation=run.__annotations__["folder"]
        ),
    ]
    run.__signature__ = inspect.Signature(parameters if loads else parameters[:2])  # pyright: ignore
    try:
        tyro.cli(run, description=doc)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def unseen() -> Split:
    """Digits that no network was trained with: all 10,000 if ``OIPJAX_DATA`` is set, else the sample of 1,000."""
    return data.load().test if os.environ.get(data.ENVIRONMENT) else data.sample()


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; numbers to the right."""
    table = Table(*columns, title=title, title_justify="left", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    Console(highlight=False, width=140).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def words(axes: Axes, title: str, x: str, y: str = "") -> None:
    """What stands around a panel of a figure: its title and the names of its axes, a faint grid, no box."""
    axes.set_title(title, fontsize=10, color=INK, loc="left", fontweight="bold")
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors="#444444")


def save(folder: Path, name: str, content: dict[str, Any], figure: Any = None) -> None:
    """Write ``name.json`` (with the machine's facts) and ``name.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(
        json.dumps({"machine": machine(), **content}, indent=1, allow_nan=False) + "\n"
    )
    if figure is not None:
        figure.savefig(folder / f"{name}.png", dpi=150)
    print(f"written: {folder / name}.json")
