"""``oipjax oip``."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import oipjax
from oipjax import records
from oipjax.cli.options import Output, SpaceOptions, key_of, layer_name
from oipjax.cli.progress import Report, progress
from oipjax.objectives import Map
from oipjax.search import (
    INACTIVE,
    STATUS,
    Ascent,
    AscentConfig,
    Classic,
    ascend,
    checked_start_numbers,
    survey,
)

CLASSIC = AscentConfig(method=Classic(), steps=600, record_images=True)


def oip(
    *,
    map: int,
    checkpoint: str = "mnist-cnn",
    layer: str = "auto",
    draws: int = 4096,
    start: int | Literal["best"] = "best",
    ascent: AscentConfig = CLASSIC,
    space: SpaceOptions = SpaceOptions(),
    seed: int = 0,
    output: Output = Output(),
) -> None:
    """Watch the pattern of one map evolve out of a random start.

    Example: oipjax oip --map 120

    Prints a table of step, score and change; draws the images at these steps, plain and
    contrast-enhanced, and the curve. --method momentum finds more in fewer steps, try --steps 100.

    Args:
        map: index of the map, from 0.
        checkpoint: a checkpoint folder, or the name of a network that ships with oipjax.
        layer: name of the layer; auto: the deepest one with maps.
        draws: random starts in the survey.
        start: number of the survey's start to begin with; best: the map's best one.
        ascent: how the run is climbed.
        space: which images are searched.
        seed: the same seed gives the same pattern.
        output: where the results go.
    """
    model = oipjax.load(checkpoint)
    key = key_of(seed)
    layer = layer_name(model, layer)
    Map(layer).check(model, np.array([map]))
    if start != "best":
        checked_start_numbers([start])
    ascent = replace(ascent, space=space.of(model))
    config = records.describe_run(
        "oip",
        model,
        key,
        ascent.space,
        ascent.method,
        layer=layer,
        map=map,
        draws=draws,
        start=None if start == "best" else start,
        **_described(ascent),
    )
    folder = output.folder(f"{model.name}-{layer}-map{map}")
    pictures = [folder / name for name in output.pictures("oip")]
    if records.is_finished(folder, config, overwrite=output.overwrite):
        _draw_missing(folder, config, pictures)
        print(f"finished before; nothing to do: {pictures[0]}")
        return
    with progress() as report:
        if start == "best":
            start = _best_start(key, model, layer, map, draws, ascent, report)
        run = ascend(
            key,
            model,
            Map(layer),
            np.array([map]),
            np.array([start]),
            progress=lambda done, total: report("ascent", done, total),
            config=ascent,
        )
    _print(run)
    figures = {picture.name: _figure(config, run, start) for picture in pictures}
    records.write_run(folder, config, run, figures, start=start, precision=ascent.precision)
    status = int(run.status[0])
    best = f"best score {run.scores[0]:.4f}"
    print(f"map {map} of {layer}: {STATUS[status]}; {best}: {pictures[0]}")
    if status == INACTIVE:
        print(
            "try --method momentum, which climbs the pre-activation first, or another --seed, "
            "--recipe or --draws"
        )


def _best_start(
    key: jax.Array,
    model: oipjax.Model,
    layer: str,
    map: int,
    draws: int,
    ascent: AscentConfig,
    report: Report,
) -> int:
    """Number of the random start that the map responds to most."""
    found = survey(
        key,
        model,
        layer,
        draws=draws,
        keep=1,
        config=ascent,
        progress=lambda done, total: report("survey", done, total),
    )
    return int(found.start_index[map, 0])


def _draw_missing(folder: Path, config: dict[str, Any], pictures: list[Path]) -> None:
    """Draw the pictures of a finished run that are not there yet."""
    run = records.read_run(folder)
    start = int(records.read_manifest(folder)["start"])
    for picture in pictures:
        if not picture.exists():
            records.save_picture(picture, _figure(config, run, start))


def _described(ascent: AscentConfig) -> dict[str, Any]:
    """The options of the ascent that stand in the record, beside its space and its method."""
    described = vars(ascent) | {"tile": ascent.tile_size}
    for name in ("space", "method", "record_images"):
        del described[name]
    return described


def _print(run: Ascent) -> None:
    table = Table("step", "score", "change per step", box=None, header_style="bold")
    for column in table.columns:
        column.justify = "right"
    for step, score, change in zip(run.trace_steps, run.trace[0], run.changes[0], strict=True):
        table.add_row(str(step), f"{score:.4f}", f"{change:+.3g}")
    Console(highlight=False).print(table)


def _figure(config: dict[str, Any], run: Ascent, start: int) -> Any:
    from oipjax import plots

    method = config["method"]["name"].lower()
    seed = config["key"]["data"][-1]
    plan = f"start {start}, {method}, {config['steps']} steps, seed {seed}"
    result = f"best score {run.scores[0]:.4f}; {STATUS[int(run.status[0])]}"
    parts = (config["model"], config["layer"], f"map {config['map']}")
    return plots.oip_figure(
        " \N{MIDDLE DOT} ".join(parts),
        run.trace_steps.tolist(),
        run.trace_images[0],
        run.trace[0],
        run.changes[0],
        f"{plan}; {result}",
    )
