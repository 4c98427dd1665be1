"""``oipjax activations``."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import oipjax
from oipjax import records
from oipjax.analysis import activations as acts
from oipjax.cli.options import OUT, Formats
from oipjax.data import mnist as datasets
from oipjax.data import read_image
from oipjax.pytrees import fingerprint
from oipjax.storage import load_npz, npz, surroundings, write_file

MOST = 12
"""Images that one picture has room for."""
Reading = tuple[str, float] | None
"""The class that a network names, and its probability."""


class Chosen(NamedTuple):
    """Images to look at: pixels ``[n, h, w, c]`` in [0, 1], their names, and their classes where they are known."""

    pixels: np.ndarray
    names: tuple[str, ...]
    labels: tuple[int | None, ...]


def activations(
    *,
    checkpoint: str = "mnist-cnn",
    layer: tuple[str, ...] = (),
    index: tuple[int, ...] = (),
    file: tuple[Path, ...] = (),
    digit: int | None = None,
    count: int = 3,
    data: str = "sample",
    scale: Literal["layer", "map"] = "layer",
    format: tuple[Formats, ...] = ("png",),
    out: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Show what images leave in the maps of a network: all maps of any layer, images side by side.

    Example: oipjax activations --digit 4 --count 3

    Images are given by their number in the test set, by their class, or as files; all three may be
    given at once. In the picture every column is an image and every block below it a layer: follow
    a column down to see what is left of the image from layer to layer, or a row to see what images
    have in common. Try --index 449, a 3 that is read as a 5, beside --digit 3. Writes
    activations.npz and .csv too.

    Args:
        checkpoint: a checkpoint folder, or the name of a network that ships with oipjax.
        layer: one or more; by default all after their nonlinearity, without pooled ones, and the
            last. See 'oipjax layers'.
        index: numbers of test images, from 0.
        file: pictures of the network's own size, bright on dark like the digits of MNIST: png, jpg,
            or npy.
        digit: the first images of this class.
        count: how many of them.
        data: sample: the 1,000 digits that ship with oipjax (the first of MNIST's test set); or a
            folder with the official files of MNIST, whose 10,000 test images are then numbered.
        scale: make brightness comparable within a whole layer, or only within each map, which shows
            weak ones.
        format: of the picture, one or more.
        out: folder; by default oipjax-out/<model>-activations.
        overwrite: replace another run's files in that folder.
    """
    model = oipjax.load(checkpoint)
    names = _layers(model, layer)
    chosen = _choose(model, data, index, file, digit, count)
    folder = out or OUT / f"{model.name}-activations"
    config = {
        "command": "activations", "model": model.name, "parameters_sha256": fingerprint(model.params),
        "layers": list(names), "images": list(chosen.names), "images_sha256": fingerprint({"images": chosen.pixels}),
        "scale": scale,
    }  # fmt: skip
    pictures = [folder / f"activations.{ending}" for ending in format]
    if fresh := not records.is_finished(folder, config, overwrite=overwrite):
        found = acts.activations(
            model, model.to_input(chosen.pixels), tuple(dict.fromkeys((*names, model.layers[-1])))
        )
    else:
        found = load_npz(folder / "activations.npz")
    readings = _readings(model, found[model.layers[-1]])
    missing = [picture for picture in pictures if fresh or not picture.exists()]
    if fresh:
        _print(chosen, readings, {name: found[name] for name in names}, model)
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / "activations.npz", npz({**found, "images": chosen.pixels}))
        write_file(
            folder / "activations.csv",
            _table(chosen, {name: found[name] for name in names}, model).encode(),
        )
    for picture in missing:
        records.save_picture(
            picture, _figure(model, chosen, readings, {name: found[name] for name in names}, scale)
        )
    if not fresh:
        print(f"finished before; nothing to do: {pictures[0]}")
        return
    manifest = {
        "schema": records.SCHEMA, "created": datetime.now(UTC).isoformat(timespec="seconds"), "command": "activations",
        "model": {"name": model.name, "parameters_sha256": config["parameters_sha256"]}, "config": config,
        **surroundings(), "precision": "float32", "labels": list(chosen.labels), "read_as": readings,
    }  # fmt: skip
    write_file(folder / records.MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    print(f"activations of {', '.join(names)}: {pictures[0]}")


def _layers(model: oipjax.Model, asked: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the layers; those worth looking at unless some were asked for."""
    if len(set(asked)) < len(asked):
        raise ValueError(f"--layer {' '.join(asked)}: a layer is named twice")
    shown = [n for n in model.layers if n in model.nonlinearities and not n.startswith("pool")]
    return tuple(model.layer(n).name for n in (asked or dict.fromkeys([*shown, model.layers[-1]])))


def _choose(
    model: oipjax.Model,
    data: str,
    index: tuple[int, ...],
    files: tuple[Path, ...],
    digit: int | None,
    count: int,
) -> Chosen:
    """The images asked for, in the order: by number, by class, files."""
    if not index and not files and digit is None:
        raise ValueError("which images? expected --index, --file or --digit; try --digit 4")
    split, numbers = None, list(index)
    if index or digit is not None:
        split = datasets.sample() if data == "sample" else datasets.load(folder=data).test
        _check_fits(model, split.images)
        out_of_range = [i for i in index if not 0 <= i < len(split.images)]
        if out_of_range:
            raise ValueError(
                f"images are numbered from 0 to {len(split.images) - 1}, got {out_of_range[0]}"
            )
    if split is not None and digit is not None:
        here = np.flatnonzero(split.labels == digit)
        if not here.size:
            raise ValueError(
                f"no class {digit}; there are {split.labels.min()} to {split.labels.max()}"
            )
        if not 1 <= count <= len(here):
            raise ValueError(
                f"--count must be between 1 and {len(here)}, the images of class {digit}, got {count}"
            )
        numbers += here[:count].tolist()
    numbers = list(dict.fromkeys(numbers))
    if len(numbers) + len(files) > MOST:
        raise ValueError(
            f"at most {MOST} images fit into a picture, got {len(numbers) + len(files)}"
        )
    read = [read_image(file, model.input_shape) for file in files]
    drawn = (
        []
        if split is None
        else [split.images[i].astype(np.float32) / np.float32(255) for i in numbers]
    )
    labels = [] if split is None else [int(split.labels[i]) for i in numbers]
    names = (*(f"image {i}" for i in numbers), *(file.name for file in files))
    return Chosen(np.stack([*drawn, *read]), names, (*labels, *(None for _ in files)))


def _check_fits(model: oipjax.Model, images: np.ndarray) -> None:
    if images.shape[1:] != model.input_shape:
        wanted, got = (
            " x ".join(map(str, shape)) for shape in (model.input_shape, images.shape[1:])
        )
        raise ValueError(
            f"{model.name} takes images {wanted}, the digits are {got}; give it --file"
        )


def _readings(model: oipjax.Model, last: np.ndarray) -> list[Reading]:
    """The class that the network names for each image, and its probability; None for a network without classes."""
    if last.shape[1:] != (len(model.classes),):
        return [None] * len(last)
    return [(model.classes[p.argmax()], float(p.max())) for p in np.asarray(jax.nn.softmax(last))]


def _said(label: int | None, reading: Reading) -> str:
    """``class 3, read as 5 (98 %)``, as far as it is known."""
    parts = [] if label is None else [f"class {label}"]
    parts += [] if reading is None else [f"read as {reading[0]} ({100 * reading[1]:.0f} %)"]
    return ", ".join(parts)


def _floor(model: oipjax.Model, name: str) -> float:
    """Above it a node is active; 0 where there is no floor."""
    floor = model.layer(name).floor
    return 0.0 if floor is None else floor


def _print(
    chosen: Chosen, readings: list[Reading], found: dict[str, np.ndarray], model: oipjax.Model
) -> None:
    table = Table("image", "", box=None, header_style="bold")
    for name in found:
        table.add_column(name, justify="right")
    for i, image in enumerate(chosen.names):
        cells = []
        for name, array in found.items():
            active = array[i] > _floor(model, name)
            responding = int(active.any(tuple(range(active.ndim - 1))).sum())
            cells.append(f"{responding} ({100 * active.mean():.0f} %)")
        table.add_row(image, _said(chosen.labels[i], readings[i]), *cells)
    console = Console(highlight=False, width=max(80, 48 + 14 * len(found)))
    console.print(table)
    print("numbers: maps that respond, and the share of all nodes that are active")


def _table(chosen: Chosen, found: dict[str, np.ndarray], model: oipjax.Model) -> str:
    """A line for each image, layer and map."""
    lines = ["image,layer,map,mean,largest,share_active"]
    for i, image in enumerate(chosen.names):
        for name, array in found.items():
            nodes = array[i].reshape(-1, array.shape[-1])
            facts = zip(
                nodes.mean(0), nodes.max(0), (nodes > _floor(model, name)).mean(0), strict=True
            )
            lines += [
                f"{image},{name},{k},{a:.9g},{b:.9g},{c:.6g}" for k, (a, b, c) in enumerate(facts)
            ]
    return "\n".join([*lines, ""])


def _figure(
    model: oipjax.Model,
    chosen: Chosen,
    readings: list[Reading],
    found: dict[str, np.ndarray],
    scale: Any,
) -> Any:
    from oipjax.plots import maps_figure

    captions = [
        f"{name}\n{_said(label, reading)}"
        for name, label, reading in zip(chosen.names, chosen.labels, readings, strict=True)
    ]
    return maps_figure(f"{model.name}: activations", chosen.pixels, captions, found, scale=scale)
