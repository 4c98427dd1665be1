"""What do the first layers want, and can a node see further than its receptive field?

Question: how large are the features in the patterns of conv1, conv2 and conv3, beside the receptive
    fields of 3, 8 and
18 pixels; is the gradient of a node exactly zero outside its receptive field; and do the last two
rows and columns of pixels, which no node of conv3 sees, stay as they were in the start?
Expected: textures whose features grow with the receptive field (R. Moenchmeyer, "A simple CNN for
    the MNIST dataset",
part XII, applies the method to layers 1 and 2), repeated over the image in the first two layers; so
blocks of a pattern that are larger than the receptive field can change places without much loss.
Outside, not one pixel with a gradient; in the margin, the start, shifted and scaled.
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
from matplotlib.figure import Figure
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


@dataclass(frozen=True)
class Config:
    """Best patterns of all maps; gradients of all nodes, or every ``stride``-th, at ``images`` random images."""

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
    """Receptive field of the nodes of a layer: node i sees pixels ``i * step`` to ``i * step + size - 1``."""

    size: int
    step: int


def network_of(model: oipjax.Model) -> CNNConfig:
    """The architecture."""
    if not isinstance(model.apply, cnn.CNNApply):
        raise ValueError(
            f"{model.name}: expected a network of oipjax.networks.cnn, whose architecture is known"
        )
    return model.apply.config


def receptive_field(network: CNNConfig, layer: str) -> Field:
    """From the sizes of kernels and pools alone; for a convolution, without padding."""
    if network.padding != "VALID" or layer not in {
        f"conv{i}" for i, _ in enumerate(network.filters, 1)
    }:
        raise ValueError(
            f"expected a convolution without padding, got {layer!r} with padding {network.padding}"
        )
    size, step = 1, 1
    for i, pool in enumerate(network.pools, 1):
        size += (network.kernel - 1) * step
        if layer == f"conv{i}":
            break
        size, step = size + (pool - 1) * step, step * pool
    return Field(size, step)


@functools.partial(jax.jit, static_argnums=(0, 1))
def gradients(apply, layer, params, image, nodes):
    """Of single nodes ``[n, 3]`` before their ReLU, at one image: ``[n, h, w, c]``."""

    def value(x, node):
        return oipjax.Node(layer)({layer: apply(params, x[None])[layer][0]}, x, node)

    return jax.vmap(jax.grad(value), (None, 0))(image, nodes)


def support(config: Config, model: oipjax.Model, layer: str) -> dict[str, Any]:
    """Where the gradients of a layer's nodes are not exactly zero, inside and outside their receptive fields."""
    field, shape = receptive_field(network_of(model), layer), model.layer(layer).shape
    nodes = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)[
        :: config.stride
    ]
    nodes = nodes.astype(np.int32)
    noise = oipjax.Fluctuations((oipjax.Fluctuation((model.input_shape[:2],), (1.0,)),))
    images = make_starts(
        jax.random.key(config.seed),
        oipjax.Standardised(model.input_shape, noise),
        np.arange(config.images),
    )
    rows, columns = (np.arange(size) for size in model.input_shape[:2])
    reached = np.zeros((*shape[:2], *model.input_shape[:2]), bool)
    inside = outside = silent = 0
    for image in images:
        for some in tiles(nodes, 64):
            found = gradients(model.apply, f"{layer}_pre", model.params, image, padded(some, 64))
            there = (np.asarray(found)[: len(some)] != 0).any(-1)
            in_rows, in_columns = (
                (pixels >= field.step * node[:, None])
                & (pixels < field.step * node[:, None] + field.size)
                for pixels, node in zip((rows, columns), some.T[:2], strict=True)
            )
            mine = in_rows[:, :, None] & in_columns[:, None, :]
            inside, outside = (
                inside + int((there & mine).sum()),
                outside + int((there & ~mine).sum()),
            )
            silent += int((~there.any((1, 2))).sum())
            np.logical_or.at(reached, (some[:, 0], some[:, 1]), there)
    seen, middle = reached.any((0, 1)), node_gradients(config, model, layer) ** 2
    # Squares around the middle of the middle node's field, and what they hold of its gradient.
    top = [field.step * (n // 2) for n in shape[:2]]
    held = {
        size: middle[
            tuple(slice(t + (field.size - size) // 2, t + (field.size + size) // 2) for t in top)
        ].sum()
        for size in range(2 - field.size % 2, field.size + 1, 2)
    }
    whole = reached.sum((2, 3)) == field.size**2
    return {
        "layer": layer, "receptive field": field.size, "step": field.step, "gradients": len(nodes) * len(images),
        "pixels with a gradient, inside": inside, "pixels with a gradient, outside": outside,
        "nodes without any": silent,
        "positions whose whole field has one": float(whole[reached.any((2, 3))].mean()),
        "square that holds 90 % of the squared gradient": min(s for s, v in held.items() if v >= 0.9 * middle.sum()),
        "pixels that no node sees": int((~seen).sum()),
        "rows and columns seen": [int(np.any(seen, axis=1).sum()), int(np.any(seen, axis=0).sum())],
    }  # fmt: skip


def node_gradients(config: Config, model: oipjax.Model, layer: str) -> np.ndarray:
    """Mean size of the gradient of the middle node over all maps, ``[h, w]``, at one random image."""
    h, w, maps = model.layer(layer).shape
    image = make_starts(jax.random.key(config.seed), oipjax.space_for(model), np.arange(1))[0]
    nodes = np.array([(h // 2, w // 2, k) for k in range(maps)], np.int32)
    return np.abs(
        np.asarray(gradients(model.apply, f"{layer}_pre", model.params, image, nodes))
    ).mean((0, 3))


def interval(values: list[float], seed: int) -> list[float]:
    """Median, and where it lies in 95 % of 1,000 bootstraps over maps."""
    drawn = np.asarray(
        jax.random.randint(jax.random.key(seed), (1000, len(values)), 0, len(values))
    )
    return [
        float(np.median(values)),
        *np.percentile(np.median(np.array(values)[drawn], 1), (2.5, 97.5)).tolist(),
    ]


def kept(
    config: Config,
    model: oipjax.Model,
    layer: str,
    maps: np.ndarray,
    patterns: np.ndarray,
    scores: np.ndarray,
    block: int,
) -> list[float]:
    """What share of its score each map's pattern keeps when it is cut into blocks that change places, in the mean."""
    keys = jax.random.split(jax.random.key(config.seed), config.shuffles)
    mixed = np.concatenate([[shuffled(key, image, block) for image in patterns] for key in keys])
    answers = map_means(layer_activations(model, mixed, (layer,))[layer]).reshape(
        config.shuffles, len(maps), -1
    )
    return (answers[:, np.arange(len(maps)), maps].mean(0) / scores).tolist()


def margin_facts(patterns: np.ndarray, starts: np.ndarray) -> dict[str, float]:
    """Pixels ``[n, m]`` that no node sees: the line that fits them best to those of the start, and what it leaves."""
    centred = starts - starts.mean(1, keepdims=True)
    scale = (patterns * centred).sum(1) / np.square(centred).sum(1)
    left = patterns - patterns.mean(1, keepdims=True) - scale[:, None] * centred
    return {
        "scale, median": float(np.median(scale)),
        "largest departure": float(np.abs(left).max()),
    }


def study(
    config: Config, name: str, model: oipjax.Model, layer: str
) -> tuple[dict[str, Any], Atlas]:
    """Patterns of a layer, and how large their features are, beside the starts they came from."""
    key, space = jax.random.key(config.seed), oipjax.space_for(model)
    atlas = oipjax.atlas(key, model, layer, space=space, draws=config.draws, keep=2, steps=config.steps, search=0,
                         bounds="none")  # fmt: skip
    found = np.flatnonzero((atlas.status == FOUND) & (atlas.start_index[:, 0] >= 0))
    h, w = network_of(model).seen(int(layer[-1]) - 1)
    field = receptive_field(network_of(model), layer).size
    starts = make_starts(key, space, atlas.start_index[found, 0])
    patterns = atlas.images[found, 0]
    sizes = {
        of: [measures(image[:h, :w, 0], field) for image in images]
        for of, images in (("pattern", patterns), ("start", starts))
    }
    row = {
        "network": name,
        "layer": layer,
        "receptive field": field,
        "maps": len(atlas.maps),
        "found": len(found),
    }
    # Beyond the field of conv3 too little of the image overlaps with itself to say whether anything
    # repeats.
    known = [what for what, value in sizes["pattern"][0].items() if np.isfinite(value)]
    for of, each in sizes.items():
        row |= {
            f"{what}, {of}": interval([one[what] for one in each], config.seed) for what in known
        }
    row["each"] = {what: [one[what] for one in sizes["pattern"]] for what in known}
    scores = atlas.scores[found, 0]
    row["kept"] = {
        block: kept(config, model, layer, atlas.maps[found], patterns, scores, block)
        for block in config.blocks
    }
    row["score kept"] = {block: interval(each, config.seed) for block, each in row["kept"].items()}
    margin = np.ones(model.input_shape[:2], bool)
    margin[:h, :w] = False
    if margin.any():
        row["margin"] = margin_facts(patterns[:, margin, 0], starts[:, margin, 0])
    return row, atlas


def plot(
    config: Config,
    model: oipjax.Model,
    rows: list[dict[str, Any]],
    atlases: list[Atlas],
    supports: list[dict[str, Any]],
) -> Figure:
    """Patterns of the first two layers, the gradient of one node of each layer, and the sizes."""
    figure = Figure(figsize=(13.2, 7.6), facecolor="white")
    figure.text(
        0.03,
        0.966,
        f"{model.name}: what the first layers want",
        fontsize=15,
        fontweight="bold",
        color=INK,
    )
    area = figure.add_gridspec(
        1, 2, left=0.03, right=0.66, top=0.9, bottom=0.025, width_ratios=[1, 2], wspace=0.06
    )
    for column, (atlas, row) in enumerate(zip(atlases, rows, strict=False)):
        place = area[0, column]
        count, columns = len(atlas.maps), 4 if len(atlas.maps) <= 32 else 8
        grid = place.subgridspec(-(-count // columns), columns, wspace=0.06, hspace=0.06)
        box = place.get_position(figure)
        text = (
            f"{row['layer']}: receptive field {row['receptive field']} x {row['receptive field']}"
        )
        figure.text(box.x0, 0.915, text, fontsize=10, fontweight="bold", color=INK)
        for k in range(count):
            axes = figure.add_subplot(grid[k // columns, k % columns])
            _picture(
                axes,
                contrast(atlas.images[k, 0], 2.0)
                if atlas.status[k] == FOUND
                else np.full(model.input_shape[:2], 0.3),
            )
            size = row["receptive field"]
            if k == 0:
                axes.add_patch(
                    Rectangle(
                        (-0.5, -0.5), size, size, fill=False, edgecolor=INACTIVE, linewidth=1.5
                    )
                )
    right = figure.add_gridspec(3, len(rows), left=0.71, right=0.985, top=0.885, bottom=0.065, hspace=0.5, wspace=0.12,
                                height_ratios=[0.75, 1, 1])  # fmt: skip
    figure.text(
        0.71,
        0.915,
        "gradient of one node, mean over maps",
        fontsize=10,
        fontweight="bold",
        color=INK,
    )
    for column, row in enumerate(rows):
        axes = figure.add_subplot(right[0, column])
        found = node_gradients(config, model, row["layer"])
        shown = np.where(found > 0, np.sqrt(found / found.max()), np.nan)
        axes.set_facecolor("#ececec")
        axes.imshow(shown, cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
        field, shape = (
            receptive_field(network_of(model), row["layer"]),
            model.layer(row["layer"]).shape,
        )
        corner = [field.step * (n // 2) - 0.5 for n in (shape[1], shape[0])]
        axes.add_patch(
            Rectangle(corner, field.size, field.size, fill=False, edgecolor=INACTIVE, linewidth=1.5)
        )  # pyright: ignore
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        outside = next(s for s in supports if s["layer"] == row["layer"])[
            "pixels with a gradient, outside"
        ]
        axes.set_title(f"{row['layer']}: {outside} outside", fontsize=8.5, color=INK, pad=4)
    sizes, shares = figure.add_subplot(right[1, :]), figure.add_subplot(right[2, :])
    sizes.set_title(
        "length and width of a feature (pixels)",
        fontsize=10,
        loc="left",
        color=INK,
        fontweight="bold",
    )
    for at, row in enumerate(rows):
        for what, colour in (("length", BLUE), ("width", GREEN)):
            each = np.sort(row["each"][what])
            # Neighbours in value stand side by side, so that none hides another.
            aside = ((np.arange(len(each)) * 0.618) % 1 - 0.5) * 0.5
            sizes.plot(at + aside, each, "o", color=colour, markersize=2.5, alpha=0.6, markeredgewidth=0,
                       label=f"{what}, a map's pattern" if not at else None)  # fmt: skip
            sizes.plot([at - 0.38, at + 0.38], [row[f"{what}, start"][0]] * 2, color=colour, linewidth=1.2,
                       linestyle="--", label=f"{what}, median start" if not at else None)  # fmt: skip
        sizes.plot([at - 0.38, at + 0.38], [row["receptive field"]] * 2, color=INACTIVE, linewidth=1.8,
                   label="receptive field" if not at else None)  # fmt: skip
    sizes.set(yscale="log", ylim=(0.6, 110))
    sizes.set_yticks([1, 2, 3, 5, 8, 18, 28], ["1", "2", "3", "5", "8", "18", "28"])
    sizes.set_xticks(range(len(rows)), [row["layer"] for row in rows])
    title = "score kept when blocks change places"
    shares.set_title(title, fontsize=10, loc="left", color=INK, fontweight="bold")
    for row, colour in zip(rows, (BLUE, GREEN, INACTIVE), strict=False):
        low, middle, high = np.percentile(list(row["kept"].values()), (25, 50, 75), axis=1)
        shares.fill_between(config.blocks, low, high, color=colour, alpha=0.15, linewidth=0)
        shares.plot(config.blocks, middle, "o-", color=colour, markersize=4,
                    label=f"{row['layer']}: field of {row['receptive field']} pixels")  # fmt: skip
    shares.set(xscale="log", ylim=(0, 1), xlabel="side of a block (pixels)")
    shares.set_xticks(config.blocks, [str(block) for block in config.blocks])
    for axes in (sizes, shares):
        axes.minorticks_off()
        axes.legend(fontsize=7.5, frameon=False, loc="upper left", ncols=2 if axes is sizes else 1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8, colors="#444444")
    return figure


def _picture(axes, image: np.ndarray) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    model = oipjax.load(config.checkpoint)
    network = network_of(model)
    params = jax.tree.map(jnp.asarray, cnn.init(jax.random.key(config.seed), network))
    untrained = cnn.model(params, network, name="untrained", mean=model.mean, std=model.std)
    studies = [
        (name, *study(config, name, one, layer))
        for name, one in (("trained", model), ("untrained", untrained))
        for layer in config.layers
    ]
    rows = [row for _, row, _ in studies]
    supports = [support(config, model, layer) for layer in config.layers]
    names = list(supports[0])
    show("where a node's gradient is not zero", ["", *config.layers],
         [[name, *(str(s[name]) for s in supports)] for name in names[1:]])  # fmt: skip
    columns = [
        f"{what}, {of}"
        for what in ("width", "length", "period", "repeats")
        for of in ("pattern", "start")
    ]
    show("features: median over maps, and its 95 % interval", ["network", "layer", "field", *columns],
         [[row["network"], row["layer"], row["receptive field"],
           *("{:.2f} {:.2f}-{:.2f}".format(*row[name]) if name in row else "" for name in columns)]
          for row in rows])  # fmt: skip
    show("share of the score kept when blocks change places", ["network", "layer", *map(str, config.blocks)],
         [[row["network"], row["layer"], *("{:.3f} {:.3f}-{:.3f}".format(*row["score kept"][b]) for b in config.blocks)]
          for row in rows])  # fmt: skip
    show("pixels that no node sees, as a line of the start's", ["network", "layer", "scale", "largest departure"],
         [[row["network"], row["layer"], *row["margin"].values()] for row in rows if "margin" in row])  # fmt: skip
    content = {"config": asdict(config), "support": supports, "features": rows}
    trained = [(row, atlas) for name, row, atlas in studies if name == "trained"]
    figure = plot(
        config, model, [row for row, _ in trained], [atlas for _, atlas in trained[:2]], supports
    )
    save(results, "first_layers", content, figure)
    return content


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
