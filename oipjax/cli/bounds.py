"""``oipjax bounds``."""

import time
from typing import Literal

import numpy as np
from rich.console import Console
from rich.table import Table

import oipjax
from oipjax.bounds import certify
from oipjax.cli.options import indices
from oipjax.cli.progress import progress
from oipjax.objectives import Map
from oipjax.spaces import space_for


def bounds(
    *,
    checkpoint: str = "mnist-cnn",
    layer: str = "",
    maps: str = "all",
    space: Literal["standardised", "box"] = "standardised",
    level: Literal["cheap", "tight"] = "cheap",
) -> None:
    """Print what is proved of the maps of a layer: how high they can come, and which are dead.

    Example: oipjax bounds --layer conv3 --space box --level tight

    The bound of a score (mean over the map) and of every node, before the nonlinearity, hold for
    all images of the space; a map whose node bound is not above the floor is dead.

    Args:
        checkpoint: a checkpoint folder, or the name of a network that ships with oipjax.
        layer: the layer; by default the deepest one with maps.
        maps: which maps: all, or indices and ranges such as 0,5,120-127.
        space: standardised images (mean 0, std 1), or the box of valid pixels.
        level: cheap (seconds), or tight (minutes).
    """
    model, begin = oipjax.load(checkpoint), time.perf_counter()
    name = model.layer(layer or model.default_layer).name
    chosen = indices(maps, model.layer(name).maps)
    if chosen is not None:
        Map(name).check(model, np.array(chosen))
    with progress() as report:
        proved = certify(model, name, space_for(model, space).domain, level=level, progress=report)
    table = Table("map", "score at most", "node at most", "by", "", box=None, header_style="bold")
    for column in table.columns[:3]:
        column.justify = "right"
    asked = range(len(proved.score)) if chosen is None else chosen
    for k in asked:
        numbers = (f"{value:.5g}" for value in (proved.score[k], proved.node[k]))
        table.add_row(str(k), *numbers, str(proved.method[k]), "dead" if proved.dead[k] else "")
    Console(highlight=False).print(table)
    dead = int(sum(proved.dead[k] for k in asked))
    took = f"in {time.perf_counter() - begin:.1f} s"
    print(f"{dead} of {len(asked)} maps of {name} proved dead over {space} images {took}")
