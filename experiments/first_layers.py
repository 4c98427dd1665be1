"""What excites the first layers, and can a node see further than its receptive field?

Question: how large are the features in the patterns of conv1, conv2 and conv3, beside the receptive
fields of 3, 8 and 18 pixels? Is the gradient of a node exactly zero outside its receptive field? Do
the last two rows and columns of pixels, which reach no node of conv3, stay as they were in the
start?
Expected: textures whose features grow with the receptive field (R. Moenchmeyer, "A simple CNN for
the MNIST dataset", part XII, applies the method to layers 1 and 2), repeated over the image in the
first two layers. Blocks of a pattern that are larger than the receptive field can therefore change
places without much loss. Outside the field, not one pixel with a gradient; in the margin, the
start, shifted and scaled.
Cost: a minute of two cores.
Command: python -m experiments.first_layers
"""

import functools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import Rectangle

import oipjax
from experiments.common import command, save, show
from experiments.tools.textures import measures, shuffled
from oipjax.analysis import layer_activations, map_means
from oipjax.networks import CNNConfig, cnn
from oipjax.plots import BLUE, INACTIVE, INK, contrast
from oipjax.runtime import padded, tiles
from oipjax.search import make_starts
from oipjax.study import FOUND, Atlas

RESULTS = Path(__file__).parent / "results"
GREEN = "#009E73"
TILE = 64
MEASURES = ("width", "length", "period", "repeats")
OUTSIDE = "pixels with a gradient, outside"


@dataclass(frozen=True)
class Config:
    """The layers, their patterns, and the nodes whose gradients are looked at.

    Attributes:
        checkpoint: the network.
        layers: convolutions.
        draws: random starts of each survey.
        steps: of each ascent.
        images: random images at which gradients are computed.
        stride: every so many nodes have their gradients computed.
        blocks: sides of the blocks that change places, in pixels.
        shuffles: of the blocks of each pattern.
        seed: of everything random.
    """

    checkpoint: str = "mnist-cnn"
    layers: tuple[str, ...] = ("conv1", "conv2", "conv3")
    draws: int = 4096
    steps: int = 100
    images: int = 2
    stride: int = 1
    blocks: tuple[int, ...] = (1, 2, 4, 7, 14)
    shuffles: int = 4
    seed: int = 0


SMOKE = Config(
    layers=("conv3",), draws=64, steps=4, images=1, stride=101, blocks=(4, 14), shuffles=1
)


class Field(NamedTuple):
    """Receptive field: node i sees pixels ``i * step`` to ``i * step + size - 1``."""

    size: int
    step: int

    def covers(self, node: np.ndarray, pixels: int) -> np.ndarray:
        """Which of so many pixels along a side the nodes ``[n]`` see, ``bool [n, pixels]``."""
        first = self.step * node[:, None]
        place = np.arange(pixels)
        return (place >= first) & (place < first + self.size)


def network_of(model: oipjax.Model) -> CNNConfig:
    """The architecture."""
    if not isinstance(model.apply, cnn.CNNApply):
        raise ValueError(
            f"{model.name}: expected a network of oipjax.networks.cnn, whose architecture is known"
        )
    return model.apply.config


def number_of(network: CNNConfig, layer: str) -> int:
    """The number of a convolution, from 1."""
    names = [f"conv{i}" for i, _ in enumerate(network.filters, 1)]
    if network.padding != "VALID" or layer not in names:
        raise ValueError(
            f"expected a convolution without padding, got {layer!r} with padding {network.padding}"
        )
    return 1 + names.index(layer)


def receptive_field(network: CNNConfig, layer: str) -> Field:
    """From the sizes of kernels and pools alone; for a convolution without padding."""
    last = number_of(network, layer)
    size = 1
    step = 1
    for i, pool in enumerate(network.pools[:last], 1):
        size += (network.kernel - 1) * step
        if i < last:
            size += (pool - 1) * step
            step *= pool
    return Field(size, step)


@functools.partial(jax.jit, static_argnums=(0, 1))
def gradients(apply, layer, params, image, nodes):
    """Gradients of single nodes ``[n, 3]`` before their ReLU, at one image: ``[n, h, w, c]``."""

    def value(x, node):
        activation = apply(params, x[None])[layer][0]
        return oipjax.Node(layer)({layer: activation}, x, node)

    return jax.vmap(jax.grad(value), (None, 0))(image, nodes)


def all_nodes(shape: tuple[int, ...]) -> np.ndarray:
    """The indices ``[n, 3]`` of all nodes of a layer."""
    indices = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return np.stack(indices, -1).reshape(-1, 3).astype(np.int32)


def support(config: Config, model: oipjax.Model, layer: str) -> dict[str, Any]:
    """Where the gradients of a layer's nodes are not exactly zero."""
    field = receptive_field(network_of(model), layer)
    shape = model.layer(layer).shape
    height, width = model.input_shape[:2]
    nodes = all_nodes(shape)[:: config.stride]
    noise = oipjax.Fluctuations((oipjax.Fluctuation(((height, width),), (1.0,)),))
    space = oipjax.Standardised(model.input_shape, noise)
    images = make_starts(jax.random.key(config.seed), space, np.arange(config.images))
    reached = np.zeros((*shape[:2], height, width), bool)
    inside = 0
    outside = 0
    without = 0
    for image in images:
        for batch in tiles(nodes, TILE):
            slopes = gradients(
                model.apply, f"{layer}_pre", model.params, image, padded(batch, TILE)
            )
            has_gradient = (np.asarray(slopes)[: len(batch)] != 0).any(-1)
            rows = field.covers(batch[:, 0], height)
            columns = field.covers(batch[:, 1], width)
            in_field = rows[:, :, None] & columns[:, None, :]
            inside += int((has_gradient & in_field).sum())
            outside += int((has_gradient & ~in_field).sum())
            without += int((~has_gradient.any((1, 2))).sum())
            np.logical_or.at(reached, (batch[:, 0], batch[:, 1]), has_gradient)
    is_seen: np.ndarray = np.asarray(reached.any((0, 1)))
    is_whole = reached.sum((2, 3)) == field.size**2
    return {
        "layer": layer,
        "receptive field": field.size,
        "step": field.step,
        "gradients": len(nodes) * len(images),
        "pixels with a gradient, inside": inside,
        OUTSIDE: outside,
        "nodes without any": without,
        "positions whose whole field has one": float(is_whole[reached.any((2, 3))].mean()),
        "square that holds 90 % of the squared gradient": concentration(config, model, layer),
        "pixels that no node sees": int((~is_seen).sum()),
        "rows and columns seen": [
            int(is_seen.any(1).sum()),
            int(is_seen.any(0).sum()),
        ],
    }


def concentration(config: Config, model: oipjax.Model, layer: str) -> int:
    """Side of the square around a node that holds 90 % of its squared gradient."""
    field = receptive_field(network_of(model), layer)
    squares = node_gradients(config, model, layer) ** 2
    corners = [field.step * (side // 2) for side in model.layer(layer).shape[:2]]
    for size in range(2 - field.size % 2, field.size + 1, 2):
        margin = (field.size - size) // 2
        top, left = (corner + margin for corner in corners)
        if squares[top : top + size, left : left + size].sum() >= 0.9 * squares.sum():
            return size
    return field.size


def node_gradients(config: Config, model: oipjax.Model, layer: str) -> np.ndarray:
    """Mean size of the gradient of the middle node over all maps, ``[h, w]``, at a random image."""
    h, w, maps = model.layer(layer).shape
    image = make_starts(jax.random.key(config.seed), oipjax.space_for(model), np.arange(1))[0]
    nodes = np.array([(h // 2, w // 2, index) for index in range(maps)], np.int32)
    slopes = gradients(model.apply, f"{layer}_pre", model.params, image, nodes)
    return np.abs(np.asarray(slopes)).mean((0, 3))


def interval(values: list[float], seed: int) -> list[float]:
    """Median, and its 95 % interval by 1,000 bootstraps over maps."""
    count = len(values)
    drawn = np.asarray(jax.random.randint(jax.random.key(seed), (1000, count), 0, count))
    medians = np.median(np.array(values)[drawn], 1)
    low, high = np.percentile(medians, (2.5, 97.5))
    return [float(np.median(values)), float(low), float(high)]


class Found(NamedTuple):
    """The found maps of a layer.

    Attributes:
        maps: their indices ``[k]``.
        patterns: ``[k, h, w, c]``.
        scores: ``[k]``.
        starts: ``[k, h, w, c]``, the starts that the patterns come from.
    """

    maps: np.ndarray
    patterns: np.ndarray
    scores: np.ndarray
    starts: np.ndarray


def kept(config: Config, model: oipjax.Model, layer: str, found: Found, block: int) -> list[float]:
    """The mean share of its score that each map's pattern keeps when its blocks change places."""
    mixed = []
    for key in jax.random.split(jax.random.key(config.seed), config.shuffles):
        mixed += [shuffled(key, image, block) for image in found.patterns]
    activations = layer_activations(model, np.stack(mixed), (layer,))[layer]
    scores = map_means(activations).reshape(config.shuffles, len(found.maps), -1)
    own = scores[:, np.arange(len(found.maps)), found.maps]
    return (own.mean(0) / found.scores).tolist()


def margin_facts(patterns: np.ndarray, starts: np.ndarray) -> dict[str, float]:
    """Pixels ``[n, m]`` that no node sees, as a line of the start's: its slope, and the rest."""
    centred = starts - starts.mean(1, keepdims=True)
    scale = (patterns * centred).sum(1) / np.square(centred).sum(1)
    rest = patterns - patterns.mean(1, keepdims=True) - scale[:, None] * centred
    return {
        "scale, median": float(np.median(scale)),
        "largest departure": float(np.abs(rest).max()),
    }


def study(
    config: Config, name: str, model: oipjax.Model, layer: str
) -> tuple[dict[str, Any], Atlas]:
    """Patterns of a layer, and the sizes of their features beside those of the starts."""
    key = jax.random.key(config.seed)
    space = oipjax.space_for(model)
    options = {"draws": config.draws, "steps": config.steps, "search": 0, "bounds": "none"}
    atlas = oipjax.atlas(key, model, layer, space=space, keep=2, **options)
    place = np.flatnonzero((atlas.status == FOUND) & (atlas.start_index[:, 0] >= 0))
    found = Found(
        maps=atlas.maps[place],
        patterns=atlas.images[place, 0],
        scores=atlas.scores[place, 0],
        starts=make_starts(key, space, atlas.start_index[place, 0]),
    )
    network = network_of(model)
    field = receptive_field(network, layer).size
    h, w = network.input_size(number_of(network, layer) - 1)
    row: dict[str, Any] = {
        "network": name,
        "layer": layer,
        "receptive field": field,
        "maps": len(atlas.maps),
        "found": len(place),
    }
    row |= feature_sizes(config, found, (h, w), field)
    shares = {block: kept(config, model, layer, found, block) for block in config.blocks}
    row["kept"] = shares
    row["score kept"] = {block: interval(share, config.seed) for block, share in shares.items()}
    margin = np.ones(model.input_shape[:2], bool)
    margin[:h, :w] = False
    if margin.any():
        patterns = found.patterns[:, margin, 0]
        row["margin"] = margin_facts(patterns, found.starts[:, margin, 0])
    return row, atlas


def feature_sizes(
    config: Config, found: Found, seen: tuple[int, int], field: int
) -> dict[str, Any]:
    """The sizes of features, in the part of the image that reaches the layer."""
    h, w = seen
    patterns = [measures(image[:h, :w, 0], field) for image in found.patterns]
    starts = [measures(image[:h, :w, 0], field) for image in found.starts]
    # Beyond the field of conv3 too little of the image overlaps with itself to find repetitions.
    known = [name for name, value in patterns[0].items() if np.isfinite(value)]
    row: dict[str, Any] = {"each": {}}
    for name in known:
        of_patterns = [sizes[name] for sizes in patterns]
        of_starts = [sizes[name] for sizes in starts]
        row[f"{name}, pattern"] = interval(of_patterns, config.seed)
        row[f"{name}, start"] = interval(of_starts, config.seed)
        row["each"][name] = of_patterns
    return row


def plot(
    config: Config,
    model: oipjax.Model,
    rows: list[dict[str, Any]],
    atlases: list[Atlas],
    supports: list[dict[str, Any]],
) -> Figure:
    """Patterns of the first two layers, the gradient of one node of each layer, and the sizes."""
    figure = Figure(figsize=(13.2, 7.6), facecolor="white")
    bold: dict[str, Any] = {"fontweight": "bold", "color": INK}
    figure.text(0.03, 0.966, f"{model.name}: what excites the first layers", fontsize=15, **bold)
    edges = {"left": 0.03, "right": 0.66, "top": 0.9, "bottom": 0.025}
    area = figure.add_gridspec(1, 2, width_ratios=[1, 2], wspace=0.06, **edges)
    for column, (atlas, row) in enumerate(zip(atlases, rows, strict=False)):
        draw_patterns(figure, area[0, column], atlas, row)
    edges = {"left": 0.71, "right": 0.985, "top": 0.885, "bottom": 0.065}
    heights = [0.75, 1, 1]
    right = figure.add_gridspec(
        3, len(rows), hspace=0.5, wspace=0.12, height_ratios=heights, **edges
    )
    figure.text(0.71, 0.915, "gradient of one node, mean over maps", fontsize=10, **bold)
    for column, (row, facts) in enumerate(zip(rows, supports, strict=True)):
        axes = figure.add_subplot(right[0, column])
        draw_gradient(axes, config, model, row["layer"], facts[OUTSIDE])
    sizes = figure.add_subplot(right[1, :])
    shares = figure.add_subplot(right[2, :])
    draw_sizes(sizes, rows)
    draw_shares(shares, config, rows)
    for axes in (sizes, shares):
        axes.minorticks_off()
        axes.legend(fontsize=7.5, frameon=False, loc="upper left", ncols=2 if axes is sizes else 1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8, colors="#444444")
    return figure


def draw_patterns(figure: Figure, place: SubplotSpec, atlas: Atlas, row: dict[str, Any]) -> None:
    """All maps of a layer; the receptive field is drawn into the first one."""
    count = len(atlas.maps)
    columns = 4 if count <= 32 else 8
    grid = place.subgridspec(-(-count // columns), columns, wspace=0.06, hspace=0.06)
    size = row["receptive field"]
    text = f"{row['layer']}: receptive field {size} x {size}"
    left = place.get_position(figure).x0
    figure.text(left, 0.915, text, fontsize=10, fontweight="bold", color=INK)
    for k in range(count):
        axes = figure.add_subplot(grid[k // columns, k % columns])
        picture = contrast(atlas.images[k, 0], 2.0)
        if atlas.status[k] != FOUND:
            picture = np.full_like(picture, 0.3)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        if k == 0:
            axes.add_patch(square((-0.5, -0.5), size))


def square(corner: tuple[float, float], size: int) -> Rectangle:
    """The outline of a receptive field."""
    return Rectangle(corner, size, size, fill=False, edgecolor=INACTIVE, linewidth=1.5)


def draw_gradient(
    axes: Axes, config: Config, model: oipjax.Model, layer: str, outside: int
) -> None:
    """The gradient of the middle node, and its receptive field."""
    found = node_gradients(config, model, layer)
    shown = np.where(found > 0, np.sqrt(found / found.max()), np.nan)
    axes.set_facecolor("#ececec")
    axes.imshow(shown, cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
    field = receptive_field(network_of(model), layer)
    h, w, _ = model.layer(layer).shape
    left = field.step * (w // 2) - 0.5
    top = field.step * (h // 2) - 0.5
    axes.add_patch(square((left, top), field.size))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(f"{layer}: {outside} outside", fontsize=8.5, color=INK, pad=4)


def draw_sizes(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Length and width of a feature, a point for each map, beside the receptive field."""
    text = "length and width of a feature (pixels)"
    axes.set_title(text, fontsize=10, loc="left", color=INK, fontweight="bold")
    for place, row in enumerate(rows):
        line = [place - 0.38, place + 0.38]
        is_first = place == 0
        for name, colour in (("length", BLUE), ("width", GREEN)):
            values = np.sort(row["each"][name])
            # Neighbours in value stand side by side, so that none hides another.
            aside = ((np.arange(len(values)) * 0.618) % 1 - 0.5) * 0.5
            label = f"{name}, a map's pattern" if is_first else None
            point = {"color": colour, "markersize": 2.5, "alpha": 0.6, "markeredgewidth": 0}
            axes.plot(place + aside, values, "o", label=label, **point)
            median = row[f"{name}, start"][0]
            label = f"{name}, median start" if is_first else None
            style = {"color": colour, "linewidth": 1.2, "linestyle": "--"}
            axes.plot(line, [median] * 2, label=label, **style)
        field = row["receptive field"]
        label = "receptive field" if is_first else None
        axes.plot(line, [field] * 2, color=INACTIVE, linewidth=1.8, label=label)
    axes.set(yscale="log", ylim=(0.6, 110))
    axes.set_yticks([1, 2, 3, 5, 8, 18, 28], ["1", "2", "3", "5", "8", "18", "28"])
    axes.set_xticks(range(len(rows)), [row["layer"] for row in rows])


def draw_shares(axes: Axes, config: Config, rows: list[dict[str, Any]]) -> None:
    """The share of the score that is kept when blocks change places, by their side."""
    text = "score kept when blocks change places"
    axes.set_title(text, fontsize=10, loc="left", color=INK, fontweight="bold")
    for row, colour in zip(rows, (BLUE, GREEN, INACTIVE), strict=False):
        low, middle, high = np.percentile(list(row["kept"].values()), (25, 50, 75), axis=1)
        axes.fill_between(config.blocks, low, high, color=colour, alpha=0.15, linewidth=0)
        label = f"{row['layer']}: field of {row['receptive field']} pixels"
        axes.plot(config.blocks, middle, "o-", color=colour, markersize=4, label=label)
    axes.set(xscale="log", ylim=(0, 1), xlabel="side of a block (pixels)")
    axes.set_xticks(config.blocks, list(map(str, config.blocks)))


def with_interval(row: dict[Any, Any], name: str | int, digits: int) -> str:
    """A median and its interval as text; empty where there is none."""
    if name not in row:
        return ""
    middle, low, high = (f"{value:.{digits}f}" for value in row[name])
    return f"{middle} {low}-{high}"


def tell(config: Config, supports: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Print all tables."""
    names = [name for name in supports[0] if name != "layer"]
    cells = [[name, *(str(facts[name]) for facts in supports)] for name in names]
    show("where a node's gradient is not zero", ["", *config.layers], cells)
    columns = []
    for name in MEASURES:
        columns += [f"{name}, pattern", f"{name}, start"]
    features = []
    shares = []
    margins = []
    for row in rows:
        place = [row["network"], row["layer"]]
        values = [with_interval(row, name, 2) for name in columns]
        features.append([*place, row["receptive field"], *values])
        kept_shares = row["score kept"]
        shares.append([*place, *(with_interval(kept_shares, b, 3) for b in config.blocks)])
        if "margin" in row:
            margins.append([*place, *row["margin"].values()])
    title = "features: median over maps, and its 95 % interval"
    show(title, ["network", "layer", "field", *columns], features)
    title = "share of the score kept when blocks change places"
    show(title, ["network", "layer", *map(str, config.blocks)], shares)
    title = "pixels that no node sees, as a line of the start's"
    show(title, ["network", "layer", "scale", "largest departure"], margins)


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    model = oipjax.load(config.checkpoint)
    network = network_of(model)
    params = jax.tree.map(jnp.asarray, cnn.init(jax.random.key(config.seed), network))
    untrained = cnn.model(params, network, name="untrained", mean=model.mean, std=model.std)
    trained = [study(config, "trained", model, layer) for layer in config.layers]
    others = [study(config, "untrained", untrained, layer) for layer in config.layers]
    rows = [row for row, _ in (*trained, *others)]
    supports = [support(config, model, layer) for layer in config.layers]
    tell(config, supports, rows)
    content = {"config": asdict(config), "support": supports, "features": rows}
    trained_rows = [row for row, _ in trained]
    atlases = [atlas for _, atlas in trained[:2]]
    figure = plot(config, model, trained_rows, atlases, supports)
    save(results, "first_layers", content, figure)
    return content


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
