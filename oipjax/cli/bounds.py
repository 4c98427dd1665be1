"""``oipjax bounds``."""

import time
from typing import Literal

import numpy as np
from rich.console import Console
from rich.table import Table

import oipjax
from oipjax.bounds import certify
from oipjax.cli.options import indices, layer_name
from oipjax.cli.progress import progress
from oipjax.objectives import Map
from oipjax.spaces import space_for


def bounds(
    *,
    checkpoint: str = "mnist-cnn",
    layer: str = "auto",
    maps: str = "all",
    space: Literal["standardised", "box"] = "standardised",
    level: Literal["cheap", "tight"] = "cheap",
) -> None:
    """Print what is proved of the maps of a layer: upper limits, and which maps are dead.

    Example: oipjax bounds --layer conv3 --space box --level tight

    The bound of a score (mean over the map) and of every node, before the nonlinearity, hold for
    all images of the space; a map whose node bound is not above the floor is dead.

    Args:
        checkpoint: a checkpoint folder, or the name of a network that ships with oipjax.
        layer: name of the layer; auto: the deepest one with maps.
        maps: all, or indices and ranges such as 0,5,120-127.
        space: standardised images (mean 0, standard deviation 1), or the box of valid pixels.
        level: cheap (seconds), or tight (minutes).
    """
    begin = time.perf_counter()
    model = oipjax.load(checkpoint)
    name = layer_name(model, layer)
    chosen = indices(maps, model.layer(name).maps)
    if chosen != "all":
        Map(name).check(model, np.array(chosen))
    with progress() as report:
        proved = certify(model, name, space_for(model, space).domain, level=level, progress=report)
    table = Table("map", "score at most", "node at most", "by", "", box=None, header_style="bold")
    for column in table.columns[:3]:
        column.justify = "right"
    shown = range(len(proved.score)) if chosen == "all" else chosen
    for number in shown:
        table.add_row(
            str(number),
            f"{proved.score[number]:.5g}",
            f"{proved.node[number]:.5g}",
            str(proved.method[number]),
            "dead" if proved.dead[number] else "",
        )
    Console(highlight=False).print(table)
    dead = int(np.sum(proved.dead[list(shown)]))
    seconds = time.perf_counter() - begin
    print(
        f"{dead} of {len(shown)} maps of {name} proved dead over {space} images in {seconds:.1f} s"
    )
