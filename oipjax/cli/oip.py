"""``oipjax oip``."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

import oipjax
from oipjax import records
from oipjax.cli.options import AUTOENCODER, OUT, Formats, Spaces, key_of, space_of
from oipjax.cli.progress import progress
from oipjax.objectives import Map
from oipjax.search import (
    INACTIVE,
    METHODS,
    STATUS,
    Ascent,
    ascend,
    check_plan,
    checked_index,
    survey,
)


def oip(
    *,
    map: int,
    checkpoint: str = "mnist-cnn",
    layer: str = "",
    draws: int = 4096,
    steps: int = 600,
    reports: int = 6,
    method: Literal["momentum", "classic"] = "classic",
    space: Spaces = "standardised",
    autoencoder: str = AUTOENCODER,
    recipe: tuple[str, ...] = (),
    start: int | None = None,
    criterion: float = 2e-4,
    stop: bool = False,
    seed: int = 0,
    tile: int | None = None,
    format: tuple[Formats, ...] = ("png",),
    out: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Watch the pattern of one map evolve out of a random start.

    Example: oipjax oip --map 120

    Prints a table of step, score and change; draws the images at these steps, plain and
    contrast-enhanced, and the curve.

    Args:
        map: index of the map, from 0.
        checkpoint: a checkpoint folder, or the name of a network that ships with oipjax.
        layer: the layer; by default the deepest one with maps.
        draws: random starts to choose the start from: the one that the map responds to most.
        steps: steps of the ascent.
        reports: recorded steps between the first and the last, doubling.
        method: classic: the reference rule; or momentum: finds more in fewer steps, try --steps
            100.
        space: standardised images (mean 0, std 1), the box of valid pixels, or images that a
            decoder makes.
        autoencoder: whose decoder, for --space decoder: a checkpoint folder, or one that ships with
            oipjax; its latent vectors are kept to those like the codes of digits.
        recipe: mixtures of random fields to start from, as size:weight,... and ~blur, e.g.
            3:0.2,7:0.2~1.
        start: number of the survey's start to use instead of the best one.
        criterion: relative change of the score per step below which the run counts as converged.
        stop: end the run once it has converged.
        seed: the same seed gives the same pattern.
        tile: batch size of the compiled program.
        format: of the picture, one or more.
        out: folder; by default oipjax-out/<model>-<layer>-map<index>.
        overwrite: replace another run's files in that folder.
    """
    model, key = oipjax.load(checkpoint), key_of(seed)
    layer = model.layer(layer or model.default_layer).name
    Map(layer).check(model, np.array([map]))
    check_plan(steps, reports, criterion)
    if start is not None:
        checked_index([start])
    chosen = space_of(model, space, recipe, autoencoder)
    folder = out or OUT / f"{model.name}-{layer}-map{map}"
    options = {
        "draws": draws,
        "steps": steps,
        "reports": reports,
        "start": start,
        "criterion": criterion,
        "stop": stop,
    }
    config = records.describe_run(
        "oip", model, key, chosen, METHODS[method](), layer=layer, map=map, tile=tile, **options
    )
    names = [f"oip.{ending}" for ending in format]
    if records.is_finished(folder, config, overwrite=overwrite):
        run, start = records.read_run(folder), int(records.read_manifest(folder)["start"])
        for name in names:
            if not (folder / name).exists():
                records.save_picture(folder / name, _oip_figure(config, run, start))
        print(f"finished before; nothing to do: {folder / names[0]}")
        return
    with progress() as report:
        if start is None:
            found = survey(
                key, model, layer, space=chosen, draws=draws, keep=1, tile=tile,
                progress=lambda done, total: report("survey", done, total),
            )  # fmt: skip
            start = int(found.start_index[map, 0])
        run = ascend(
            key, model, Map(layer), np.array([map]), np.array([start]), space=chosen, method=METHODS[method](),
            steps=steps, reports=reports, criterion=criterion, stop=stop, record_images=True, tile=tile,
            progress=lambda done, total: report("ascent", done, total),
        )  # fmt: skip
    status = int(run.status[0])
    table = Table("step", "score", "change per step", box=None, header_style="bold")
    for column in table.columns:
        column.justify = "right"
    for number, score, change in zip(run.trace_steps, run.trace[0], run.changes[0], strict=True):
        table.add_row(str(number), f"{score:.4f}", f"{change:+.3g}")
    Console(highlight=False).print(table)
    records.write_run(
        folder, config, run, {name: _oip_figure(config, run, start) for name in names}, start=start
    )
    print(
        f"map {map} of {layer}: {STATUS[status]}; best score {run.scores[0]:.4f}: {folder / names[0]}"
    )
    if status == INACTIVE:
        print(
            "try --method momentum, which climbs the pre-activation first, or another --seed, --recipe or --draws"
        )


def _oip_figure(config: dict[str, Any], run: Ascent, start: int) -> Any:
    from oipjax import plots

    note = (
        f"start {start}, {config['method']['name'].lower()}, {config['steps']} steps, "
        f"seed {config['key']['data'][-1]}; "
        f"best score {run.scores[0]:.4f}; {STATUS[int(run.status[0])]}"
    )
    title = f"{config['model']} \N{MIDDLE DOT} {config['layer']} \N{MIDDLE DOT} map {config['map']}"
    return plots.oip_figure(
        title, run.trace_steps.tolist(), run.trace_images[0], run.trace[0], run.changes[0], note
    )
