"""``oipjax oip``."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

import oipjax
from oipjax import records
from oipjax.cli.options import Output, SpaceOptions, key_of, layer_name
from oipjax.cli.progress import progress
from oipjax.objectives import Map
from oipjax.search import (
    INACTIVE,
    STATUS,
    Ascent,
    AscentConfig,
    Classic,
    ascend,
    check_plan,
    checked_index,
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
    check_plan(ascent.steps, ascent.reports, ascent.criterion)
    if start != "best":
        checked_index([start])
    images = space.of(model)
    options = _described(ascent) | {"draws": draws, "start": None if start == "best" else start}
    config = records.describe_run(
        "oip", model, key, images, ascent.method, layer=layer, map=map, **options
    )
    folder = output.folder(f"{model.name}-{layer}-map{map}")
    names = output.pictures("oip")
    if records.is_finished(folder, config, overwrite=output.overwrite):
        run = records.read_run(folder)
        first = int(records.read_manifest(folder)["start"])
        for name in names:
            if not (folder / name).exists():
                records.save_picture(folder / name, _figure(config, run, first))
        print(f"finished before; nothing to do: {folder / names[0]}")
        return
    with progress() as report:
        first = start
        if first == "best":
            found = survey(
                key,
                model,
                layer,
                space=images,
                draws=draws,
                keep=1,
                tile=ascent.tile_size,
                progress=lambda done, total: report("survey", done, total),
            )
            first = int(found.start_index[map, 0])
        run = ascend(
            key,
            model,
            Map(layer),
            np.array([map]),
            np.array([first]),
            progress=lambda done, total: report("ascent", done, total),
            **_keywords(replace(ascent, space=images)),
        )
    _print(run)
    pictures = {name: _figure(config, run, first) for name in names}
    records.write_run(folder, config, run, pictures, start=first, precision=ascent.precision)
    status = int(run.status[0])
    best = f"best score {run.scores[0]:.4f}"
    print(f"map {map} of {layer}: {STATUS[status]}; {best}: {folder / names[0]}")
    if status == INACTIVE:
        print(
            "try --method momentum, which climbs the pre-activation first, or another --seed, "
            "--recipe or --draws"
        )


def _described(ascent: AscentConfig) -> dict[str, Any]:
    """The options of the ascent that stand in the record."""
    described = {
        "steps": ascent.steps,
        "reports": ascent.reports,
        "criterion": ascent.criterion,
        "stop": ascent.stop,
        "tile": ascent.tile_size,
    }
    if ascent.precision != "float32":  # Records without this entry are of float32.
        described["precision"] = ascent.precision
    return described


def _keywords(ascent: AscentConfig) -> dict[str, Any]:
    return {
        "space": ascent.space,
        "method": ascent.method,
        "steps": ascent.steps,
        "reports": ascent.reports,
        "criterion": ascent.criterion,
        "stop": ascent.stop,
        "record_images": ascent.record_images,
        "precision": ascent.precision,
        "tile": ascent.tile_size,
    }


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
