"""What do maps want among the images that a decoder can make?

Question: when a map's pattern is searched among the images of an autoencoder's decoder, its latent
    vectors kept to
those like the codes of digits, how much of the score in pixel space is left, how does that compare
with the best real digit, and do the patterns look like digits, to the eye, to the network and by
their distance to real ones? Expected: the decoder's patterns score below those of the box of pixels
and above the best of 1,000 digits for nearly all maps; they lie several times nearer to real digits
than the box's patterns, and the network is surer of them. Cost: about 2 minutes of two cores.
Command: python -m experiments.decoder_space
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import oipjax
from experiments.common import command, save, show, words
from oipjax.cli.options import SpaceOptions
from oipjax.data import mnist as data
from oipjax.plots import BLUE, FAINT, INACTIVE, INK, contrast
from oipjax.spaces import Space, standardise
from oipjax.study import FOUND

RESULTS = Path(__file__).parent / "results"
SPACES = ("standardised", "box", "decoder")
COLUMNS = [
    "map",
    "box",
    "decoder / box",
    "digit / box",
    "decoder / digit",
    "standardised decoder",
    "standardised digit",
]


@dataclass(frozen=True)
class Config:
    """The atlases that are compared, and how many maps the figure shows."""

    checkpoint: str = "mnist-cnn"
    autoencoder: str = "mnist-autoencoder"
    layer: str = "conv3"
    maps: tuple[int, ...] | None = None
    draws: int = 4096
    keep: int = 4
    steps: int = 100
    shown: int = 14
    seed: int = 0


SMOKE = Config(maps=(3, 60, 120), draws=64, keep=2, steps=4, shown=3)


def find(config: Config, model: oipjax.Model, name: str, space: Space) -> oipjax.Atlas:
    """One space's atlas; silent maps are not searched for long, nor proved dead."""
    return oipjax.atlas(
        jax.random.key(config.seed), model, config.layer, maps=config.maps, draws=config.draws, keep=config.keep,
        steps=config.steps, search=0, bounds="none", space=space,
        progress=lambda phase, done, total: print(f"{name}: {phase} {done}/{total}      ", end="\r", flush=True),
    )  # fmt: skip


def answers(model: oipjax.Model, layer: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of network inputs ``[n, h, w, c]``: every map's score ``[n, k]``, and the classes' probabilities ``[n, 10]``."""

    @jax.jit
    def apply(params, x):
        out = model.apply(params, x)
        return out[layer].mean((1, 2)), jax.nn.softmax(out[model.layers[-1]])

    parts = [apply(model.params, images[i : i + 100]) for i in range(0, len(images), 100)]
    scores, classes = (np.concatenate([np.asarray(part[i]) for part in parts]) for i in (0, 1))
    return scores, classes


def nearest(
    model: oipjax.Model, images: np.ndarray, digits: np.ndarray, *, itself: bool = False
) -> np.ndarray:
    """Distance ``[n]`` to the nearest digit: root mean square of the difference of pixels in [0, 1]."""
    low, high = model.input_box
    a, b = (
        ((x - low) / (high - low)).reshape(len(x), -1).astype(np.float64) for x in (images, digits)
    )
    squares = (a**2).mean(1)[:, None] + (b**2).mean(1)[None] - 2 * a @ b.T / a.shape[1]
    if itself:
        np.fill_diagonal(squares, np.inf)
    return np.sqrt(np.maximum(squares.min(1), 0))


def quartiles(values: Any) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return np.percentile(values, (25, 50, 75)).tolist()


def measure(config: Config, model: oipjax.Model) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Facts, and the pictures of each source ``[k, h, w, c]`` for the maps found in all spaces."""
    # All spaces before the first search: what is wrong with one is said at once.
    spaces = {name: SpaceOptions(name, config.autoencoder).of(model) for name in SPACES}
    atlases = {name: find(config, model, name, space) for name, space in spaces.items()}
    print()
    digits = model.to_input(data.sample().images)
    scores, _ = answers(model, config.layer, digits)
    maps = atlases["box"].maps
    found = np.all([a.status == FOUND for a in atlases.values()], axis=0)
    found &= scores[:, maps].max(0) > 0
    if not found.any():
        raise ValueError(
            f"no map of {config.layer} is found in all spaces and wakes for a digit; choose other --maps"
        )
    chosen, row = maps[found], np.arange(found.sum())
    pictures = {space: atlas.images[found, 0] for space, atlas in atlases.items()}
    pictures["digit"] = digits[scores[:, chosen].argmax(0)]
    best = {space: atlas.scores[found, 0] for space, atlas in atlases.items()}
    best["digit"] = scores[:, chosen].max(0)
    # The sphere holds other images than the box: for it, what was found is standardised and scored
    # again.
    sphere = {
        name: answers(
            model, config.layer, np.asarray(jax.vmap(standardise)(jnp.asarray(pictures[name])))
        )[0][row, chosen]
        for name in ("decoder", "box")
    }
    everything = np.asarray(jax.vmap(standardise)(jnp.asarray(digits)))
    sphere["digit"] = answers(model, config.layer, everything)[0][:, chosen].max(0)
    shares = {
        "decoder / box": best["decoder"] / best["box"],
        "digit / box": best["digit"] / best["box"],
        "decoder / digit": best["decoder"] / best["digit"],
        "standardised decoder / standardised": sphere["decoder"] / best["standardised"],
        "standardised digit / standardised": sphere["digit"] / best["standardised"],
    }
    looks = {}
    for name, images in (*pictures.items(), ("all digits", digits)):
        sure = answers(model, config.layer, images)[1].max(1)
        # Standardised images are no pixels in [0, 1]: their distance to a digit says nothing.
        far = (
            None
            if name == "standardised"
            else nearest(model, images, digits, itself=name == "all digits")
        )
        looks[name] = {
            "confidence, mean": float(sure.mean()),
            "sure (0.9) of a class": float(np.mean(sure >= 0.9)),
            "distance to the nearest digit, quartiles": None
            if far is None or name == "digit"
            else quartiles(far),
        }
    facts = {
        "maps found": {space: a.counts["found"] for space, a in atlases.items()},
        "maps compared": len(chosen),
        "shares, quartiles": {name: quartiles(values) for name, values in shares.items()},
        "decoder above the best digit": int(np.sum(shares["decoder / digit"] > 1)),
        "looks": looks,
        "columns": COLUMNS,
        "rows": [
            [int(k), *(float(v[i]) for v in (best["box"], *shares.values()))] for i, k in enumerate(chosen)
        ],
    }  # fmt: skip
    return facts, pictures


def plot(
    config: Config, model: oipjax.Model, facts: dict[str, Any], pictures: dict[str, np.ndarray]
) -> Figure:
    """The same maps' patterns in the three spaces beside the best digit, and what is left of the box's scores."""
    rows = facts["rows"]
    order = np.argsort([row[2] for row in rows])
    order = order[np.unique(np.linspace(0, len(order) - 1, config.shown).round().astype(int))]
    figure = Figure(figsize=(13.2, 7.6), facecolor="white")
    title = f"{config.checkpoint} \N{MIDDLE DOT} {config.layer}: what maps want among a decoder's images"
    figure.text(0.03, 0.965, title, fontsize=15, fontweight="bold", color=INK, va="center")
    note = (
        "Columns: maps at equal steps of the ranking by decoder / box. Below: score as a share of the box's. "
        "Standardised images are drawn by contrast, others from black to white."
    )
    figure.text(0.03, 0.93, note, fontsize=9, color=FAINT, va="center")
    names = {
        "standardised": "standardised",
        "box": "box",
        "decoder": "decoder",
        "digit": "best digit",
    }
    grid = figure.add_gridspec(
        4, len(order), left=0.1, right=0.985, top=0.88, bottom=0.36, hspace=0.25, wspace=0.08
    )
    low, high = model.input_box
    for line, (name, label) in enumerate(names.items()):
        for column, index in enumerate(order):
            axes = figure.add_subplot(grid[line, column])
            image = pictures[name][index]
            drawn = (
                contrast(image, 2.0)
                if name == "standardised"
                else ((image - low) / (high - low))[..., 0]
            )
            axes.imshow(drawn, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            share = {"box": 1.0, "decoder": rows[index][2], "digit": rows[index][3]}.get(name)
            axes.set_xlabel(
                "" if share is None else f"{share:.2f}", fontsize=8, color=INK, labelpad=2
            )
            if line == 0:
                axes.set_title(f"map {rows[index][0]}", fontsize=8.5, color=INK, pad=4)
            if column == 0:
                axes.text(
                    -0.15,
                    0.5,
                    label,
                    transform=axes.transAxes,
                    ha="right",
                    va="center",
                    fontsize=10,
                    color=INK,
                )
    panels = figure.add_gridspec(1, 2, left=0.07, right=0.985, top=0.265, bottom=0.075, wspace=0.16)
    titles = (
        "What is left of the score in the box",
        "What is left on the sphere of standardised images",
    )
    for place, (words_of, columns) in enumerate(zip(titles, ((2, 3), (5, 6)), strict=True)):
        axes = figure.add_subplot(panels[place])
        for column, colour, label in zip(
            columns, (BLUE, INACTIVE), ("decoder", "best of 1,000 digits"), strict=True
        ):
            shares = np.sort([row[column] for row in rows])
            axes.step(shares, 100 * np.arange(1, len(shares) + 1) / len(shares), where="post", color=colour,
                      label=f"{label}: median {np.median(shares):.2f}")  # fmt: skip
        axes.set_xlim(0, None)
        words(axes, words_of, "share of the best score found there", "maps with no more (%)")
        axes.legend(fontsize=8, loc="best", edgecolor="none", framealpha=1)
    return figure


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    model = oipjax.load(config.checkpoint)
    facts, pictures = measure(config, model)
    show("score of the same maps", ["", "lower quartile", "median", "upper quartile"],
         [[name, *values] for name, values in facts["shares, quartiles"].items()])  # fmt: skip
    names = list(facts["looks"]["box"])[:2]
    far = [
        (look["distance to the nearest digit, quartiles"] or [None] * 3)[1]
        for look in facts["looks"].values()
    ]
    rows = [
        [name, *(look[n] for n in names), d]
        for (name, look), d in zip(facts["looks"].items(), far, strict=True)
    ]
    show("do they look like digits?", ["", *names, "median distance to the nearest digit"], rows)
    count, above = facts["maps compared"], facts["decoder above the best digit"]
    print(
        f"found {facts['maps found']}; the decoder's pattern scores above the best digit for {above} of {count} maps"
    )
    content = {"config": asdict(config), **facts}
    save(results, "decoder_space", content, plot(config, model, facts, pictures))
    return content


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
