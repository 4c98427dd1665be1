"""``oipjax atlas``."""

import importlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

import oipjax
from oipjax import records
from oipjax.cli.options import Output, SpaceOptions, indices, key_of, layer_name
from oipjax.cli.progress import Report, progress
from oipjax.search import replace_options
from oipjax.study import AtlasConfig, plan_study


@dataclass(frozen=True)
class Group:
    """Several processes that make the record together, in a folder that all of them see.

    Attributes:
        coordinator: host:port of process 0. ``none``: there is one process; ``auto``: the cluster's
            environment tells it (Slurm, Open MPI, Kubernetes).
        processes: how many processes there are. ``auto``: the cluster's environment tells it.
        process: the number of this process, from 0. ``auto``: likewise.
    """

    coordinator: str = "none"
    processes: int | Literal["auto"] = "auto"
    process: int | Literal["auto"] = "auto"

    def join(self) -> tuple[int, int]:
        """The number of this process, and how many there are, once all of them have met."""
        is_auto = self.coordinator == "auto"
        given: dict[str, Any] = {}
        if self.processes != "auto":
            given["num_processes"] = self.processes
        if self.process != "auto":
            given["process_id"] = self.process
        if self.coordinator == "none":
            if given:
                raise ValueError(
                    "--processes and --process need --coordinator host:port, where process 0 can "
                    "be reached"
                )
            return 0, 1
        if not is_auto:
            if not self._is_numbered():
                raise ValueError(
                    "--coordinator needs --processes N and --process, a number from 0 to N - 1"
                )
            host, _, port = self.coordinator.rpartition(":")
            if not host or not port.isdigit():
                raise ValueError(f"--coordinator takes auto or host:port, got {self.coordinator!r}")
            given["coordinator_address"] = self.coordinator
        try:
            jax.distributed.initialize(**given)
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"cannot join the other processes at {self.coordinator}: {error}"
            ) from None
        return jax.process_index(), jax.process_count()

    def _is_numbered(self) -> bool:
        if self.processes == "auto" or self.process == "auto":
            return False
        return 0 <= self.process < self.processes


def atlas(
    *,
    checkpoint: str = "mnist-cnn",
    layer: str = "auto",
    maps: str = "all",
    config: AtlasConfig = AtlasConfig(),
    space: SpaceOptions = SpaceOptions(),
    seed: int = 0,
    output: Output = Output(),
    group: Group = Group(),
) -> None:
    """Find the input patterns of all maps of a layer: survey, ascent, and a status for each map.

    Example: oipjax atlas --layer conv3 --maps 0,5,120 --out patterns

    Writes manifest.json, maps.csv, oips.npz and atlas.png. Interrupted, it goes on where it stopped
    when it is called again; finished, it says where the record lies.

    Args:
        checkpoint: a checkpoint folder, or the name of a network that ships with oipjax.
        layer: name of the layer; auto: the deepest one with maps. See 'oipjax layers'.
        maps: all, or indices and ranges such as 0,5,120-127.
        config: what is searched, and how hard.
        space: which images are searched.
        seed: the same seed gives the same patterns.
        output: where the results go.
        group: for several processes that make the record together.
    """
    begin = time.perf_counter()
    number, processes = group.join()
    model = oipjax.load(checkpoint)
    name = layer_name(model, layer)
    config = replace_options(
        config,
        {
            "maps": indices(maps, model.layer(name).maps),
            "space": space.of(model),
            "exemplars": exemplars(model),
        },
    )
    study = plan_study(key_of(seed), model, name, config=config)
    folder = output.folder(f"{model.name}-{name}")
    with progress() as report:
        if number == 0:
            report = _preparing_to_draw(report, "ascent-on" if study.config.screen else "ascent")
        record = records.make(
            folder,
            study,
            overwrite=output.overwrite,
            progress=report,
            process=(number, processes),
        )
    if number:
        return
    pictures = [folder / picture for picture in output.pictures("atlas")]
    for picture in pictures:
        if record.fresh or not picture.exists():
            _save_picture(record, picture)
    took = f"in {time.perf_counter() - begin:.1f} s"
    if not record.fresh:
        took = "(finished before; nothing to do)"
    print(f"{_summary(record)} of {name}{_proved(record)} {took}: {pictures[0]}")


def exemplars(model: oipjax.Model) -> np.ndarray | None:
    """The digits that ship with oipjax, as network inputs; None if they do not fit the network."""
    from oipjax.data import mnist

    images = mnist.sample().images
    return model.to_input(images) if images.shape[1:] == model.input_shape else None


def _preparing_to_draw(report: Report, last: str) -> Report:
    """A report that imports the plots when the phase ``last`` ends.

    All cores are busy until then.
    """
    ready = threading.Thread(
        target=lambda: importlib.import_module("oipjax.plots.atlas").warm_up(), daemon=True
    )

    def report_and_prepare(phase: str, done: int, total: int) -> None:
        if phase == last and done == total and not ready.ident:
            ready.start()
        report(phase, done, total)

    return report_and_prepare


def _save_picture(record: records.Record, picture: Path) -> None:
    from oipjax import plots

    config = record.manifest["config"]
    method = config["method"]["name"].lower()
    space = record.manifest["image_space"].lower()
    caption = (
        f"best of {config['keep']} runs each, {method}, {config['steps']} steps, "
        f"from {config['draws']:,} random starts, {space} images"
    )
    records.save_picture(picture, plots.atlas_figure(record.atlas, caption))


def _summary(record: records.Record) -> str:
    counts = record.manifest["counts"]
    return f"found {counts['found']} of {counts['maps']} maps"


def _proved(record: records.Record) -> str:
    counts = record.manifest["counts"]
    dead = f", {counts['dead']} proved dead" if counts["dead"] else ""
    unresolved = f", {counts['unresolved']} unresolved" if counts["unresolved"] else ""
    return dead + unresolved
