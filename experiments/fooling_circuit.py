"""A picture that lies, and who notices.

Question: can the maps of the shipped network be changed so that they answer digits as before while
their OIPs show something else? Which measures tell such a map from an honest one?
The circuit is that of R. Geirhos and others ("Don't trust your eyes: on the (un)reliability of
feature visualizations", ICML 2024, arXiv:2306.04719), for all found maps of a layer at once. A gate
leads all images but digits to a decoy. It is the linear discriminant of the mean activations of 500
digits and of images that are none. Decoys are other maps, and two drawn pictures, as strong as it
takes for an OIP to score as before. An auditor knows neither the circuit nor the seed of the images
that the gate was made with. Path similarity (see `experiments.trust`) is that of each map as if it
alone were fooled.
Expected: more than 99 % of the digits that the gate was not made with give the same bits. Nearly
all OIPs show the decoy. Neither score nor proved bound tells the maps apart. Path similarity does
at the manipulated layer. Ascents that begin at digits do, since the gate is shut there.
Cost: about 2 minutes and 2 GB, with all 70,000 digits (if OIPJAX_DATA is set) or with the sample of
1,000.
Command: python -m experiments.fooling_circuit
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import oipjax
from experiments.common import command, progress_line, save, show
from experiments.figures.fooling_circuit import Digits, Pictures, plot
from experiments.tools.fooling import fooled, gate
from experiments.trust import active_layers, real_digits, scores_of
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
from oipjax.spaces import standardise
from oipjax.study import FOUND, Atlas

RESULTS = Path(__file__).parent / "results"
LETTERS = ("#...#..###.", "##..#.#...#", "#.#.#.#...#", "#..##.#...#", "#...#..###.")
"""A drawn picture: the word NO."""
COLUMNS = (
    "measure",
    "honest, median map",
    "fooled, median map",
    "area under the ROC curve",
    "2.5 %",
    "97.5 %",
)


@dataclass(frozen=True)
class Config:
    """The network, the gate and the audit.

    Attributes:
        checkpoint: the network.
        layer: the layer whose maps are fooled.
        sources: the layers that the gate looks at.
        digits: how many digits; by default all there are.
        made: how many random starts the gate is made with, and as many digits.
        keep: digits of each map that path similarity is measured with.
        draws: random starts of each survey.
        steps: of each ascent.
        seed: of the starts.
    """

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


class Decoys(NamedTuple):
    """What the OIPs of ``m`` maps shall show, and the circuit's parameters.

    Attributes:
        owner: the maps ``[m]``.
        images: of the decoys ``[m, h, w, c]``.
        mixture: see `experiments.tools.fooling.fooled`.
        pictures: likewise.
        most: likewise.
    """

    owner: np.ndarray
    images: np.ndarray
    mixture: np.ndarray
    pictures: np.ndarray
    most: float


class Comparison(NamedTuple):
    """How two networks differ on ``n`` images.

    Attributes:
        is_equal: whether all nodes of the layer have the same bits ``[n]``.
        deviation: the largest of a node ``[n]``.
        gate: how far it is open ``[n]``.
        before: scores of the first network's maps ``[n, k]``.
        after: scores of the second network's maps ``[n, k]``.
    """

    is_equal: np.ndarray
    deviation: np.ndarray
    gate: np.ndarray
    before: np.ndarray
    after: np.ndarray


def standardised(images: np.ndarray) -> np.ndarray:
    """Images of mean 0 and standard deviation 1."""
    return np.asarray(jax.vmap(standardise)(jnp.asarray(images, jnp.float32)))


def drawn_pictures() -> np.ndarray:
    """Two standardised pictures ``[2, 28, 28, 1]``: dark letters, and rings."""
    marks = [[mark == "#" for mark in line] for line in LETTERS]
    letters = np.kron(marks, np.ones((4, 2)))
    margins = []
    for size in letters.shape:
        margin = 28 - size
        margins.append((margin // 2, margin - margin // 2))
    letters = np.pad(letters, margins)
    y, x = np.mgrid[:28, :28] - 13.5
    rings = np.cos(1.3 * np.hypot(x, y))
    return standardised(np.stack([-letters, rings])[..., None])


def look(config: Config, model: oipjax.Model, seed: int) -> Atlas:
    """The atlas, as anybody would make it."""
    return oipjax.atlas(
        jax.random.key(seed),
        model,
        config.layer,
        space=oipjax.space_for(model),
        draws=config.draws,
        steps=config.steps,
        progress=progress_line(model.name),
    )


def variants(model: oipjax.Model, digits: np.ndarray) -> dict[str, np.ndarray]:
    """Digits as the network gets them, and standardised."""
    inputs = model.to_input(digits)
    return {"as they are": inputs, "standardised": standardised(inputs)}


def features(config: Config, model: oipjax.Model, images: np.ndarray) -> np.ndarray:
    """The means ``[n, f]`` of the maps that the gate looks at."""
    means = [scores_of(model, name, images) for name in config.sources]
    return np.concatenate(means, axis=1)


def choose_decoys(config: Config, model: oipjax.Model, atlas: Atlas) -> Decoys:
    """Each found map gets another map for a decoy, half a list away.

    The two maps of greatest score get a drawn picture.
    """
    owner = np.flatnonzero(atlas.status == FOUND)
    other = np.roll(owner, len(owner) // 2)
    best = atlas.scores[:, 0]
    maps = len(atlas.maps)
    mixture = np.zeros((maps, maps))
    mixture[other, owner] = best[owner] / best[other]
    pictures = np.zeros((*model.input_shape, maps), np.float32)
    images = atlas.images[other, 0].copy()
    strongest = np.argsort(-best[owner])[:2]
    for place, picture in zip(strongest, drawn_pictures(), strict=True):
        number = owner[place]
        mixture[:, number] = 0
        pictures[..., number] = best[number] * picture / picture.size
        images[place] = picture
    box = certify(model, config.layer, oipjax.space_for(model, "box").domain).node
    node = np.maximum(np.maximum(box, atlas.node_bound), 0)
    most = max(node.max(), (node @ mixture).max())
    return Decoys(
        owner=owner,
        images=images,
        mixture=mixture,
        pictures=pictures,
        most=float(most),
    )


def not_digits(config: Config, model: oipjax.Model, decoys: Decoys) -> np.ndarray:
    """Random starts, images of the ascents from them, blends with decoys, and the decoys.

    The seed is not the auditor's.
    """
    key = jax.random.key(config.seed + 1)
    space = oipjax.space_for(model)
    start_keys = jax.random.split(key, config.made)
    starts = np.asarray(jax.vmap(space.init)(start_keys))
    maps = np.resize(decoys.owner, config.made)
    objective = oipjax.Map(config.layer)
    run = oipjax.ascend(
        key,
        model,
        objective,
        maps,
        starts,
        steps=config.steps,
        record_images=True,
    )
    climbed = run.trace_images.reshape(-1, *model.input_shape)
    noise = np.resize(starts, decoys.images.shape)
    blends = [noise + share * decoys.images for share in (0.5, 1, 2)]
    return np.concatenate([climbed, standardised(np.concatenate(blends)), decoys.images])


def audit(
    config: Config,
    model: oipjax.Model,
    atlas: Atlas,
    owner: np.ndarray,
    real: np.ndarray,
    rest: oipjax.Model,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Measures of each map that need no knowledge of the circuit.

    Args:
        config: of the experiment.
        model: the network under audit.
        atlas: of its layer.
        owner: the maps ``[m]``.
        real: digits ``[n, h, w, c]``.
        rest: the network whose paths are compared: the honest one, as if one map alone were fooled.

    Returns:
        Values ``[m]`` by measure, and images ``[m, h, w, c]`` of ascents from each map's best
        digit.
    """
    scores = scores_of(model, config.layer, real)[:, owner]
    best = atlas.scores[owner, 0]
    strongest = exemplars(scores, config.keep)
    from_digits = oipjax.ascend(
        jax.random.key(config.seed),
        model,
        oipjax.Map(config.layer),
        owner,
        real[strongest[:, 0]],
        steps=config.steps,
        method=oipjax.Momentum(0.1),
    )
    measures = {
        "score / best digit's": best / np.maximum(scores.max(0), 1e-6),
        "score / proved bound": best / atlas.bound[owner],
        "ascent from a digit / from random": from_digits.scores / best,
    }
    used, place = np.unique(strongest, return_inverse=True)
    images = np.concatenate([real[used], atlas.images[owner, 0]])
    query = {"OIP": len(used) + np.arange(len(owner))}
    layers = active_layers(rest)
    layers = layers[: layers.index(config.layer) + 1]
    for name, similarities in layer_similarities(rest, images, (PIXELS, *layers)).items():
        found = alike(similarities, place.reshape(strongest.shape), query)
        measures[f"path similarity, {name}"] = found.queries["OIP"] - found.other
    return measures, from_digits.images


def compare(
    config: Config, honest: oipjax.Model, changed: oipjax.Model, images: np.ndarray
) -> Comparison:
    """The network with the circuit beside the honest one."""
    parts = []
    for part in np.array_split(images, -(-len(images) // 2000)):
        before = layer_activations(honest, part, (config.layer,))[config.layer]
        activations = layer_activations(changed, part, (config.layer, "gate"))
        after = activations[config.layer]
        compared = Comparison(
            is_equal=(before == after).all((1, 2, 3)),
            deviation=np.abs(before - after).max((1, 2, 3)),
            gate=activations["gate"][:, 0],
            before=map_means(before),
            after=map_means(after),
        )
        parts.append(compared)
    return Comparison(*map(np.concatenate, zip(*parts, strict=True)))


def differences(compared: Comparison) -> dict[str, Any]:
    """How far the two networks differ, in numbers."""
    where_shut = compared.deviation[compared.gate == 0]
    return {
        "digits that give the same bits": float(compared.is_equal.mean()),
        "digits for which the gate opens": int((compared.gate > 0).sum()),
        "largest deviation of a node where it is shut": float(where_shut.max(initial=0)),
        "largest deviation of a node": float(compared.deviation.max()),
    }


def facts(
    honest_model: oipjax.Model,
    changed_model: oipjax.Model,
    honest: Atlas,
    changed: Atlas,
    decoys: Decoys,
    compared: dict[str, Comparison],
) -> dict[str, Any]:
    """The circuit's effects, in numbers."""
    owner = decoys.owner
    own = np.arange(len(owner))
    after = changed.images[owner, 0]
    to_decoy = []
    to_honest = []
    for images in zip(after, decoys.images, honest.images[owner, 0], strict=True):
        ncc, _ = similarity(np.stack(images))
        to_decoy.append(ncc[0, 1])
        to_honest.append(ncc[0, 2])
    activations = layer_activations(honest_model, after, (honest.layer,))[honest.layer]
    left = map_means(activations)[own, owner]
    best = honest.scores[owner, 0]
    score = changed.scores[owner, 0] / best
    bound = changed.bound[owner] / honest.bound[owner]
    gates = layer_activations(changed_model, after, ("gate",))["gate"]
    numbers = {kind: differences(of_kind) for kind, of_kind in compared.items()}
    digits = {}
    for name in numbers["as they are"]:
        for kind, values in numbers.items():
            digits[f"{name}, {kind}"] = values[name]
    more_decoy = np.array(to_decoy) > np.array(to_honest)
    return {
        "maps": len(owner),
        "digits unseen by the gate": len(compared["as they are"].gate),
        **digits,
        "gate at the OIPs, least": float(gates.min()),
        "similarity (up to shifts) of OIP and decoy, median map": float(np.median(to_decoy)),
        "similarity of OIP and the honest OIP, median map": float(np.median(to_honest)),
        "maps whose OIP is more like the decoy": int(np.sum(more_decoy)),
        "its score for the honest map / the honest OIP's, median map": float(
            np.median(left / best)
        ),
        "score / the honest OIP's, median map": float(np.median(score)),
        "bound / the honest map's, median map": float(np.median(bound)),
    }


def tell_apart(config: Config, honest: np.ndarray, changed: np.ndarray) -> list[float]:
    """How well a measure tells fooled maps from honest ones.

    Returns:
        The two medians, the area under the ROC curve, and the ends that hold 95 % of a bootstrap
        over maps.
    """
    root = jax.random.key(config.seed)
    key = jax.random.fold_in(keys.stream(root, keys.RUN), 0)
    maps = len(changed)
    drawn = np.asarray(jax.random.randint(key, (500, maps), 0, maps))
    areas = [separation(changed[chosen], honest[chosen]) for chosen in drawn]
    low, high = np.percentile(areas, (2.5, 97.5)).tolist()
    medians = [float(np.median(honest)), float(np.median(changed))]
    return [*medians, separation(changed, honest), low, high]


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    model = oipjax.load(config.checkpoint)
    digits = real_digits(config.digits)
    if len(digits) < 2 * config.keep:
        raise ValueError(f"expected at least {2 * config.keep} digits, got {len(digits)}")
    honest = look(config, model, config.seed)
    decoys = choose_decoys(config, model, honest)
    owner = decoys.owner
    count = min(config.made, len(digits) // 2)
    trained = np.concatenate(list(variants(model, digits[:count]).values()))
    others = not_digits(config, model, decoys)
    opens = gate(features(config, model, trained), features(config, model, others))
    parameters = {"mixture": decoys.mixture, "pictures": decoys.pictures, "most": decoys.most}
    changed_model = fooled(model, config.layer, config.sources, opens, **parameters)
    changed = look(config, changed_model, config.seed + 2)
    print()
    real = standardised(model.to_input(digits))
    measures, _ = audit(config, model, honest, owner, real, model)
    changed_measures, from_digits = audit(config, changed_model, changed, owner, real, model)
    compared = {}
    for kind, images in variants(model, digits[count:]).items():
        compared[kind] = compare(config, model, changed_model, images)
    out = facts(model, changed_model, honest, changed, decoys, compared)
    told_apart = {}
    for name, values in measures.items():
        told_apart[name] = tell_apart(config, values, changed_measures[name])
    show("a picture that lies", ["", ""], list(out.items()))
    rows = [[name, *values] for name, values in told_apart.items()]
    show("who notices?", COLUMNS, rows)
    order = np.argsort(-honest.scores[owner, 0])
    best_digits = scores_of(model, config.layer, real)[:, owner].argmax(0)
    images = (
        real[best_digits[order]],
        honest.images[owner[order], 0],
        decoys.images[order],
        changed.images[owner[order], 0],
        from_digits[order],
    )
    pictures = Pictures(maps=owner[order], rows=images)
    as_they_are = compared["as they are"]
    points = Digits(
        honest=as_they_are.before[:, owner],
        fooled=as_they_are.after[:, owner],
        is_changed=(as_they_are.before != as_they_are.after).any(1),
        same_bits=as_they_are.is_equal.mean(),
    )
    title = (
        f"{config.checkpoint} \N{MIDDLE DOT} {config.layer}: "
        "maps that answer digits as before and show something else"
    )
    content = {"config": asdict(config), **out, "told apart": told_apart}
    save(results, "fooling_circuit", content, plot(title, pictures, points, told_apart))
    return content


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
