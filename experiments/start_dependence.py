"""What does a pattern owe to its start?

Question: which maps respond to which scales of fluctuation in a start? How many maps stay at zero,
and why, if the classic rule begins at one random start each, without a survey? How many starts must
a survey see? How far do the final score and the final pattern depend on the start?
Expected: the source (R. Moenchmeyer, "A simple CNN for the MNIST dataset", part IX) shows patterns
of 61 of 128 maps, so 52 % are at zero. The shipped network leaves less at zero, 35 %: its dead
maps, a tenth, and a quarter of the others. More maps respond to coarse fields than to pixel noise.
A start at zero ends at zero under the classic rule, always. All but the dead maps and a few respond
to one of thousands of starts. The start's score says little of the final one.
Cost: about 4 minutes of two cores.
Command: python -m experiments.start_dependence (further networks: --others folder folder)
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import hypergeom

import oipjax
from experiments.common import command, progress_line, save, show
from experiments.figures.start_dependence import (
    BY_PRE_ACTIVATION,
    BY_START,
    KINDS,
    PROVED,
    UNRESOLVED,
    plot,
)
from experiments.tools.dependence import Runs, by_kind, finite, measures_of, rank, summarise
from oipjax import Classic, Fluctuation, Fluctuations, Map, keys
from oipjax.data import mnist as data
from oipjax.networks import cnn
from oipjax.search import make_starts
from oipjax.spaces import Box, Space, Standardised, default_fluctuations
from oipjax.study import BY_SURVEY, DEAD, FOUND

RESULTS = Path(__file__).parent / "results"
SOURCE_ZERO = 67 / 128
SOURCE = "3x3 + 7x7"
NOISE = "28x28"
DEFAULT = "default"
COVERED = ("3x3", "7x7", NOISE, SOURCE, DEFAULT)
"""The recipes whose surveys are compared by size."""


def field(size: int) -> Fluctuations:
    """The recipe of a single scale."""
    return Fluctuations((Fluctuation(((size, size),), (1.0,)),))


SCALES = {f"{size}x{size}": field(size) for size in (3, 4, 7, 14, 28)}
RECIPES = SCALES | {
    SOURCE: Fluctuations((Fluctuation(weights=(0.2, 0.2, 0.0, 0.0)),)),
    "all four": Fluctuations((Fluctuation(weights=(1.0, 1.0, 1.0, 1.0)),)),
    DEFAULT: default_fluctuations((28, 28, 1)),
}
"""Single scales; the source's mixture; its four scales in equal parts; the recipes of a survey."""


@dataclass(frozen=True)
class Config:
    """The networks, their starts and the ascents.

    Attributes:
        checkpoint: the network.
        others: checkpoints by name or folder, of which only the share of maps at zero is measured.
        layer: the layer.
        fields: names in `RECIPES`.
        draws: random starts of each recipe and of the atlas.
        rounds: of one start for each map.
        climbed: how many of the rounds are climbed with the classic rule.
        steps: of the classic rule.
        runs: ascents of each map from random starts.
        classic_runs: how many of them are climbed with the classic rule too.
        sizes: of surveys.
        repeats: surveys of each size.
        climb: steps of all other ascents.
        seed: of the starts.
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
    layer="conv1",
    fields=(SOURCE, NOISE),
    draws=32,
    rounds=2,
    climbed=1,
    steps=3,
    runs=3,
    classic_runs=1,
    sizes=(1, 16),
    repeats=1,
    climb=3,
)


def kinds_of(config: Config, model: oipjax.Model) -> np.ndarray:
    """What an atlas says of each map, one of `KINDS`, ``str [k]``."""
    atlas = oipjax.atlas(
        jax.random.key(config.seed),
        model,
        config.layer,
        draws=config.draws,
        steps=config.climb,
        exemplars=model.to_input(data.sample().images),
        progress=progress_line("atlas"),
    )
    print()
    found = np.where(atlas.found_by == BY_SURVEY, BY_START, BY_PRE_ACTIVATION)
    others = np.where(atlas.status == DEAD, PROVED, UNRESOLVED)
    return np.where(atlas.status == FOUND, found, others)


class Case(NamedTuple):
    """A network and its starts.

    Attributes:
        network: its name.
        model: the network.
        starts: their name.
        space: the image space.
        kinds: of the maps, ``str [k]``, where they are known.
        climbed: how many rounds are climbed.
    """

    network: str
    model: oipjax.Model
    starts: str
    space: Space
    kinds: np.ndarray | None = None
    climbed: int = 0


def pixels(model: oipjax.Model) -> oipjax.Model:
    """The network with its normalisation inside: one that was trained on pixels in [0, 1]."""
    mean, std = model.normalisation
    first = model.params["conv1"]
    kernel = np.asarray(first["kernel"]) / std[:, None]
    shift = (kernel * mean[:, None]).sum((0, 1, 2))
    bias = np.asarray(first["bias"]) - shift
    params = model.params | {"conv1": {"kernel": kernel, "bias": bias}}
    return replace(model, params=params, mean=(0.0,), std=(1.0,))


def cases_of(config: Config, model: oipjax.Model, kinds: np.ndarray) -> list[Case]:
    """Several kinds of starts, images and networks; the first two cases are climbed too."""
    low, high = [tuple(map(float, end)) for end in model.input_box]
    box = Box(model.input_shape, low, high)
    noise_box = replace(box, starts=SCALES[NOISE])
    source_box = replace(box, starts=RECIPES[SOURCE])
    grey = replace(noise_box, contrast=0.01)
    key = jax.random.key(config.seed)
    untrained = replace(model, params=cnn.init(key, model.apply.config))  # pyright: ignore
    source = Standardised(model.input_shape, RECIPES[SOURCE])
    source_name = f"standardised, {SOURCE}"
    cases = []
    for name in (SOURCE, DEFAULT, NOISE):
        if name in config.fields:
            case = Case(
                network=model.name,
                model=model,
                starts=f"standardised, {name}",
                space=Standardised(model.input_shape, RECIPES[name]),
                kinds=kinds,
                climbed=0 if name == NOISE else config.climbed,
            )
            cases.append(case)
    cases += [
        Case(model.name, model, f"box, {SOURCE}", source_box),
        Case(model.name, model, f"box, {NOISE}", noise_box),
        Case(model.name, model, "box, grey", grey),
        Case(f"{model.name}, if fed pixels", pixels(model), source_name, source),
        Case("untrained", untrained, source_name, source),
        Case("untrained", untrained, "box, grey", grey),
    ]
    for other in config.others:
        cases.append(Case(Path(other).name, oipjax.load(other), source_name, source))
    return cases


def at_zero(config: Config, case: Case) -> dict[str, Any]:
    """Maps at zero at one random start each: their share over the rounds, and their kinds."""
    key = jax.random.key(config.seed)
    maps = case.model.layer(config.layer).maps
    targets = np.tile(np.arange(maps), config.rounds)
    starts = np.arange(config.rounds * maps)
    objective = Map(config.layer)
    options = {"space": case.space, "method": Classic()}
    begun = oipjax.ascend(key, case.model, objective, targets, starts, steps=1, **options)
    is_inactive = (begun.start_scores <= 0).reshape(-1, maps)
    shares = is_inactive.mean(1)
    deviation = shares.std(ddof=1)
    facts: dict[str, Any] = {
        "network": case.network,
        "starts": case.starts,
        "at zero": float(shares.mean()),
        "standard error": float(deviation / np.sqrt(len(shares))),
        "one round, sd": float(deviation),
        "rounds": len(shares),
    }
    if case.kinds is not None:
        by_kind = {}
        for kind in np.unique(case.kinds):
            number = is_inactive[:, case.kinds == kind].sum(1)
            by_kind[kind] = float(number.mean() / maps)
        facts["by kind"] = by_kind
    if case.climbed:
        count = case.climbed * maps
        facts |= climbed_rounds(config, case, targets[:count], is_inactive[: case.climbed])
    return facts


def climbed_rounds(
    config: Config, case: Case, targets: np.ndarray, is_inactive: np.ndarray
) -> dict[str, Any]:
    """How the classic rule changes maps at zero.

    Args:
        config: of the experiment.
        case: the network and its starts.
        targets: the maps of all runs ``[rounds * k]``; run ``i`` begins at start ``i``.
        is_inactive: bool ``[rounds, k]``, whether the map is at zero at its start.
    """
    run = oipjax.ascend(
        jax.random.key(config.seed),
        case.model,
        Map(config.layer),
        targets,
        np.arange(len(targets)),
        space=case.space,
        method=Classic(),
        steps=config.steps,
    )
    ended = (run.trace[:, -1] <= 0).reshape(is_inactive.shape)
    return {
        "maps at zero at the end, by round": ended.sum(1).tolist(),
        "inactive starts climbed": int(is_inactive.sum()),
        "of them woken": int(np.sum(is_inactive & ~ended)),
        "responding starts climbed": int(np.sum(~is_inactive)),
        "of them fallen inactive": int(np.sum(~is_inactive & ended)),
    }


def coverage(config: Config, model: oipjax.Model) -> dict[str, Any]:
    """Maps that respond to one of n starts, by recipe; and ascents from the best of n starts."""
    most = max(config.sizes)
    key = jax.random.key(config.seed)
    facts: dict[str, Any] = {"sizes": list(config.sizes)}
    for name in COVERED:
        if name in config.fields:
            space = Standardised(model.input_shape, RECIPES[name])
            options = {"space": space, "draws": most, "keep": 1}
            survey = oipjax.survey(key, model, config.layer, **options)
            facts[name] = expected_maps(survey.responded, most, config.sizes)
    return facts | best_of(config, model)


def expected_maps(responded: np.ndarray, draws: int, sizes: tuple[int, ...]) -> list[float]:
    """How many maps respond to at least one of n starts, expected.

    The n starts are drawn without replacement from those of the survey. This is exact, where
    counting the first n would be one sample.
    """
    expected = []
    for size in sizes:
        expected.append(float(hypergeom.sf(0, draws, responded, size).sum()))
    return expected


def best_of(config: Config, model: oipjax.Model) -> dict[str, Any]:
    """Scores of ascents from each map's best of n starts."""
    key = jax.random.key(config.seed)
    space = Standardised(model.input_shape, RECIPES[DEFAULT])
    most = max(config.sizes)
    runs = []
    for repeat in range(config.repeats):
        for size in config.sizes:
            options: dict[str, Any] = {"draws": size, "keep": 1, "first": repeat * most}
            survey = oipjax.survey(key, model, config.layer, space=space, **options)
            run = oipjax.ascend(
                key,
                model,
                Map(config.layer),
                np.arange(len(survey.responded)),
                survey.start_index[:, 0],
                space=space,
                steps=config.climb,
            )
            runs.append(run.scores)
    scores = np.reshape(runs, (config.repeats, len(config.sizes), -1))
    found = (scores > 0).sum(2)
    best = scores.max((0, 1))
    share = scores[:, :, best > 0] / best[best > 0]
    quartiles = np.percentile(share, (25, 75), axis=(0, 2))
    return {
        "found": found.mean(0).tolist(),
        "found, sd": found.std(0).tolist(),
        "score, share of the best": np.median(share, 2).mean(0).tolist(),
        "score, quartiles over maps": quartiles.tolist(),
    }


def climb(config: Config, model: oipjax.Model, maps: np.ndarray) -> Runs:
    """Ascents from random starts of single scales and of the source's mixture.

    No survey chooses the starts.
    """
    key = jax.random.key(config.seed)
    names = (*SCALES, SOURCE)
    recipes = [RECIPES[name].recipes[0] for name in names]
    space = Standardised(model.input_shape, Fluctuations(tuple(recipes)))
    shape = (len(maps), config.runs)
    targets = np.repeat(maps, config.runs)
    starts = np.arange(len(targets))
    objective = Map(config.layer)
    run = oipjax.ascend(key, model, objective, targets, starts, space=space, steps=config.climb)
    begun = run.start_scores.reshape(shape)
    classic = np.full(shape, np.nan)
    is_classic = (begun > 0) & (np.arange(config.runs) < config.classic_runs)
    chosen = np.flatnonzero(is_classic)
    if chosen.size:
        options = {"space": space, "method": Classic(), "steps": config.steps}
        other = oipjax.ascend(key, model, objective, targets[chosen], starts[chosen], **options)
        classic[is_classic] = other.scores
    image_shape = (*shape, *model.input_shape)
    return Runs(
        maps=maps,
        starts=np.reshape(make_starts(key, space, starts), image_shape),
        images=run.images.reshape(image_shape),
        begun=begun,
        ended=run.scores.reshape(shape),
        recipe=np.reshape(recipe_of(key, space, starts), shape),
        classic=classic,
        names=names,
    )


def recipe_of(key: jax.Array, space: Standardised, starts: np.ndarray) -> np.ndarray:
    """Which recipe each start is made with, int ``[n]``."""
    stream = keys.stream(key, keys.SURVEY)

    def which(number: jax.Array) -> jax.Array:
        return space.starts.which(jax.random.fold_in(stream, number))

    return np.asarray(jax.vmap(which)(jnp.asarray(starts, jnp.uint32)))


def explain(
    config: Config, model: oipjax.Model, share: np.ndarray, kinds: np.ndarray
) -> dict[str, float | None]:
    """Facts about a map that go with the share of starts that it responds to.

    Returns:
        Rank correlations over the maps that are not proved dead.
    """
    params = model.params[config.layer]
    kernel = np.asarray(params["kernel"])
    norm = np.sqrt(np.square(kernel).sum((0, 1, 2)))
    inputs = jnp.asarray(model.to_input(data.sample().images))
    digits = np.asarray(model.apply(model.params, inputs)[config.layer])
    facts = {
        "kernel norm": norm,
        "kernel sum / norm": kernel.sum((0, 1, 2)) / np.maximum(norm, 1e-12),
        "bias": np.asarray(params["bias"]),
        "share of digits that wake it": np.mean(digits.max((1, 2)) > 0, axis=0),
    }
    live = kinds != PROVED
    found = {"kernel norm, dead maps too": finite(rank(share, norm))}
    for name, values in facts.items():
        found[name] = finite(rank(share[live], values[live]))
    return found


def scale_table(shares: dict[str, np.ndarray]) -> list[list[Any]]:
    """Of each recipe the mean share of maps that respond, and how many respond how often."""
    rows = []
    for name, share in shares.items():
        never = int(np.sum(share == 0))
        rarely = int(np.sum(share < 0.05))
        always = int(np.sum(share == 1))
        rows.append([name, float(share.mean()), never, rarely, always])
    return rows


def coarse_and_fine(coarse: np.ndarray, fine: np.ndarray) -> dict[str, Any]:
    """Maps that respond to one of two recipes only."""
    only_coarse = (coarse >= 0.5) & (fine < 0.05)
    only_fine = (fine >= 0.5) & (coarse < 0.05)
    return {
        f"wake to half of {SOURCE}, not to 5 % of {NOISE}": int(np.sum(only_coarse)),
        f"wake to half of {NOISE}, not to 5 % of {SOURCE}": int(np.sum(only_fine)),
        "rank correlation of the two": finite(rank(coarse, fine)),
    }


def share_of_starts(config: Config, model: oipjax.Model) -> dict[str, np.ndarray]:
    """The share of random starts that each map responds to ``[k]``, by recipe."""
    key = jax.random.key(config.seed)
    shares = {}
    for name in config.fields:
        space = Standardised(model.input_shape, RECIPES[name])
        options = {"space": space, "draws": config.draws, "keep": 1}
        survey = oipjax.survey(key, model, config.layer, **options)
        shares[name] = survey.responded_fraction
    return shares


def main(config: Config = Config(), results: Path = RESULTS) -> dict[str, Any]:
    """Run, print, write."""
    model = oipjax.load(config.checkpoint)
    if not {SOURCE, NOISE} <= set(config.fields) <= set(RECIPES):
        raise ValueError(
            f"fields must be of {list(RECIPES)}, with {SOURCE!r} and {NOISE!r}, got {config.fields}"
        )
    shares = share_of_starts(config, model)
    scales = scale_table(shares)
    two_recipes = coarse_and_fine(shares[SOURCE], shares[NOISE])
    kinds = kinds_of(config, model)
    columns = ("fields", "maps that respond, mean", "never", "below 5 %", "always")
    show("maps and scales", columns, scales)
    show("coarse and fine", ["maps that", ""], list(two_recipes.items()))
    zeros = [at_zero(config, case) for case in cases_of(config, model, kinds)]
    columns = ("network", "starts", "at zero", "standard error", "one round, sd")
    rows = [[row[name] for name in columns] for row in zeros]
    show("at zero, no survey", columns, rows)
    cover = coverage(config, model)
    is_found = np.isin(kinds, (BY_START, BY_PRE_ACTIVATION))
    runs = climb(config, model, np.flatnonzero(is_found))
    measures, alike = measures_of(runs)
    summary = summarise(measures)
    rows = [[name, *values] for name, values in summary.items()]
    show("ends and starts, over maps", ["", "median", "mean", "standard error"], rows)
    final = by_kind(runs)
    show("final score / map's best", ["", "runs", "mean", "standard error"], final)
    why = explain(config, model, shares[SOURCE], kinds)
    title = "the share of starts that wakes a map goes with"
    show(title, ["", "rank correlation"], list(why.items()))
    facts = {
        "config": asdict(config),
        "source at zero": SOURCE_ZERO,
        "scales": scales,
        "coarse and fine": two_recipes,
        "maps": {kind: int(np.sum(kinds == kind)) for kind in KINDS},
        "without survey": zeros,
        "what wakes a map, rank correlation": why,
        "coverage": cover,
        "ends and starts": summary,
        "final score": final,
        "share of starts by map": {
            name: np.round(share, 4).tolist() for name, share in shares.items()
        },
    }
    figure = plot(model.name, shares, kinds, zeros, SOURCE_ZERO, cover, runs, alike)
    save(results, "start_dependence", facts, figure)
    return facts


if __name__ == "__main__":
    command(main, Config, __doc__, RESULTS)
