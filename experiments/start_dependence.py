"""What does a pattern owe to its start?

Question: which scales of fluctuation wake which maps; how many maps stay at zero if the classic
    rule begins at one
random start each, without a survey, and why; how many starts must a survey see; and how far do the
final score and the final pattern depend on the start?
Expected: the source (R. Moenchmeyer, "A simple CNN for the MNIST dataset", part IX) shows patterns
    of 61 of 128 maps:
52 % at zero. The shipped network leaves less at zero, 35 %: its dead maps, a tenth, and a quarter
of the others. Coarse fields wake more maps than pixel noise. A start at zero ends at zero under the
classic rule, always. Thousands of starts wake all but the dead maps and a few. The start's score
says little of the final one. Cost: about 4 minutes of two cores.
Command: python -m experiments.start_dependence (further networks: --others folder folder)
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import hypergeom, spearmanr

import oipjax
from experiments.common import command, save, show
from experiments.figures.start_dependence import OPEN, PROVED, SURVEYED, WOKEN, plot
from oipjax import Classic, Fluctuation, Fluctuations, Map, keys
from oipjax.analysis import similarity
from oipjax.data import mnist as data
from oipjax.networks import cnn
from oipjax.search import make_starts
from oipjax.spaces import Box, Space, Standardised, default_fluctuations
from oipjax.study import BY_SURVEY, DEAD, FOUND

RESULTS = Path(__file__).parent / "results"
SOURCE_ZERO = 67 / 128
SOURCE, NOISE, DEFAULT = "3x3 + 7x7", "28x28", "default"
SCALES = {f"{n}x{n}": Fluctuations((Fluctuation(((n, n),), (1.0,)),)) for n in (3, 4, 7, 14, 28)}
RECIPES = SCALES | {
    SOURCE: Fluctuations((Fluctuation(weights=(0.2, 0.2, 0.0, 0.0)),)),
    "all four": Fluctuations((Fluctuation(weights=(1.0, 1.0, 1.0, 1.0)),)),
    DEFAULT: default_fluctuations((28, 28, 1)),
}
"""Single scales; the source's mixture; its four scales in equal parts; the recipes of a survey."""


@dataclass(frozen=True)
class Config:
    """``others`` (checkpoints by name or folder) are asked only how many of their maps are at zero.

    ``rounds`` of one start for each map are looked at, ``climbed`` of them with ``steps`` of the
    classic rule; ``runs`` ascents of ``climb`` steps for each map, ``classic_runs`` of them by the
    classic rule too; surveys of all ``sizes``; ``fields`` are names in `RECIPES`.
    """

    checkpoint: str = "mnist-cnn"
    others: tuple[str, ...] = ()
    layer: str = "conv3"
    fields: tuple[str, ...] = tuple(RECIPES)
    draws: int = 4096
    rounds: int = 64
    climbed: int = 4
    steps: int = 600
    runs: int = 24
    classic_runs: int = 6
    sizes: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 4096, 16384)
    repeats: int = 3
    climb: int = 100
    seed: int = 0


SMOKE = Config(
    layer="conv1", fields=(SOURCE, NOISE), draws=32, rounds=2, climbed=1, steps=3, runs=3, classic_runs=1,
    sizes=(1, 16), repeats=1, climb=3,
)  # fmt: skip


def fates(config: Config, model: oipjax.Model) -> np.ndarray:
    """What an atlas says of each map, ``str [k]``."""
    atlas = oipjax.atlas(
        jax.random.key(config.seed), model, config.layer, draws=config.draws, steps=config.climb,
        exemplars=model.to_input(data.sample().images),
        progress=lambda phase, done, total: print(f"atlas: {phase} {done}/{total}   ", end="\r", flush=True),
    )  # fmt: skip
    print()
    found = np.where(atlas.found_by == BY_SURVEY, SURVEYED, WOKEN)
    return np.where(atlas.status == FOUND, found, np.where(atlas.status == DEAD, PROVED, OPEN))


def pixels(model: oipjax.Model) -> oipjax.Model:
    """The network with its normalisation inside: one that was trained on pixels in [0, 1]."""
    mean, std = model.normalisation
    kernel = np.asarray(model.params["conv1"]["kernel"]) / std[:, None]
    bias = np.asarray(model.params["conv1"]["bias"]) - (kernel * mean[:, None]).sum((0, 1, 2))
    return replace(
        model,
        params=model.params | {"conv1": {"kernel": kernel, "bias": bias}},
        mean=(0.0,),
        std=(1.0,),
    )


def zero(
    config: Config, model: oipjax.Model, space: Space, fate: np.ndarray | None, climbed: int
) -> dict[str, Any]:
    """Maps at zero at one random start each: share over the rounds, of what kind, and what climbing changes."""
    key, layer = jax.random.key(config.seed), config.layer
    maps = model.layer(layer).maps
    targets, starts = np.tile(np.arange(maps), config.rounds), np.arange(config.rounds * maps)
    begun = oipjax.ascend(
        key, model, Map(layer), targets, starts, space=space, method=Classic(), steps=1
    )
    silent = (begun.start_scores <= 0).reshape(-1, maps)
    shares = silent.mean(1)
    facts: dict[str, Any] = {
        "at zero": float(shares.mean()), "standard error": float(shares.std(ddof=1) / np.sqrt(len(shares))),
        "one round, sd": float(shares.std(ddof=1)), "rounds": len(shares),
    }  # fmt: skip
    if fate is not None:
        facts["by kind"] = {
            kind: float(silent[:, fate == kind].sum(1).mean() / maps) for kind in np.unique(fate)
        }
    if climbed:
        some = slice(climbed * maps)
        run = oipjax.ascend(
            key,
            model,
            Map(layer),
            targets[some],
            starts[some],
            space=space,
            method=Classic(),
            steps=config.steps,
        )
        ended, before = run.trace[:, -1] <= 0, silent.ravel()[some]
        facts |= {
            "maps at zero at the end, by round": ended.reshape(-1, maps).sum(1).tolist(),
            "silent starts climbed": int(before.sum()), "of them woken": int(np.sum(before & ~ended)),
            "responding starts climbed": int(np.sum(~before)), "of them fallen silent": int(np.sum(~before & ended)),
        }  # fmt: skip
    return facts


def without_survey(config: Config, model: oipjax.Model, fate: np.ndarray) -> list[dict[str, Any]]:
    """The share at zero for several kinds of starts, images and networks; the first two are climbed too."""
    ends = [tuple(map(float, end)) for end in model.input_box]
    box = Box(model.input_shape, ends[0], ends[1])
    grey = replace(box, starts=SCALES[NOISE], contrast=0.01)
    new = replace(model, params=cnn.init(jax.random.key(config.seed), model.apply.config))  # pyright: ignore
    sphere = {
        name: Standardised(model.input_shape, RECIPES[name]) for name in (SOURCE, DEFAULT, NOISE)
    }
    cases: list[tuple[str, oipjax.Model, str, Space, np.ndarray | None, int]] = [
        (
            model.name,
            model,
            f"standardised, {name}",
            sphere[name],
            fate,
            0 if name == NOISE else config.climbed,
        )
        for name in sphere
        if name in config.fields
    ]
    cases += [
        (model.name, model, f"box, {SOURCE}", replace(box, starts=RECIPES[SOURCE]), None, 0),
        (model.name, model, f"box, {NOISE}", replace(box, starts=SCALES[NOISE]), None, 0),
        (model.name, model, "box, grey", grey, None, 0),
        (
            f"{model.name}, if fed pixels",
            pixels(model),
            f"standardised, {SOURCE}",
            sphere[SOURCE],
            None,
            0,
        ),
        ("untrained", new, f"standardised, {SOURCE}", sphere[SOURCE], None, 0),
        ("untrained", new, "box, grey", grey, None, 0),
    ]
    for other in config.others:
        cases.append(
            (
                Path(other).name,
                oipjax.load(other),
                f"standardised, {SOURCE}",
                sphere[SOURCE],
                None,
                0,
            )
        )
    return [
        {"network": name, "starts": words} | zero(config, network, space, known, climbed)
        for name, network, words, space, known, climbed in cases
    ]


# --- how many starts, and what depends on them
# ------------------------------------------------------------------------


def coverage(config: Config, model: oipjax.Model) -> dict[str, Any]:
    """Maps that respond to one of n starts, expected, by recipe; and what ascents from the best of n starts reach."""
    key, layer, most = jax.random.key(config.seed), config.layer, max(config.sizes)
    facts: dict[str, Any] = {"sizes": list(config.sizes)}
    for name in [name for name in ("3x3", "7x7", NOISE, SOURCE, DEFAULT) if name in config.fields]:
        space = Standardised(model.input_shape, RECIPES[name])
        responded = oipjax.survey(key, model, layer, space=space, draws=most, keep=1).responded
        # Drawn without replacement from those seen: exact, where counting the first n would be one
        # sample.
        facts[name] = [float(hypergeom.sf(0, most, responded, n).sum()) for n in config.sizes]
    space, scores = Standardised(model.input_shape, RECIPES[DEFAULT]), []
    for repeat in range(config.repeats):
        for size in config.sizes:
            seen = oipjax.survey(
                key, model, layer, space=space, draws=size, keep=1, first=repeat * most
            )
            targets, starts = np.arange(len(seen.responded)), seen.start_index[:, 0]
            run = oipjax.ascend(
                key, model, Map(layer), targets, starts, space=space, steps=config.climb
            )
            scores.append(run.scores)
    scores = np.reshape(scores, (config.repeats, len(config.sizes), -1))
    found = scores.max((0, 1)) > 0
    share = scores[:, :, found] / scores[:, :, found].max((0, 1))
    facts["found"] = (scores > 0).sum(2).mean(0).tolist()
    facts["found, sd"] = (scores > 0).sum(2).std(0).tolist()
    facts["score, share of the best"] = np.median(share, 2).mean(0).tolist()
    facts["score, quartiles over maps"] = np.percentile(share, (25, 75), axis=(0, 2)).tolist()
    return facts


@dataclass(frozen=True)
class Runs:
    """Ascents of ``k`` maps from ``r`` random starts each: images ``[k, r, h, w, c]``, everything else ``[k, r]``."""

    maps: np.ndarray
    starts: np.ndarray
    images: np.ndarray
    begun: np.ndarray
    ended: np.ndarray
    recipe: np.ndarray
    classic: np.ndarray


def climb(config: Config, model: oipjax.Model, maps: np.ndarray) -> tuple[Runs, list[str]]:
    """Ascents from random starts of single scales and of the source's mixture, none of them chosen."""
    key, names, goal = jax.random.key(config.seed), [*SCALES, SOURCE], Map(config.layer)
    space = Standardised(
        model.input_shape, Fluctuations(tuple(RECIPES[name].recipes[0] for name in names))
    )
    shape = (len(maps), config.runs)
    targets, starts = np.repeat(maps, config.runs), np.arange(len(maps) * config.runs)
    run = oipjax.ascend(key, model, goal, targets, starts, space=space, steps=config.climb)
    stream = keys.stream(key, keys.SURVEY)
    recipe = jax.vmap(lambda i: space.starts.which(jax.random.fold_in(stream, i)))(
        starts.astype(np.uint32)
    )
    classic = np.full(shape, np.nan)
    some = (run.start_scores.reshape(shape) > 0) & (np.arange(config.runs) < config.classic_runs)
    chosen = np.flatnonzero(some)
    if chosen.size:
        other = oipjax.ascend(
            key,
            model,
            goal,
            targets[chosen],
            starts[chosen],
            space=space,
            method=Classic(),
            steps=config.steps,
        )
        classic[some] = other.scores
    begun, ended, recipe = (
        np.reshape(part, shape) for part in (run.start_scores, run.scores, recipe)
    )
    first, last = (
        part.reshape(*shape, *part.shape[1:])
        for part in (make_starts(key, space, starts), run.images)
    )
    return Runs(maps, first, last, begun, ended, recipe, classic), names


def rank(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; NaN where one of the two does not vary."""
    return (
        float(np.asarray(spearmanr(a, b))[0]) if len(a) > 2 and np.ptp(a) and np.ptp(b) else np.nan
    )


def finite(value: float) -> float | None:
    """None instead of NaN, which JSON does not know."""
    return value if np.isfinite(value) else None


def dependence(runs: Runs) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Of each map how much its ends differ and what they have of their starts ``[k]``; similarity to its best."""
    count = runs.ended.shape[1]
    above = np.triu_indices(count, 1)
    rows, alike = [], np.zeros_like(runs.ended)
    for k in range(len(runs.maps)):
        begun, ended = runs.begun[k], runs.ended[k]
        ncc = similarity(np.concatenate([runs.starts[k], runs.images[k]]))[0]
        first, last, across = ncc[:count, :count], ncc[count:, count:], ncc[:count, count:]
        alike[k] = last[ended.argmax()]
        rest = np.arange(count) != ended.argmax()
        rows.append({
            "final scores, sd / mean": ended.std() / max(ended.mean(), 1e-9),
            "worst / best final score": ended.min() / max(ended.max(), 1e-9),
            "start score with final score": rank(begun, ended),
            "the same, responding starts only": rank(begun[begun > 0], ended[begun > 0]),
            "similarity of two ends": np.median(last[above]),
            "similarity of two starts": np.median(first[above]),
            "final score with similarity to the best": rank(ended[rest], alike[k][rest]),
            "start score with similarity to the best": rank(begun[rest], alike[k][rest]),
            "similarity of starts with that of ends": rank(first[above], last[above]),
            "end with its own start": np.diag(across).mean(),
            "end with another start": across[~np.eye(count, dtype=bool)].mean(),
        })  # fmt: skip
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}, alike


def mean(values: np.ndarray) -> tuple[float | None, float | None]:
    """Mean and standard error of what is finite."""
    values = np.asarray(values, float)[np.isfinite(values)]
    if not len(values):
        return None, None
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))) if len(
        values
    ) > 1 else None


def by_kind(runs: Runs, names: list[str]) -> list[list[Any]]:
    """Final score as a share of the map's best, by what the start was; means over maps."""
    share = runs.ended / np.maximum(runs.ended.max(1, keepdims=True), 1e-9)
    both = np.isfinite(runs.classic)
    kinds = [(name, runs.recipe == i) for i, name in enumerate(names)]
    kinds += [
        ("map responds", runs.begun > 0),
        ("map silent", runs.begun <= 0),
        ("those climbed by both rules", both),
    ]
    rows = [[f"start: {name}", int(some.sum()), *mean(_over(share, some))] for name, some in kinds]
    classic = np.where(both, runs.classic, 0) / np.maximum(runs.ended.max(1, keepdims=True), 1e-9)
    return [*rows, ["the same, classic rule", int(both.sum()), *mean(_over(classic, both))]]


def _over(values: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Mean over ``r`` of ``values [k, r]`` where ``some`` is true; NaN where it never is."""
    number = some.sum(1)
    return np.where(number > 0, (values * some).sum(1) / np.maximum(number, 1), np.nan)


def explain(
    config: Config, model: oipjax.Model, share: np.ndarray, fate: np.ndarray
) -> dict[str, float | None]:
    """Rank correlation, over the maps not proved dead, of the share of starts that wake a map with facts about it."""
    kernel, bias = (np.asarray(model.params[config.layer][part]) for part in ("kernel", "bias"))
    digits = model.apply(model.params, jnp.asarray(model.to_input(data.sample().images)))[
        config.layer
    ]
    facts = {
        "kernel norm": np.sqrt(np.square(kernel).sum((0, 1, 2))),
        "kernel sum / norm": kernel.sum((0, 1, 2))
        / np.maximum(np.sqrt(np.square(kernel).sum((0, 1, 2))), 1e-12),
        "bias": bias,
        "share of digits that wake it": np.mean(np.asarray(digits).max((1, 2)) > 0, axis=0),
    }
    live = fate != PROVED
    found = {"kernel norm, dead maps too": rank(share, facts["kernel norm"])}
    found |= {name: rank(share[live], values[live]) for name, values in facts.items()}
    return {name: finite(value) for name, value in found.items()}


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    model, key = oipjax.load(config.checkpoint), jax.random.key(config.seed)
    if not {SOURCE, NOISE} <= set(config.fields) <= set(RECIPES):
        raise ValueError(
            f"fields must be of {list(RECIPES)}, with {SOURCE!r} and {NOISE!r}, got {config.fields}"
        )
    spaces = {name: Standardised(model.input_shape, RECIPES[name]) for name in config.fields}
    shares = {
        name: oipjax.survey(
            key, model, config.layer, space=space, draws=config.draws, keep=1
        ).responded_fraction
        for name, space in spaces.items()
    }
    coarse, fine = shares[SOURCE], shares[NOISE]
    apart = {
        f"wake to half of {SOURCE}, not to 5 % of {NOISE}": int(
            np.sum((coarse >= 0.5) & (fine < 0.05))
        ),
        f"wake to half of {NOISE}, not to 5 % of {SOURCE}": int(
            np.sum((fine >= 0.5) & (coarse < 0.05))
        ),
        "rank correlation of the two": finite(rank(coarse, fine)),
    }
    fate = fates(config, model)
    scales = [
        [name, float(s.mean()), *(int(np.sum(some)) for some in (s == 0, s < 0.05, s == 1))]
        for name, s in shares.items()
    ]
    show(
        "maps and scales",
        ["fields", "maps that respond, mean", "never", "below 5 %", "always"],
        scales,
    )
    show("coarse and fine", ["maps that", ""], [[n, v] for n, v in apart.items()])
    zeros = without_survey(config, model, fate)
    columns = ["at zero", "standard error", "one round, sd"]
    show("at zero, no survey", ["network", "starts", *columns],
         [[row["network"], row["starts"], *(row[c] for c in columns)] for row in zeros])  # fmt: skip
    cover = coverage(config, model)
    runs, names = climb(config, model, np.flatnonzero(np.isin(fate, (SURVEYED, WOKEN))))
    measures, alike = dependence(runs)
    summary = {
        name: [float(np.nanmedian(v)), *mean(v)]
        for name, v in measures.items()
        if np.isfinite(v).any()
    }
    show(
        "ends and starts, over maps",
        ["", "median", "mean", "standard error"],
        [[n, *v] for n, v in summary.items()],
    )
    kinds = by_kind(runs, names)
    show("final score / map's best", ["", "runs", "mean", "standard error"], kinds)
    why = explain(config, model, shares[SOURCE], fate)
    show(
        "the share of starts that wakes a map goes with",
        ["", "rank correlation"],
        [[n, v] for n, v in why.items()],
    )
    facts = {
        "config": asdict(config), "source at zero": SOURCE_ZERO, "scales": scales, "coarse and fine": apart,
        "maps": {kind: int(np.sum(fate == kind)) for kind in (SURVEYED, WOKEN, OPEN, PROVED)}, "without survey": zeros,
        "what wakes a map, rank correlation": why, "coverage": cover,
        "ends and starts": summary, "final score": kinds,
        "share of starts by map": {name: np.round(s, 4).tolist() for name, s in shares.items()},
    }  # fmt: skip
    save(
        results,
        "start_dependence",
        facts,
        plot(model.name, shares, fate, zeros, SOURCE_ZERO, cover, runs, alike),
    )
    return facts


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
