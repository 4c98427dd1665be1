"""``oipjax atlas``."""

import importlib
import threading
import time
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

import oipjax
from oipjax import records
from oipjax.cli.options import AUTOENCODER, OUT, Formats, Spaces, indices, key_of, space_of
from oipjax.cli.progress import progress
from oipjax.search import METHODS
from oipjax.study import Progress, Study


def atlas(
    *,
    checkpoint: str = "mnist-cnn",
    layer: str = "",
    maps: str = "all",
    draws: int = 4096,
    keep: int = 4,
    steps: int = 100,
    screen: int | None = None,
    finish: int = 1,
    keep_images: int | None = None,
    method: Literal["momentum", "classic"] = "momentum",
    space: Spaces = "standardised",
    autoencoder: str = AUTOENCODER,
    recipe: tuple[str, ...] = (),
    restarts: int = 4,
    search: int = 16,
    bounds: Literal["none", "cheap", "tight"] = "cheap",
    criterion: float = 2e-4,
    stop: bool = False,
    precision: Literal["float32", "tf32", "bf16"] = "float32",
    seed: int = 0,
    tile: int | None = None,
    format: tuple[Formats, ...] = ("png",),
    out: Path | None = None,
    overwrite: bool = False,
    coordinator: str = "",
    processes: int | None = None,
    process: int | None = None,
) -> None:
    """Find the input patterns of all maps of a layer: survey, ascent, and a verdict for each map.

    Example: oipjax atlas --layer conv3 --maps 0,5,120 --out patterns

    Writes manifest.json, maps.csv, oips.npz and atlas.png. Interrupted, it goes on where it stopped
    when it is called again; finished, it says where the record lies.

    Args:
        checkpoint: a checkpoint folder, or the name of a network that ships with oipjax.
        layer: the layer; by default the deepest one with maps. See 'oipjax layers'.
        maps: which maps: all, or indices and ranges such as 0,5,120-127.
        draws: random starts that the survey feeds through the network.
        keep: best starts, and so ascents and patterns, per map.
        steps: steps of each ascent that is climbed to its end.
        screen: steps of a short ascent from every start before that, by default a quarter of
            --steps; 0: all starts are climbed to their end at once.
        finish: how many of each map's short ascents are climbed on, the best first.
        keep_images: keep the images of so many of each map's patterns; scores and traces are kept
            of all.
        method: momentum (default), or classic: the reference rule, best with --steps 600.
        space: standardised images (mean 0, std 1), the box of valid pixels, or images that a
            decoder makes.
        autoencoder: whose decoder, for --space decoder: a checkpoint folder, or one that ships with
            oipjax; its latent vectors are kept to those like the codes of digits.
        recipe: mixtures of random fields to start from, as size:weight,... and ~blur, e.g.
            3:0.2,7:0.2~1.
        restarts: further starts for each map that stays silent.
        search: for maps neither found nor proved dead: as many starts from real digits, and four
            times as many random.
        bounds: how hard to prove upper limits: none, cheap (seconds), or tight (minutes; box only).
        criterion: relative change of the score per step below which a run counts as converged.
        stop: end each run once it has converged.
        precision: of the steps' products on a GPU: tf32 and, more so, bf16 are faster there. Scores
            are those of float32 in any case.
        seed: the same seed gives the same patterns.
        tile: batch size of the compiled programs; part of what decides the last bits.
        format: of the picture, one or more.
        out: folder of the record; by default oipjax-out/<model>-<layer>.
        overwrite: replace another run's record in that folder.
        coordinator: host:port of process 0, if several processes make the record together in a
            folder that all of them see; 'auto' finds it, and the next two, in a cluster's
            environment (Slurm, Open MPI, Kubernetes).
        processes: how many there are.
        process: the number of this one, from 0.
    """
    begin = time.perf_counter()
    number, count = _join(coordinator, processes, process)
    model = oipjax.load(checkpoint)
    key = key_of(seed)
    study = Study(
        key,
        model,
        layer,
        maps=indices(maps, model.layer(layer or model.default_layer).maps),
        space=space_of(model, space, recipe, autoencoder),
        draws=draws,
        keep=keep,
        method=METHODS[method](),
        steps=steps,
        screen=screen,
        finish=finish,
        keep_images=keep_images,
        restarts=restarts,
        search=search,
        exemplars=exemplars(model),
        bounds=bounds,
        criterion=criterion,
        stop=stop,
        precision=precision,
        tile=tile,
    )
    folder = out or OUT / f"{model.name}-{study.layer}"
    with progress() as report:
        report = (
            report
            if number
            else _preparing_to_draw(report, "ascent-on" if study.screen else "ascent")
        )
        record = records.make(
            folder, study, overwrite=overwrite, progress=report, process=(number, count)
        )
    if number:
        return
    counts = record.manifest["counts"]
    pictures = [folder / f"atlas.{ending}" for ending in format]
    for picture in pictures:
        if record.fresh or not picture.exists():
            _save_atlas(record, picture)
    verdict = f"found {counts['found']} of {counts['maps']} maps of {study.layer}"
    if counts["dead"]:
        verdict += f", {counts['dead']} proved dead"
    if counts["unresolved"]:
        verdict += f", {counts['unresolved']} unresolved"
    took = (
        f"in {time.perf_counter() - begin:.1f} s"
        if record.fresh
        else "(finished before; nothing to do)"
    )
    print(f"{verdict} {took}: {pictures[0]}")


def exemplars(model: oipjax.Model) -> np.ndarray | None:
    """The digits that ship with oipjax as the network takes them; None if they do not fit."""
    from oipjax.data import mnist as data

    images = data.sample().images
    return model.to_input(images) if images.shape[1:] == model.input_shape else None


def _preparing_to_draw(report: Progress, last: str) -> Progress:
    """A report that imports what draws once the phase ``last`` is over: until then all cores have their work."""
    ready = threading.Thread(
        target=lambda: importlib.import_module("oipjax.plots.atlas").warm_up(), daemon=True
    )

    def tell(phase: str, done: int, total: int) -> None:
        if phase == last and done == total and not ready.ident:
            ready.start()
        report(phase, done, total)

    return tell


def _save_atlas(record: records.Record, picture: Path) -> None:
    from oipjax import plots

    config = record.manifest["config"]
    method = config["method"]["name"].lower()
    caption = (
        f"best of {config['keep']} ascents each, {method}, {config['steps']} steps, from {config['draws']:,} random "
        f"starts, {record.manifest['image_space'].lower()} images"
    )
    records.save_picture(picture, plots.atlas_figure(record.atlas, caption))


def _join(coordinator: str, processes: int | None, process: int | None) -> tuple[int, int]:
    """This process's number, and how many there are, once all have met."""
    if not coordinator:
        if processes is not None or process is not None:
            raise ValueError(
                "--processes and --process need --coordinator host:port, where process 0 can be reached"
            )
        return 0, 1
    given: dict[str, Any] = {"num_processes": processes, "process_id": process}
    if coordinator != "auto":
        if processes is None or process is None or not 0 <= process < processes:
            raise ValueError(
                "--coordinator needs --processes N and --process, a number from 0 to N - 1"
            )
        given["coordinator_address"] = coordinator
    try:
        jax.distributed.initialize(**given)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"cannot join the other processes at {coordinator}: {error}") from None
    return jax.process_index(), jax.process_count()
