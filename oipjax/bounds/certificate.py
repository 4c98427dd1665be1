"""What can be proved of the maps of a layer: how high they can come, and which of them are dead."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from oipjax.bounds.conv.chain import Stage, chain
from oipjax.bounds.conv.hull import cells, hull
from oipjax.bounds.conv.sphere import energy_bound
from oipjax.bounds.conv.strips import mean_bound, mean_search
from oipjax.bounds.conv.windows import window_bound
from oipjax.bounds.interval.enclosures import Ends, Limits, box_ends, checked_domain, intervals
from oipjax.bounds.linear.crown import crown
from oipjax.bounds.linear.means import computed, mean_bounds
from oipjax.model import Model
from oipjax.spaces import Box, Domain, Sphere

LEVELS = ("none", "cheap", "tight")
"""How hard to try: not at all; intervals and sets of active positions; everything whose shape fits
the network."""
INTERVALS, SETS, HULL, ENERGY = "intervals", "sets", "hull", "energy"
STRIPS, WINDOWS, CROWN = "strips", "windows", "crown"
MOST_NODES = 8192
"""Of a layer that is relaxed linearly; each of its nodes is pulled back through the network."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Bounds:
    """Upper limits of every map of a layer over a domain, valid for exact and for float32 arithmetic.

    Attributes:
        layer: name of the layer.
        score: float64 ``[k]``: no image's score (mean over h, w) is higher.
        node: float64 ``[k]``: no node is higher, before the nonlinearity if the layer has one. Of a
            dead map it tells by how much it fails to wake.
        dead: bool ``[k]``: proved that no image lifts any node above the nonlinearity's floor.
        method: str ``[k]``: where the score's limit comes from.
    """

    layer: str
    score: np.ndarray
    node: np.ndarray
    dead: np.ndarray
    method: np.ndarray


def certify(
    model: Model,
    layer: str,
    domain: Domain,
    *,
    level: str = "cheap",
    progress: Progress | None = None,
) -> Bounds:
    """Upper limits of every map of a layer over a domain.

    Args:
        model: the network.
        layer: name of the layer.
        domain: a `Box` or a `Sphere`: ``space.domain``.
        level: ``cheap`` or ``tight``, see `LEVELS`.
        progress: called with (phase, done, in all).

    Raises:
        ValueError: there is no such layer or level, the domain is of another kind, or the network
            has a primitive without a rule.
    """
    domain = checked_domain(domain)
    model.layer(layer)
    if level not in LEVELS[1:]:
        raise ValueError(f"unknown level of bounds {level!r}; there are {', '.join(LEVELS[1:])}")
    if level == "cheap":
        return assemble(model, layer, domain)
    limits = hull_limits(model, layer, domain, progress=progress)
    limits = {**limits, **crown_limits(model, layer, domain, limits, progress=progress)}
    return tighten(model, assemble(model, layer, domain, limits), domain, progress=progress)


def assemble(
    model: Model,
    layer: str,
    domain: Domain,
    limits: Limits | None = None,
    maps: np.ndarray | None = None,
) -> Bounds:
    """The bounds that follow from intervals, sets of active positions, and what is known of some layers.

    Args:
        model: the network.
        layer: name of the layer.
        domain: the set of images.
        limits: of `hull_limits`, or other proofs; see `intervals.intervals`.
        maps: int ``[n]``, those for which sets of active positions are looked at; all unless given.
    """
    facts = model.layer(layer)
    known = {**_unknown(model, layer), **(limits or {})}
    ends = intervals(model, domain, known, (layer,) if facts.pre is None else (layer, facts.pre))
    high, pre = _highest(ends[layer]), _highest(ends[facts.pre or layer])
    plain = ends[layer].high.reshape(-1, facts.maps).mean(0)
    score = np.minimum(
        mean_bounds(model, layer, domain, ends, known, maps), computed(high, ends[layer])
    )
    dead = np.zeros(facts.maps, bool) if facts.floor is None else high <= facts.floor
    target = facts.pre or layer
    methods = [CROWN] if target in (limits or {}) and not chain(model, layer) else []
    methods = methods or ([HULL if isinstance(domain, Box) else ENERGY] if limits else [])
    by_sets, plainly = " + ".join([*methods, SETS]), methods[0] if methods else INTERVALS
    return Bounds(layer, score, pre, dead, np.where(score < plain * (1 - 1e-9), by_sets, plainly))


def _unknown(model: Model, layer: str) -> Limits:
    """Limits that say nothing, of the layer that `hull_limits` may limit later: one program then serves for both."""
    stages = prefix(model, layer)
    return {stages[1].layer: (np.array(-np.inf), np.array(np.inf))} if len(stages) > 1 else {}


def refine(
    model: Model,
    layer: str,
    domain: Domain,
    maps: np.ndarray,
    *,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Bounds:
    """Bounds of a few maps that cheap ones do not settle.

    Args:
        model: the network.
        layer: name of the layer.
        domain: the set of images.
        maps: int ``[n]``, indices of the maps.
        limits: of `refinement_limits`, if they are known already.
        progress: called with (phase, done, in all).

    Returns:
        the bounds of these maps, in their order.
    """
    domain = checked_domain(domain)
    limits = (
        refinement_limits(model, layer, domain, progress=progress) if limits is None else limits
    )
    found = assemble(model, layer, domain, limits, maps)
    names = ("score", "node", "dead", "method")
    return Bounds(layer, *(getattr(found, name)[maps] for name in names))


def refinement_limits(
    model: Model, layer: str, domain: Box | Sphere, *, progress: Progress | None = None
) -> Limits:
    """What `harder` starts from; it is the same for all maps."""
    return hull_limits(model, layer, domain, splits=2, lower=False, progress=progress)


def hull_limits(
    model: Model,
    layer: str,
    domain: Box | Sphere,
    *,
    splits: int = 4,
    steps: int = 200,
    lower: bool = True,
    progress: Progress | None = None,
) -> Limits:
    """Ends of the second convolution, by the joint patch hull or the shared energy; empty where its shape does not fit.

    Args:
        model: the network.
        layer: what is to be bounded; the second convolution must not come after it.
        domain: the set of images.
        splits: how often a patch's box is cut, see `hull.hull`.
        steps: of the hull's search.
        lower: bound nodes from below, too; it hardly ever matters to what comes after a ReLU.
        progress: called with ("hull", done, in all).
    """
    stages = prefix(model, layer)
    if len(stages) < 2:
        return {}
    first, second = stages[:2]
    if isinstance(domain, Sphere):
        try:
            high = energy_bound(first, second, domain)
        except ValueError:
            return {}
        return {second.layer: (np.full_like(high, -np.inf), high)}
    try:
        seen = cells(first.kernel, first.bias, first.pool, *_ends(domain))
    except ValueError:
        return {}
    report = progress or (lambda phase, done, total: None)
    omega = np.moveaxis(second.kernel, 3, 0)
    ends = intervals(model, domain, layers=(second.layer,))[second.layer]
    highest, lowest = _highest(ends), ends.low.reshape(-1, len(second.bias)).min(0)
    high, _ = hull(
        seen,
        omega,
        steps=steps,
        splits=splits,
        progress=lambda done, total: report(HULL, done, total),
    )
    limits = {second.layer: (lowest, np.minimum(second.bias + high, highest))}
    if lower:
        low, _ = hull(seen, -omega, steps=steps, splits=max(splits - 2, 0))
        limits[second.layer] = (np.maximum(second.bias - low, lowest), limits[second.layer][1])
    return limits


def crown_limits(
    model: Model,
    layer: str,
    domain: Domain,
    limits: Limits | None = None,
    *,
    progress: Progress | None = None,
) -> Limits:
    """Upper ends of a layer that is no convolution of the plain chain, by linear relaxation; empty for others."""
    target = model.layer(layer).pre or layer
    if chain(model, layer) or np.prod(model.shapes[target]) > MOST_NODES:
        return {}
    report = progress or (lambda phase, done, total: None)
    high = crown(
        model,
        target,
        domain,
        limits=limits,
        progress=lambda done, total: report(CROWN, done, total),
    )
    return {target: (np.full_like(high, -np.inf), high)}


def prefix(model: Model, layer: str) -> tuple[Stage, ...]:
    """The longest chain of convolutions from the image to ``layer`` or to a layer before it."""
    before = model.layers[: model.layers.index(layer) + 1]
    return max((chain(model, name) for name in before), key=len)


def relaxed_images(model: Model, layer: str, domain: Domain, maps: np.ndarray) -> np.ndarray | None:
    """For each map the images that maximise its patch hull relaxation, as starts for a search.

    A node of the second convolution is relaxed as it is. One of the third is taken without its
    pools and ReLUs in between, once for each position that the pools may all choose.

    Args:
        model: the network.
        layer: name of the layer.
        domain: the set of images.
        maps: int ``[n]``, indices of the maps.

    Returns:
        ``[n, r, h, w, c]``, or None where the hull does not fit.
    """
    stages = chain(model, layer)
    if len(stages) not in (2, 3) or not isinstance(domain, Box):
        return None
    first, second = stages[:2]
    weights = (
        np.moveaxis(second.kernel, 3, 0)[maps][:, None]
        if len(stages) == 2
        else _through(second, stages[2], maps)
    )
    try:
        seen = cells(first.kernel, first.bias, first.pool, *_ends(domain))
    except ValueError:
        return None
    _, images = hull(seen, weights.reshape(-1, *weights.shape[2:]), steps=60, splits=0)
    low, high = box_ends(domain)
    out = np.broadcast_to((low + high) / 2, (len(images), *domain.shape)).astype(np.float32)
    out[:, : images.shape[1], : images.shape[2]] = images
    return out.reshape(*weights.shape[:2], *domain.shape)


def _through(second: Stage, third: Stage, maps: np.ndarray) -> np.ndarray:
    """Nodes of a third convolution as weights ``[n, q, a, b, c]`` of the first pooled layer, for each pool position."""
    kh, kw, features, _ = second.kernel.shape
    a, b = third.kernel.shape[:2]
    pool = second.pool
    weights = np.zeros((len(maps), pool, pool, a * pool + kh - 1, b * pool + kw - 1, features))
    for i, j, down, right in np.ndindex(a, b, pool, pool):
        part = np.einsum("uvcf,fn->nuvc", second.kernel, third.kernel[i, j][:, maps])
        row, column = i * pool + down, j * pool + right
        weights[:, down, right, row : row + kh, column : column + kw] += part
    return weights.reshape(len(maps), pool * pool, *weights.shape[3:])


def strip_images(model: Model, layer: str, domain: Domain) -> np.ndarray | None:
    """For every map of a first convolution behind its ReLU an image ``[k, h, w, c]`` that is hard to beat.

    None where the search of `oipjax.bounds.conv.strips` does not fit.
    """
    given = _first(model, layer, domain)
    try:
        return None if given is None else mean_search(*given)[0].astype(np.float32)
    except ValueError:
        return None


def _first(model: Model, layer: str, domain: Domain):
    """What `strips` takes, if the layer is the first convolution behind a ReLU and the domain a box."""
    stages = chain(model, layer)
    if (
        len(stages) != 1
        or stages[0].pool > 1
        or model.layer(layer).floor != 0
        or not isinstance(domain, Box)
    ):
        return None
    low, high = _ends(domain)
    return stages[0].kernel, stages[0].bias, float(low[0]), float(high[0]), _seen(stages[0])


def _seen(first: Stage) -> tuple[int, int]:
    """``(h, w)`` of the part of the image that the first convolution sees."""
    return first.shape[0] + first.kernel.shape[0] - 1, first.shape[1] + first.kernel.shape[1] - 1


def tighten(
    model: Model, found: Bounds, domain: Domain, *, progress: Progress | None = None
) -> Bounds:
    """Scores of a first or second convolution behind its ReLU, by methods made for them; other bounds as they are.

    Args:
        model: the network.
        found: what is known.
        domain: the set of images.
        progress: called with (phase, done, in all).
    """
    first, second = _first(model, found.layer, domain), _second(model, found.layer, domain)
    report = progress or (lambda phase, done, total: None)
    name = STRIPS if first is not None else WINDOWS
    try:
        if first is not None:
            report(name, 0, 1)
            exact = mean_bound(*first)
            report(name, 1, 1)
        elif second is not None:
            exact = window_bound(*second, progress=lambda done, total: report(name, done, total))
        else:
            return found
    except ValueError:
        return found
    ends = intervals(model, domain, layers=(found.layer,))[found.layer]
    limit = computed(exact + ends.error.max((0, 1)), ends)
    score = np.minimum(found.score, limit)
    return Bounds(
        found.layer,
        score,
        found.node,
        found.dead,
        np.where(limit <= found.score, name, found.method),
    )


def _second(model: Model, layer: str, domain: Domain):
    """What `windows` takes, if the layer is the second convolution behind a ReLU and the domain a box."""
    stages = chain(model, layer)
    if (
        len(stages) != 2
        or stages[1].pool > 1
        or model.layer(layer).floor != 0
        or not isinstance(domain, Box)
    ):
        return None
    first, second = stages
    return (
        first.kernel,
        first.bias,
        first.pool,
        second.kernel,
        second.bias,
        *_ends(domain),
        _seen(first),
    )


def _ends(box: Box) -> tuple[np.ndarray, np.ndarray]:
    low, high = (np.asarray(end, np.float32).astype(np.float64) for end in (box.low, box.high))
    return low, high


def _highest(ends: Ends) -> np.ndarray:
    """``[k]``: the greatest node of each map."""
    return ends.high.reshape(-1, ends.high.shape[-1]).max(0)
