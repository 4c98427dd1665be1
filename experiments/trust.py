"""Can the picture be believed?

Question: is the image that an ascent finds for a map stronger than every real digit, and is it
processed as real digits are that excite the same map? The measure is path similarity (R. Geirhos
and others, "Don't trust your eyes: on the (un)reliability of feature visualizations", ICML 2024,
arXiv:2306.04719). It is Spearman's correlation of all activations of a layer, on a scale where two
digits that excite the same map are at 1 and two that excite different maps are at 0. Means over
maps are taken first. Real digits are made images of the space as well: they are clipped into the
box (nothing changes) or standardised.
Expected: no digit is better than the OIP of its map. As in the paper, in the early layers an OIP is
less similar to the map's digits than digits of other maps are (below 0). It approaches them only
near the map's own layer. An image on its way to the OIP that scores as the digits do is nearer to
them than the OIP.
Cost: about 2 minutes and 3 GB, with all 70,000 digits (if OIPJAX_DATA is set) or with the sample of
1,000.
Command: python -m experiments.trust
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import oipjax
from experiments.common import command, progress_line, save, show
from experiments.figures.trust import DIGIT, NOISE, OTHER, OWN, SHOWN, STAGE, STYLES, Example, plot
from oipjax import keys
from oipjax.analysis import (
    PIXELS,
    alike,
    exemplars,
    layer_activations,
    layer_similarities,
    map_means,
    relative,
)
from oipjax.data import mnist as data
from oipjax.spaces import Space
from oipjax.study import FOUND

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("map", "OIP", "best digit", "bound")


@dataclass(frozen=True)
class Config:
    """The maps, and the digits that they are compared with.

    Attributes:
        checkpoint: the network.
        layers: the layers.
        spaces: names of the image spaces.
        digits: how many digits; by default all there are.
        keep: digits of each map that path similarity is measured with.
        draws: random starts of each survey.
        steps: of each ascent.
        seed: of the starts.
    """

    checkpoint: str = "mnist-cnn"
    layers: tuple[str, ...] = ("conv2", "conv3")
    spaces: tuple[str, ...] = ("standardised", "box")
    digits: int | None = None
    keep: int = 8
    draws: int = 4096
    steps: int = 100
    seed: int = 0


SMOKE = Config(
    layers=("conv3",),
    spaces=("standardised",),
    digits=60,
    keep=2,
    draws=64,
    steps=6,
)


class Maps(NamedTuple):
    """The found maps of a layer, each with its OIP and its digits.

    Attributes:
        numbers: of the maps in the layer ``[k]``.
        images: the OIPs ``[k, h, w, c]``.
        best: their scores ``[k]``.
        bound: the proved limits of the scores ``[k]``.
        digit_scores: ``[n, k]``.
        strongest: the digits that excite each map most, int ``[k, r]``.
    """

    numbers: np.ndarray
    images: np.ndarray
    best: np.ndarray
    bound: np.ndarray
    digit_scores: np.ndarray
    strongest: np.ndarray

    @property
    def top(self) -> np.ndarray:
        """The score of each map's best digit ``[k]``."""
        return self.digit_scores.max(0)

    @property
    def ratio(self) -> np.ndarray:
        """The score of the OIP by that of the best digit ``[k]``; infinite where none excites."""
        is_excited = self.top > 0
        divisor = np.where(is_excited, self.top, 1)
        return np.where(is_excited, self.best / divisor, np.inf)

    @property
    def all_excite(self) -> np.ndarray:
        """Whether all of the map's strongest digits excite it, bool ``[k]``."""
        return np.take_along_axis(self.digit_scores.T, self.strongest, 1).min(1) > 0

    def subset(self, chosen: np.ndarray) -> "Maps":
        """The chosen maps, bool ``[k]``."""
        return Maps(
            numbers=self.numbers[chosen],
            images=self.images[chosen],
            best=self.best[chosen],
            bound=self.bound[chosen],
            digit_scores=self.digit_scores[:, chosen],
            strongest=self.strongest[chosen],
        )


class Paths(NamedTuple):
    """How the network processes the pictures of ``k`` maps.

    Attributes:
        curves: ``{layer: {kind of picture: (value, low, high)}}``.
        stages: images of the ascents on their way ``[k, h, w, c]``.
        matched: their scores as shares of the digits' mean score ``[k]``.
    """

    curves: dict[str, Any]
    stages: np.ndarray
    matched: np.ndarray


def real_digits(count: int | None) -> np.ndarray:
    """MNIST's digits, those of the test first.

    They are all 70,000 if ``OIPJAX_DATA`` is set, else the sample of 1,000.
    """
    if not os.environ.get(data.ENVIRONMENT):
        return data.sample().images[:count]
    whole = data.load()
    return np.concatenate([whole.test.images, whole.train.images])[:count]


def scores_of(model: oipjax.Model, layer: str, images: np.ndarray) -> np.ndarray:
    """Scores ``[n, k]`` of all maps, for 2,000 images at a time.

    Activations of more images at once would not fit into memory.
    """
    scores = []
    for part in np.array_split(images, -(-len(images) // 2000)):
        activations = layer_activations(model, part, (layer,))[layer]
        scores.append(map_means(activations))
    return np.concatenate(scores)


def active_layers(model: oipjax.Model) -> list[str]:
    """The layers behind a nonlinearity, pools left out."""
    return [
        name
        for name in model.layers
        if name in model.nonlinearities and not name.startswith("pool")
    ]


def look(config: Config, model: oipjax.Model, name: str, layer: str, real: np.ndarray) -> Maps:
    """The found maps of a layer over an image space, with their digits."""
    atlas = oipjax.atlas(
        jax.random.key(config.seed),
        model,
        layer,
        space=oipjax.space_for(model, name),
        draws=config.draws,
        steps=config.steps,
        exemplars=real[:1000],
        progress=progress_line(f"{name} {layer}"),
    )
    is_found = atlas.status == FOUND
    scores = scores_of(model, layer, real)[:, is_found]
    return Maps(
        numbers=atlas.maps[is_found],
        images=atlas.images[is_found, 0],
        best=atlas.scores[is_found, 0],
        bound=atlas.bound[is_found],
        digit_scores=scores,
        strongest=exemplars(scores, config.keep),
    )


def measure(
    config: Config, model: oipjax.Model, name: str, layer: str, digits: np.ndarray
) -> dict[str, Any]:
    """Both studies of one layer over one image space; pictures are under ``examples``."""
    space = oipjax.space_for(model, name)
    inputs = jnp.asarray(model.to_input(digits))
    real = np.asarray(jax.vmap(space.project)(inputs))
    maps = look(config, model, name, layer, real)
    is_compared = maps.all_excite
    if is_compared.sum() < 2:
        raise ValueError(
            f"expected {config.keep} digits or more that excite each map of {layer}; "
            "use more digits"
        )
    compared = maps.subset(is_compared)
    processed = paths(config, model, space, layer, compared, real)
    finite = maps.ratio[np.isfinite(maps.ratio)]
    return {
        "space": name,
        "layer": layer,
        "digits": len(real),
        "maps found": len(maps.numbers),
        "maps that no digit excites": int(np.sum(maps.top <= 0)),
        "maps with a digit better than the OIP": int(np.sum(maps.ratio < 1)),
        "OIP / best digit, least": float(finite.min()),
        "OIP / best digit, quartiles": quartiles(finite),
        "OIP / best digit, most": float(finite.max()),
        "best of n digits / OIP, median map": growth(maps),
        "best digit / bound, median map": float(np.nanmedian(maps.top / maps.bound)),
        "OIP / bound, median map": float(np.nanmedian(maps.best / maps.bound)),
        "maps whose paths are compared": len(compared.numbers),
        "score on its way / of the digits, quartiles": quartiles(processed.matched),
        "path similarity": processed.curves,
        "columns": COLUMNS,
        "rows": table(maps),
        "examples": examples(compared, real, processed.stages),
    }


def quartiles(values: np.ndarray) -> list[float]:
    """The quartiles."""
    return np.percentile(values, (25, 50, 75)).tolist()


def growth(maps: Maps) -> list[list[Any]]:
    """How the best of the first n digits compares with the OIP, in the median map."""
    digits = len(maps.digit_scores)
    sizes = {min(size, digits) for size in (10, 100, 1000, 10000, digits)}
    rows = []
    for size in sorted(sizes):
        share = maps.digit_scores[:size].max(0) / maps.best
        rows.append([size, float(np.median(share))])
    return rows


def table(maps: Maps) -> list[list[Any]]:
    """A row for each map, in the order of `COLUMNS`."""
    rows = []
    for place, number in enumerate(maps.numbers):
        scores = (maps.best[place], maps.top[place], maps.bound[place])
        rows.append([int(number), *map(float, scores)])
    return rows


def examples(maps: Maps, real: np.ndarray, stages: np.ndarray) -> list[Example]:
    """Some maps, from the least ratio to the greatest."""
    order = np.argsort(maps.ratio)
    places = np.linspace(0, len(order) - 1, SHOWN).round()
    chosen = []
    for place in order[np.unique(places.astype(int))]:
        digit = real[maps.digit_scores[:, place].argmax()]
        example = Example(
            number=int(maps.numbers[place]),
            ratio=float(maps.ratio[place]),
            pictures=(digit, stages[place], maps.images[place]),
        )
        chosen.append(example)
    return chosen


def paths(
    config: Config,
    model: oipjax.Model,
    space: Space,
    layer: str,
    maps: Maps,
    real: np.ndarray,
) -> Paths:
    """Path similarity, layer by layer, of each kind of picture to the maps' strongest digits."""
    root = jax.random.key(config.seed)
    key = jax.random.fold_in(keys.stream(root, keys.RUN), 0)
    for_starts, for_digits, for_error = jax.random.split(key, 3)
    count = len(maps.numbers)
    own = np.arange(count)
    start_keys = jax.random.split(for_starts, count)
    starts = np.asarray(jax.vmap(space.init)(start_keys))
    climbed = oipjax.ascend(
        key,
        model,
        oipjax.Map(layer),
        maps.numbers,
        starts,
        space=space,
        steps=config.steps,
        reports=8,
        record_images=True,
    )
    goal = np.take_along_axis(maps.digit_scores, maps.strongest.T, 0).mean(0)
    share = np.maximum(climbed.trace, 1e-9) / goal[:, None]
    nearest = np.abs(np.log(share)).argmin(1)
    stages = climbed.trace_images[own, nearest]
    used, place = np.unique(maps.strongest, return_inverse=True)
    at_random = jax.random.choice(for_digits, len(real), (count,))
    random_digits = real[np.asarray(at_random)]
    images = np.concatenate([real[used], maps.images, stages, starts, random_digits])
    first_oip, first_stage, first_start, first_digit = len(used) + count * np.arange(4)
    queries = {
        OWN: first_oip + own,
        STAGE: first_stage + own,
        OTHER: first_oip + np.roll(own, count // 2),
        NOISE: first_start + own,
        DIGIT: first_digit + own,
    }
    layers = (PIXELS, *active_layers(model), model.layers[-1])
    curves = {}
    for name, similarities in layer_similarities(model, images, layers).items():
        found = alike(similarities, place.reshape(maps.strongest.shape), queries)
        curves[name] = {kind: relative(for_error, found, kind) for kind in queries}
        curves[name]["same map"] = float(found.same.mean())
        curves[name]["other map"] = float(found.other.mean())
    return Paths(curves=curves, stages=stages, matched=climbed.trace[own, nearest] / goal)


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    model = oipjax.load(config.checkpoint)
    digits = real_digits(config.digits)
    facts = []
    for layer in config.layers:
        for space in config.spaces:
            facts.append(measure(config, model, space, layer, digits))
    print()
    report(facts)
    cases = []
    for fact in facts:
        cases.append({name: value for name, value in fact.items() if name != "examples"})
    content = {"config": asdict(config), "cases": cases}
    save(results, "trust", content, plot(config.checkpoint, facts))
    return content


def report(facts: list[dict[str, Any]]) -> None:
    """Print the scores, and path similarities with their intervals."""
    hidden = ("space", "layer", "path similarity", "columns", "rows", "examples")
    names = [name for name in facts[0] if name not in hidden]
    cells = []
    for name in names:
        cells.append([name, *(_short(fact[name]) for fact in facts)])
    cases = [f"{fact['layer']}, {fact['space']}" for fact in facts]
    show("scores", ["", *cases], cells)
    for case, fact in zip(cases, facts, strict=True):
        curves = fact["path similarity"]
        rows = []
        for kind in STYLES:
            values = ["{:.2f} ({:.2f} to {:.2f})".format(*curve[kind]) for curve in curves.values()]
            rows.append([kind, *values])
        show(f"path similarity: {case}", ["", *curves], rows)


def _short(value: Any) -> Any:
    """Lists of numbers in few characters."""
    if not isinstance(value, list):
        return value
    parts = []
    for item in value:
        if isinstance(item, list):
            parts.append(f"{item[0]}: {item[1]:.2f}")
        else:
            parts.append(f"{item:.3g}")
    return " ".join(parts)


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
