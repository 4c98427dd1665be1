"""``oipjax activations``."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import oipjax
from oipjax import records
from oipjax.analysis import layer_activations
from oipjax.cli.options import Output
from oipjax.data import Split, mnist, read_image
from oipjax.images import to_unit
from oipjax.pytrees import fingerprint
from oipjax.storage import csv_bytes, exclusive, load_npz, npz, surroundings, write_file

MOST = 12
"""The most images that one picture has room for."""

COLUMNS = ("image", "layer", "map", "mean", "largest", "share_active")

Reading = tuple[str, float] | None
"""The class that a network gives an image, and its probability."""


class Chosen(NamedTuple):
    """Images to look at.

    Attributes:
        pixels: ``[n, h, w, c]`` in [0, 1].
        names: one for each image.
        labels: their classes; None where it is not known.
    """

    pixels: np.ndarray
    names: tuple[str, ...]
    labels: tuple[int | None, ...]


@dataclass(frozen=True)
class Choice:
    """Which images are shown; numbers, a class and files may be given at once.

    Attributes:
        index: numbers of test images, from 0.
        file: pictures of the network's own size, bright on dark like the digits of MNIST: png, jpg,
            or npy.
        digit: a class, whose first images are shown.
        count: how many images of this class.
        data: the data set. ``sample``: the 1,000 digits that ship with oipjax (the first of MNIST's
            test set); or a folder with the official files of MNIST, whose 10,000 test images are
            then numbered.
    """

    index: tuple[int, ...] = ()
    file: tuple[Path, ...] = ()
    digit: int | Literal["none"] = "none"
    count: int = 3
    data: str = "sample"

    def images(self, model: oipjax.Model) -> Chosen:
        """The images in this order: by number, by class, files.

        Raises:
            ValueError: nothing is chosen, there is no such image, or it does not fit the network.
        """
        if not self.index and not self.file and self.digit == "none":
            raise ValueError("which images? expected --index, --file or --digit; try --digit 4")
        pixels: list[np.ndarray] = []
        names: list[str] = []
        labels: list[int | None] = []
        if self.index or self.digit != "none":
            split = mnist.sample() if self.data == "sample" else mnist.load(folder=self.data).test
            _check_fits(model, split.images)
            for number in self._numbers(split):
                pixels.append(to_unit(split.images[number]))
                names.append(f"image {number}")
                labels.append(int(split.labels[number]))
        if len(names) + len(self.file) > MOST:
            count = len(names) + len(self.file)
            raise ValueError(f"at most {MOST} images fit into a picture, got {count}")
        for file in self.file:
            pixels.append(read_image(file, model.input_shape))
            names.append(file.name)
            labels.append(None)
        return Chosen(np.stack(pixels), tuple(names), tuple(labels))

    def _numbers(self, split: Split) -> list[int]:
        """Numbers of the images that are chosen by number or class."""
        for number in self.index:
            if not 0 <= number < len(split.images):
                last = len(split.images) - 1
                raise ValueError(f"images are numbered from 0 to {last}, got {number}")
        numbers = list(self.index)
        if self.digit != "none":
            of_class = np.flatnonzero(split.labels == self.digit)
            if not of_class.size:
                classes = f"{split.labels.min()} to {split.labels.max()}"
                raise ValueError(f"no class {self.digit}; there are {classes}")
            if not 1 <= self.count <= len(of_class):
                raise ValueError(
                    f"--count must be between 1 and {len(of_class)}, "
                    f"the images of class {self.digit}, got {self.count}"
                )
            numbers += of_class[: self.count].tolist()
        return list(dict.fromkeys(numbers))


def activations(
    *,
    checkpoint: str = "mnist-cnn",
    layer: tuple[str, ...] = (),
    choice: Choice = Choice(),
    scale: Literal["layer", "map"] = "layer",
    output: Output = Output(),
) -> None:
    """Show how the maps of a network respond to images: all maps of any layer, images side by side.

    Example: oipjax activations --digit 4 --count 3

    Images are given by their number in the test set, by their class, or as files. In the picture
    every column is an image and every block below it a layer: follow a column down to see what is
    left of the image from layer to layer, or a row to see what images have in common. Try --index
    449, a 3 that is read as a 5, beside --digit 3. Writes activations.npz and .csv too.

    Args:
        checkpoint: a checkpoint folder, or the name of a network that ships with oipjax.
        layer: one or more; by default the last layer, and every layer that follows a nonlinearity
            and is not pooled.
        choice: which images are shown.
        scale: brightness is comparable within a layer, or within a map, which shows weak maps.
        output: where the results go.
    """
    model = oipjax.load(checkpoint)
    names = _layers(model, layer)
    chosen = choice.images(model)
    folder = output.folder(f"{model.name}-activations")
    pictures = [folder / picture for picture in output.pictures("activations")]
    config = {
        "command": "activations",
        "model": model.name,
        "parameters_sha256": fingerprint(model.params),
        "model_identity": model.identity,
        "layers": list(names),
        "images": list(chosen.names),
        "images_sha256": fingerprint({"images": chosen.pixels}),
        "scale": scale,
    }
    is_finished = records.is_finished(folder, config, overwrite=output.overwrite)
    if is_finished:
        arrays = load_npz(folder / "activations.npz")
    else:
        needed = dict.fromkeys((*names, model.layers[-1]))
        arrays = layer_activations(model, model.to_input(chosen.pixels), tuple(needed))
    readings = readings_of(model, arrays[model.layers[-1]])
    shown = {name: arrays[name] for name in names}
    if not is_finished:
        _print(chosen, readings, shown, model)
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder):
            write_file(folder / "activations.npz", npz({**arrays, "images": chosen.pixels}))
            write_file(folder / "activations.csv", _table(chosen, shown, model))
    missing = [picture for picture in pictures if not is_finished or not picture.exists()]
    for picture in missing:
        records.save_picture(picture, _figure(model, chosen, readings, shown, scale))
    if is_finished:
        outcome = "drawn from the record" if missing else "finished before; nothing to do"
        print(f"{outcome}: {pictures[0]}")
        return
    manifest = {
        "schema": records.SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "activations",
        "model": {"name": model.name, "parameters_sha256": config["parameters_sha256"]},
        "config": config,
        **surroundings(),
        "precision": "float32",
        "labels": list(chosen.labels),
        "read_as": readings,
    }
    records.write_manifest(folder, manifest)
    print(f"activations of {', '.join(names)}: {pictures[0]}")


def _layers(model: oipjax.Model, names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the layers: the given ones, or those that are worth looking at."""
    if len(set(names)) < len(names):
        raise ValueError(f"--layer {' '.join(names)}: a layer is named twice")
    if names:
        return tuple(model.layer(name).name for name in names)
    activated = [name for name in model.layers if name in model.nonlinearities]
    shown = [name for name in activated if model.layer(name).kind != "pool"]
    return tuple(dict.fromkeys([*shown, model.layers[-1]]))


def _check_fits(model: oipjax.Model, images: np.ndarray) -> None:
    if images.shape[1:] != model.input_shape:
        expected = " x ".join(map(str, model.input_shape))
        given = " x ".join(map(str, images.shape[1:]))
        raise ValueError(
            f"{model.name} takes images {expected}, the digits are {given}; give it --file"
        )


def readings_of(model: oipjax.Model, last: np.ndarray) -> list[Reading]:
    """The class that the network gives each image; None for a network without classes.

    Args:
        model: the network.
        last: values of its last layer for ``n`` images.
    """
    if last.shape[1:] != (len(model.classes),):
        return [None] * len(last)
    readings: list[Reading] = []
    for probabilities in np.asarray(jax.nn.softmax(last)):
        best = probabilities.argmax()
        readings.append((model.classes[best], float(probabilities[best])))
    return readings


def caption_of(label: int | None, reading: Reading) -> str:
    """``class 3, read as 5 (98 %)``, as far as it is known."""
    parts = []
    if label is not None:
        parts.append(f"class {label}")
    if reading is not None:
        parts.append(f"read as {reading[0]} ({100 * reading[1]:.0f} %)")
    return ", ".join(parts)


def _floor(model: oipjax.Model, name: str) -> float:
    """The value above which a node is active; 0 for a layer without a floor."""
    floor = model.layer(name).floor
    return 0.0 if floor is None else floor


def _print(
    chosen: Chosen, readings: list[Reading], arrays: dict[str, np.ndarray], model: oipjax.Model
) -> None:
    table = Table("image", "", box=None, header_style="bold")
    for name in arrays:
        table.add_column(name, justify="right")
    for number, image in enumerate(chosen.names):
        cells = []
        for name, array in arrays.items():
            is_active = array[number] > _floor(model, name)
            nodes = tuple(range(is_active.ndim - 1))
            responding = int(is_active.any(nodes).sum())
            cells.append(f"{responding} ({100 * is_active.mean():.0f} %)")
        table.add_row(image, caption_of(chosen.labels[number], readings[number]), *cells)
    width = max(80, 48 + 14 * len(arrays))
    Console(highlight=False, width=width).print(table)
    print("numbers: maps that respond, and the share of all nodes that are active")


def _table(chosen: Chosen, arrays: dict[str, np.ndarray], model: oipjax.Model) -> bytes:
    """The csv file: a line for each image, layer and map."""
    lines = []
    for number, image in enumerate(chosen.names):
        for name, array in arrays.items():
            for row in _rows(array[number], _floor(model, name)):
                lines.append((image, name, *row))
    return csv_bytes(COLUMNS, lines)


def _rows(array: np.ndarray, floor: float) -> Iterator[tuple[str, ...]]:
    """Index, mean, largest value and share of active nodes of each map ``[..., k]``."""
    nodes = array.reshape(-1, array.shape[-1])
    mean = nodes.mean(0)
    largest = nodes.max(0)
    share = (nodes > floor).mean(0)
    for index in range(nodes.shape[1]):
        yield str(index), f"{mean[index]:.9g}", f"{largest[index]:.9g}", f"{share[index]:.6g}"


def _figure(
    model: oipjax.Model,
    chosen: Chosen,
    readings: list[Reading],
    arrays: dict[str, np.ndarray],
    scale: Literal["layer", "map"],
) -> Any:
    from oipjax.plots import maps_figure

    captions = []
    for name, label, reading in zip(chosen.names, chosen.labels, readings, strict=True):
        captions.append(f"{name}\n{caption_of(label, reading)}")
    return maps_figure(f"{model.name}: activations", chosen.pixels, captions, arrays, scale=scale)
