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
    sizes = {path: array.size for path, array in flatten(model.params).items()}
    table = Table(
        "layer", "nodes of a map", "maps", "values", "parameters", box=None, header_style="bold"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for name in model.layers:
        info = model.layer(name)
        nodes = " x ".join(map(str, info.shape[:-1])) or "1"
        values = "any" if info.floor is None else f"from the floor {info.floor:g} up"
        count = 0 if info.pre else sum(sizes[path] for path in info.parameters)
        table.add_row(name, nodes, str(info.maps), values, f"{count:,}" if count else "")
    Console(highlight=False).print(table)
    shape = " x ".join(map(str, model.input_shape))
    print(f"{model.name}: images {shape}, inputs {_box(model)}; {sum(sizes.values()):,} parameters")


def _box(model: oipjax.Model) -> str:
    """The valid inputs of each channel."""
    low, high = model.input_box
    return ", ".join(f"{a:.3f} to {b:.3f}" for a, b in zip(low, high, strict=True))
