"""``oipjax layers``."""

from rich.console import Console
from rich.table import Table

import oipjax
from oipjax.pytrees import flatten


def layers(*, checkpoint: str = "mnist-cnn") -> None:
    """List the layers of a network, their maps and nodes.

    Example: oipjax layers --checkpoint mnist-cnn

    Args:
        checkpoint: a checkpoint folder, or the name of a network that ships with oipjax.
    """
    model = oipjax.load(checkpoint)
    parameters = flatten(model.params)
    table = Table(
        "layer", "nodes of a map", "maps", "values", "parameters", box=None, header_style="bold"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for name in model.layers:
        facts = model.layer(name)
        base = name.removesuffix("_pre")
        own = (f"{base}/", f"encoder/{base}/")  # those of an autoencoder's encoder
        owned = sum(a.size for path, a in parameters.items() if path.startswith(own))
        shown = "" if facts.pre or not owned else f"{owned:,}"
        values = "from the floor " + f"{facts.floor:g} up" if facts.floor is not None else "any"
        space = " x ".join(map(str, facts.shape[:-1])) or "1"
        table.add_row(name, space, str(facts.maps), values, shown)
    Console(highlight=False).print(table)
    low, high = model.input_box
    box = ", ".join(f"{a:.3f} to {b:.3f}" for a, b in zip(low, high, strict=True))
    total = sum(a.size for a in parameters.values())
    print(
        f"{model.name}: images {' x '.join(map(str, model.input_shape))}, inputs {box}; {total:,} parameters"
    )
