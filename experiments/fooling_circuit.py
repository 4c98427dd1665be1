"""A picture that lies, and who notices.

Question: can the maps of the shipped network be changed so that they answer digits as before while
    their OIPs show
something else; and which measures tell such a map from an honest one? The circuit is that of R.
Geirhos and others ("Don't trust your eyes: on the (un)reliability of feature visualizations", ICML
2024, arXiv:2306.04719), for all found maps of a layer at once: a gate, the linear discriminant of
mean activations of 500 digits and of images that are none, leads all but digits to a decoy. Decoys
are other maps, and two drawn pictures, as strong as it takes for an OIP to score as before. An
auditor knows neither the circuit nor the seed of the images that the gate was made with. Path
similarity (see `experiments.trust`) is that of each map as if it alone were fooled. Expected: more
than 99 % of the digits that the gate was not made with give the same bits; nearly all OIPs show the
decoy; neither score nor proved bound tells the maps apart. Path similarity does at the manipulated
layer, and ascents that begin at digits do, since they begin where the gate is shut. Cost: about 2
minutes and 2 GB, with all 70,000 digits (if OIPJAX_DATA is set) or with the sample of 1,000.
Command: python -m experiments.fooling_circuit
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import oipjax
from experiments.common import command, save, show
from experiments.tools.fooling import fooled, gate
from experiments.trust import real_digits, scores_of, words
from oipjax import keys
from oipjax.analysis import (
    PIXELS,
    alike,
    exemplars,
    layer_activations,
    layer_similarities,
    map_means,
    similarity,
)
from oipjax.analysis.readout import separation
from oipjax.bounds import certify
from oipjax.plots import BLUE, FAINT, INACTIVE, INK, contrast
from oipjax.spaces import standardise
from oipjax.study import FOUND, Atlas

RESULTS = Path(__file__).parent / "results"
LETTERS = ("#...#..###.", "##..#.#...#", "#.#.#.#...#", "#..##.#...#", "#...#..###.")


@dataclass(frozen=True)
class Config:
    """``made`` random starts and as many digits for the gate; ``keep`` digits of each map for path similarity."""

    checkpoint: str = "mnist-cnn"
    layer: str = "conv3"
    sources: tuple[str, ...] = ("pool1", "pool2")
    digits: int | None = None
    made: int = 500
    keep: int = 8
    draws: int = 4096
    steps: int = 100
    seed: int = 0


SMOKE = Config(digits=300, made=200, keep=2, draws=64, steps=6)


@dataclass(frozen=True)
class Decoys:
    """Of the maps ``owner [m]``: what their OIPs shall show, ``images [m, h, w, c]``, and the circuit's parameters."""

    owner: np.ndarray
    images: np.ndarray
    mixture: np.ndarray
    pictures: np.ndarray
    most: float


def drawn() -> np.ndarray:
    """Two pictures ``[2, 28, 28, 1]`` of mean 0 and standard deviation 1: dark letters, and rings."""
    letters = np.kron([[mark == "#" for mark in line] for line in LETTERS], np.ones((4, 2)))
    rows, columns = 28 - letters.shape[0], 28 - letters.shape[1]
    letters = np.pad(
        letters, ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2))
    )
    y, x = np.mgrid[:28, :28] - 13.5
    pictures = np.stack([-letters, np.cos(1.3 * np.hypot(x, y))])[..., None]
    return np.asarray(jax.vmap(standardise)(jnp.asarray(pictures, jnp.float32)))


def look(config: Config, model: oipjax.Model, seed: int) -> Atlas:
    """The atlas, as anybody would make it."""
    return oipjax.atlas(
        jax.random.key(seed), model, config.layer, space=oipjax.space_for(model), draws=config.draws,
        steps=config.steps,
        progress=lambda phase, done, total: print(f"{model.name}: {phase} {done}/{total}   ", end="\r", flush=True),
    )  # fmt: skip


def both(model: oipjax.Model, digits: np.ndarray) -> np.ndarray:
    """Digits as the network gets them, and standardised."""
    inputs = model.to_input(digits)
    return np.concatenate([inputs, np.asarray(jax.vmap(standardise)(jnp.asarray(inputs)))])


def features(config: Config, model: oipjax.Model, images: np.ndarray) -> np.ndarray:
    """What the gate looks at, ``[n, f]``."""
    return np.concatenate([scores_of(model, name, images) for name in config.sources], axis=1)


def plan(config: Config, model: oipjax.Model, atlas: Atlas) -> Decoys:
    """Each found map gets the map half a list away for a decoy, the two of greatest score a drawn picture."""
    owner = np.flatnonzero(atlas.status == FOUND)
    best, maps = atlas.scores[:, 0], len(atlas.maps)
    other = np.roll(owner, len(owner) // 2)
    mixture, pictures = np.zeros((maps, maps)), np.zeros((*model.input_shape, maps), np.float32)
    mixture[other, owner] = best[owner] / best[other]
    images = atlas.images[other, 0].copy()
    for place, picture in zip(np.argsort(-best[owner])[:2], drawn(), strict=True):
        mixture[:, owner[place]] = 0
        pictures[..., owner[place]] = best[owner[place]] * picture / picture.size
        images[place] = picture
    box = certify(model, config.layer, oipjax.space_for(model, "box").domain).node
    node = np.maximum(np.maximum(box, atlas.node_bound), 0)
    return Decoys(owner, images, mixture, pictures, float(max(node.max(), (node @ mixture).max())))


def not_digits(config: Config, model: oipjax.Model, decoys: Decoys) -> np.ndarray:
    """Random starts, what ascents from them pass through, blends with decoys; of another seed than the auditor's."""
    key, space = jax.random.key(config.seed + 1), oipjax.space_for(model)
    starts = np.asarray(jax.vmap(space.init)(jax.random.split(key, config.made)))
    maps = np.resize(decoys.owner, config.made)
    run = oipjax.ascend(
        key, model, oipjax.Map(config.layer), maps, starts, steps=config.steps, record_images=True
    )
    noise = np.resize(starts, decoys.images.shape)
    blends = np.concatenate([noise + share * decoys.images for share in (0.5, 1, 2)])
    blends = np.asarray(jax.vmap(standardise)(jnp.asarray(blends, jnp.float32)))
    return np.concatenate([run.trace_images.reshape(-1, *model.input_shape), blends, decoys.images])


def audit(
    config: Config,
    model: oipjax.Model,
    atlas: Atlas,
    owner: np.ndarray,
    real: np.ndarray,
    rest: oipjax.Model,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What can be measured of each map without knowing the circuit; and the images of ascents from its best digit.

    Paths are those in the network ``rest``: the honest one, as if one map alone were fooled.
    """
    scores = scores_of(model, config.layer, real)[:, owner]
    best, strongest = atlas.scores[owner, 0], exemplars(scores, config.keep)
    from_digits = oipjax.ascend(
        jax.random.key(config.seed), model, oipjax.Map(config.layer), owner, real[strongest[:, 0]],
        steps=config.steps, method=oipjax.Momentum(0.1),
    )  # fmt: skip
    used, place = np.unique(strongest, return_inverse=True)
    layers = [
        name for name in rest.layers if name in rest.nonlinearities and not name.startswith("pool")
    ]
    layers = layers[: layers.index(config.layer) + 1]
    pairs = layer_similarities(
        rest, np.concatenate([real[used], atlas.images[owner, 0]]), (PIXELS, *layers)
    )
    query = {"OIP": len(used) + np.arange(len(owner))}
    found = {
        name: alike(square, place.reshape(strongest.shape), query) for name, square in pairs.items()
    }
    measures = {
        "score / best digit's": best / np.maximum(scores.max(0), 1e-6),
        "score / proved bound": best / atlas.bound[owner],
        "ascent from a digit / from random": from_digits.scores / best,
        **{f"path similarity, {name}": of.queries["OIP"] - of.other for name, of in found.items()},
    }
    return measures, from_digits.images


def identical(
    config: Config, model: oipjax.Model, liar: oipjax.Model, images: np.ndarray
) -> dict[str, Any]:
    """How the two differ on digits as they are, and standardised: pairs of numbers; and scores ``[2, n, k]``."""
    equal, largest, gates, scores = [], [], [], []
    for part in np.array_split(images, -(-len(images) // 2000)):
        before = layer_activations(model, part, (config.layer,))[config.layer]
        after = layer_activations(liar, part, (config.layer, "gate"))
        equal.append((before == after[config.layer]).all((1, 2, 3)))
        largest.append(np.abs(before - after[config.layer]).max((1, 2, 3)))
        gates.append(after["gate"][:, 0])
        scores.append(np.stack([map_means(before), map_means(after[config.layer])]))
    halves = [np.split(np.concatenate(values), 2) for values in (equal, largest, gates)]
    return {
        "digits that give the same bits": [float(half.mean()) for half in halves[0]],
        "digits for which the gate opens": [int((half > 0).sum()) for half in halves[2]],
        "largest deviation of a node where it is shut": [
            float(most[opened == 0].max(initial=0))
            for most, opened in zip(halves[1], halves[2], strict=True)
        ],
        "largest deviation of a node": [float(half.max()) for half in halves[1]],
        "scores": np.concatenate(scores, axis=1)[:, : len(images) // 2],
    }


def apart(config: Config, honest: np.ndarray, lies: np.ndarray) -> list[float]:
    """Medians of a measure, how well it tells maps apart, and 95 % of a bootstrap over maps of that."""
    key = jax.random.fold_in(keys.stream(jax.random.key(config.seed), keys.RUN), 0)
    drawn = np.asarray(jax.random.randint(key, (500, len(lies)), 0, len(lies)))
    ends = np.percentile([separation(lies[maps], honest[maps]) for maps in drawn], (2.5, 97.5))
    return [
        float(np.median(honest)),
        float(np.median(lies)),
        separation(lies, honest),
        *ends.tolist(),
    ]


def facts(
    model: oipjax.Model,
    liar: oipjax.Model,
    honest: Atlas,
    lying: Atlas,
    decoys: Decoys,
    same: dict[str, Any],
) -> dict[str, Any]:
    """What the circuit does, in numbers."""
    owner, after = decoys.owner, lying.images[decoys.owner, 0]
    three = zip(after, decoys.images, honest.images[owner, 0], strict=True)
    to_decoy, to_self = np.transpose([similarity(np.stack(images))[0][0, 1:] for images in three])
    left = map_means(layer_activations(model, after, (honest.layer,))[honest.layer])[
        np.arange(len(owner)), owner
    ]
    digits = {
        f"{name}, {kind}": value
        for name in same
        if name != "scores"
        for kind, value in zip(("as they are", "standardised"), same[name], strict=True)
    }
    return {
        "maps": len(owner),
        "digits unseen by the gate": same["scores"].shape[1],
        **digits,
        "gate at the OIPs, least": float(layer_activations(liar, after, ("gate",))["gate"].min()),
        "similarity (up to shifts) of OIP and decoy, median map": float(np.median(to_decoy)),
        "similarity of OIP and the honest OIP, median map": float(np.median(to_self)),
        "maps whose OIP is more like the decoy": int(np.sum(to_decoy > to_self)),
        "its score for the honest map / the honest OIP's, median map": float(
            np.median(left / honest.scores[owner, 0])
        ),
        "score / the honest OIP's, median map": float(
            np.median(lying.scores[owner, 0] / honest.scores[owner, 0])
        ),
        "bound / the honest map's, median map": float(
            np.median(lying.bound[owner] / honest.bound[owner])
        ),
    }


def plot(
    config: Config, honest: Atlas, owner: np.ndarray, pictures: list[np.ndarray], scores: np.ndarray,
    out: dict[str, Any],
) -> Figure:  # fmt: skip
    """Pictures of eight maps before and after; what digits do; and how well each measure tells the maps apart."""
    figure = Figure(figsize=(13.2, 5.9), facecolor="white")
    title = f"{config.checkpoint} \N{MIDDLE DOT} {config.layer}: maps that answer digits as before and show something else"
    figure.text(0.03, 0.955, title, fontsize=15, fontweight="bold", color=INK, va="center")
    order = np.argsort(-honest.scores[owner, 0])
    chosen = order[np.unique(np.r_[0, 1, np.linspace(2, len(order) - 1, 6).round().astype(int)])]
    grid = figure.add_gridspec(
        5, 8, left=0.105, right=0.6, top=0.86, bottom=0.03, wspace=0.06, hspace=0.06
    )
    names = ("best digit", "OIP, honest", "decoy", "OIP, fooled", "fooled,\nfrom the digit")
    for row, (name, images) in enumerate(zip(names, pictures, strict=True)):
        for column, index in enumerate(chosen):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(
                contrast(images[index], 2.0), cmap="gray", vmin=0, vmax=1, interpolation="nearest"
            )
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if column == 0:
                axes.set_ylabel(
                    name, fontsize=10, color=INK, rotation=0, ha="right", va="center", labelpad=8
                )
            if row == 0:
                axes.set_title(f"map {owner[index]}", fontsize=9, color=INK, pad=3)
    axes = figure.add_axes((0.785, 0.58, 0.195, 0.28))
    changed = (scores[0] != scores[1]).any(1)
    for part, colour in ((scores[:, ~changed][:, :2000], BLUE), (scores[:, changed], INACTIVE)):
        before, after = part[..., owner].reshape(2, -1)
        axes.plot(before, after, ".", color=colour, markersize=2.5, alpha=0.5, rasterized=True)
    share = 100 * out["digits that give the same bits, as they are"]
    heading = f"{share:.2f} % of {out['digits unseen by the gate']:,} digits give the same bits"
    figure.text(0.645, 0.885, heading, fontsize=10, color=INK, fontweight="bold")
    words(axes, "", "score of a map for a digit, honest", "the same, fooled")
    axes = figure.add_axes((0.785, 0.1, 0.195, 0.33))
    rows = list(out["told apart"].items())[::-1]
    value, low, high = np.array([row[2:] for _, row in rows]).T
    colours = [BLUE if end > 0.5 else FAINT for end in low]
    axes.barh([name for name, _ in rows], value, color=colours, height=0.62)
    axes.hlines(range(len(rows)), low, high, color=INK, linewidth=1.2)
    for place, area in enumerate(value):
        axes.text(
            0.03, place, f"{area:.2f}", fontsize=8, va="center", color="white", fontweight="bold"
        )
    axes.axvline(0.5, color=INK, linewidth=1, linestyle=":")
    axes.set_xlim(0, 1)
    words(axes, "", "area under the ROC curve (0.5: by chance)", "")
    figure.text(0.645, 0.455, "Who notices?", fontsize=10, color=INK, fontweight="bold")
    return figure


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    model, digits = oipjax.load(config.checkpoint), real_digits(config.digits)
    if len(digits) < 2 * config.keep:
        raise ValueError(f"expected at least {2 * config.keep} digits, got {len(digits)}")
    honest = look(config, model, config.seed)
    decoys = plan(config, model, honest)
    owner, count = decoys.owner, min(config.made, len(digits) // 2)
    trained, unseen = both(model, digits[:count]), both(model, digits[count:])
    opens = gate(
        features(config, model, trained), features(config, model, not_digits(config, model, decoys))
    )
    liar = fooled(
        model, config.layer, config.sources, opens, decoys.mixture, decoys.pictures, decoys.most
    )
    lying = look(config, liar, config.seed + 2)
    print()
    real = np.asarray(jax.vmap(standardise)(jnp.asarray(model.to_input(digits))))
    told, _ = audit(config, model, honest, owner, real, model)
    lies, escaped = audit(config, liar, lying, owner, real, model)
    same = identical(config, model, liar, unseen)
    out = facts(model, liar, honest, lying, decoys, same)
    out["told apart"] = {name: apart(config, told[name], lies[name]) for name in told}
    show(
        "a picture that lies",
        ["", ""],
        [[name, value] for name, value in out.items() if name != "told apart"],
    )
    columns = [
        "measure",
        "honest, median map",
        "fooled, median map",
        "area under the ROC curve",
        "2.5 %",
        "97.5 %",
    ]
    show("who notices?", columns, [[name, *row] for name, row in out["told apart"].items()])
    content = {"config": asdict(config), **out}
    real_best = real[scores_of(model, config.layer, real)[:, owner].argmax(0)]
    pictures = [real_best, honest.images[owner, 0], decoys.images, lying.images[owner, 0], escaped]
    save(
        results,
        "fooling_circuit",
        content,
        plot(config, honest, owner, pictures, same["scores"], out),
    )
    return content


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
