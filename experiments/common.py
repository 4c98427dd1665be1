"""What experiments share: networks by their seed, machine facts, a table on the terminal, JSON and figure on disk."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
from matplotlib.axes import Axes
from rich.console import Console
from rich.table import Table

import oipjax
from oipjax import data, training
from oipjax.data import Dataset, Split
from oipjax.networks import checkpoint
from oipjax.plots import INK
from oipjax.records import surroundings

NETWORKS = Path("oipjax-out/seeds")
"""Where networks that experiments have trained are kept, so that each is trained once."""


def machine() -> dict[str, Any]:
    """Date, processor, cores, versions and device, to be kept beside every figure."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    today = datetime.now(UTC).date().isoformat()
    return {"date": today, "processor": model, "cores": os.cpu_count(), **surroundings()}


def network(
    seed: int,
    train: training.TrainConfig = training.TrainConfig(),
    folder: Path = NETWORKS,
    digits: Dataset | None = None,
) -> oipjax.Model:
    """The shipped network's architecture trained with another seed; done once, then read from ``folder``.

    Args:
        seed: of the initial weights and of the order of images; it replaces that of ``train``.
        train: how to train.
        folder: of the networks that were trained.
        digits: to train with; by default MNIST, from the folder ``OIPJAX_DATA`` or downloaded.
    """
    place, plan = folder / f"seed{seed}", replace(train, seed=seed)
    if not place.exists():
        trained = training.train(
            jax.random.key(seed), plan, digits or data.load(), name=f"seed{seed}",
            progress=lambda epoch: print(f"seed {seed}: epoch {epoch.epoch}, held out {epoch.validation_accuracy:.4f}"),
        )  # fmt: skip
        checkpoint.save(place, trained.model, {"config": asdict(plan), "test_accuracy": trained.test_accuracy})
    return oipjax.load(place)


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
