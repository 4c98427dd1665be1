"""The survey: many random starts through the network once, and every map's response to each.

One forward pass of a start gives the responses of all maps of the layer, so the search for a start
that a map responds to costs the same for one map as for all. Only the best few starts of each map
are kept, as numbers; a start is made again from its number whenever it is needed. Memory does not
grow with the number of draws.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, Float64, Int64, Key, Shaped

from oipjax import keys
from oipjax.model import Model, Network
from oipjax.objectives import Map, PreActivation, spatial_mean
from oipjax.runtime import OPTIONS, Program, checked_tile, in_flight, tiles
from oipjax.search.config import AscentConfig, replace_options
from oipjax.search.starts import MAX_DRAWS, Starts
from oipjax.spaces import Space, checked_space, space_shapes

Progress = Callable[[int, int], None]
"""Called with (done, in all) as work goes on."""


class Survey(NamedTuple):
    """The responses of the ``k`` maps of one layer to random starts; ``r`` starts are kept per map.

    Attributes:
        layer: the layer's name.
        draws: the number of starts.
        start_index: int64 ``[k, r]``, numbers of the best starts of each map, the best one first.
        response: float32 ``[k, r]``, the map's response there, by which starts are ranked: its
            score or, where it is inactive, its largest value before the nonlinearity (at most the
            floor).
        scores: float32 ``[k, r]``, the map's score there, never below the floor.
        responded: int64 ``[k]``, how many of the starts lift the map above the floor.
    """

    layer: str
    draws: int
    start_index: Int64[np.ndarray, "k r"]
    response: Float32[np.ndarray, "k r"]
    scores: Float32[np.ndarray, "k r"]
    responded: Int64[np.ndarray, " k"]

    @property
    def responded_fraction(self) -> Float64[np.ndarray, " k"]:
        """float64 ``[k]``, the share of starts that lift the map above the floor."""
        return self.responded / self.draws


def survey(
    key: Key[Array, ""],
    model: Model,
    layer: str,
    *,
    draws: int = 4096,
    keep: int = 4,
    first: int = 0,
    config: AscentConfig = AscentConfig(),
    progress: Progress | None = None,
    **changes: Any,
) -> Survey:
    """Find the best starts of every map of a layer.

    Args:
        key: the root key; start ``i`` is made from ``fold_in(stream(key, SURVEY), i)``, whatever
            the other arguments are.
        model: the network.
        layer: the layer's name.
        draws: the number of starts, at most ``2**32 - 1``.
        keep: how many starts to keep per map, ``r``.
        first: number of the first start; a long survey can be made in pieces, see `best_of`.
        config: the options; a survey uses the image space and the tile.
        progress: called after each group of tiles with (draws done, draws).
        **changes: options that differ from ``config``, by the names of `AscentConfig`.

    Raises:
        ValueError: there is no such layer, or an option is unknown or out of range.
    """
    check_draws(draws, keep, first)
    config = replace_options(config, changes)
    facts = model.layer(layer)
    responder = _Responder(model, layer, config.image_space(model), config.tile_size)
    floor = responder.floor
    stream = keys.stream(key, keys.SURVEY)
    last = first + draws

    def work(worker: int, place: int) -> np.ndarray:
        numbers = np.arange(place, min(place + responder.size, last))
        return responder.to_starts(worker, stream, numbers)

    response = np.full((facts.maps, keep), -np.inf, np.float32)
    index = np.zeros((facts.maps, keep), np.int64)
    responded = np.zeros(facts.maps, np.int64)
    places = range(first, last, responder.size)
    for place, found in zip(places, in_flight(work, places), strict=True):
        responded += np.sum(found > floor, axis=0)
        _keep_best(response, index, found.T, place)
        if progress is not None:
            progress(place + len(found) - first, draws)
    return Survey(
        layer=layer,
        draws=draws,
        start_index=index,
        response=response,
        scores=np.maximum(response, floor),
        responded=responded,
    )


def _keep_best(response: np.ndarray, index: np.ndarray, new: np.ndarray, first: int) -> None:
    """Merge further responses into the best ones so far; of equal ones the first is kept.

    Args:
        response: ``[k, r]``, the best responses so far, changed in place.
        index: ``[k, r]``, the numbers of their starts, changed in place.
        new: ``[k, n]``, the responses to the starts from number ``first`` on.
        first: the number of the first of these.
    """
    improved = np.flatnonzero(new.max(1) > response[:, -1])
    if not improved.size:
        return
    keep = response.shape[1]
    count = new.shape[1]
    numbers = np.broadcast_to(first + np.arange(count), (improved.size, count))
    all_responses = np.concatenate([response[improved], new[improved]], axis=1)
    all_numbers = np.concatenate([index[improved], numbers], axis=1)
    best = np.argsort(-all_responses, axis=1, kind="stable")[:, :keep]
    response[improved] = np.take_along_axis(all_responses, best, axis=1)
    index[improved] = np.take_along_axis(all_numbers, best, axis=1)


def best_of(
    parts: list[dict[str, Shaped[np.ndarray, "k ..."]]], keep: int
) -> dict[str, Shaped[np.ndarray, "k ..."]]:
    """The parts of a survey, in the order of their starts, as one.

    Args:
        parts: each with ``start_index``, ``response`` and ``scores [k, r]`` and ``responded [k]``.
        keep: how many starts to keep per map.
    """
    responses = _joined(parts, "response")
    best = np.argsort(-responses, axis=1, kind="stable")[:, :keep]
    return {
        "start_index": np.take_along_axis(_joined(parts, "start_index"), best, axis=1),
        "response": np.take_along_axis(responses, best, axis=1),
        "scores": np.take_along_axis(_joined(parts, "scores"), best, axis=1),
        "responded": np.sum([part["responded"] for part in parts], axis=0),
    }


def _joined(parts: Iterable[dict[str, np.ndarray]], name: str) -> np.ndarray:
    return np.concatenate([part[name] for part in parts], axis=1)


def check_draws(draws: int, keep: int, first: int = 0) -> None:
    """Check the numbers of a survey: starts, kept starts, and the number of the first start.

    Raises:
        ValueError: it cannot; the message says why.
    """
    if not 1 <= draws <= MAX_DRAWS:
        raise ValueError(f"draws must be between 1 and {MAX_DRAWS}, got {draws}")
    if not 0 <= first <= MAX_DRAWS - draws:
        raise ValueError(
            f"starts are numbered from 0 to {MAX_DRAWS}; {draws} from {first} on are too many"
        )
    if not 1 <= keep <= draws:
        raise ValueError(f"keep must be between 1 and draws ({draws}), got {keep}")


def responses(
    model: Model,
    layer: str,
    z: Float[np.ndarray, "n ..."],
    *,
    space: Space | None = None,
    tile: int | None = None,
) -> Float32[np.ndarray, "n k"]:
    """The response of every map of a layer to given points, by the survey's own program.

    Args:
        model: the network.
        layer: the layer's name.
        z: ``[n, ...]``, at least one valid point of the space.
        space: the image space; the default one of the network if None.
        tile: the survey's tile; the default one if None.

    Returns:
        float32 ``[n, k]``.

    Raises:
        ValueError: unknown layer, or the space makes images that the network does not take.
    """
    responder = _Responder(model, layer, checked_space(model, space), checked_tile(tile))
    points = np.asarray(z, np.float32)
    parts = in_flight(responder.to_points, tiles(points, responder.size))
    return np.concatenate(list(parts))


class _Responder:
    """The program that gives the response of every map of a layer, several tiles at a call."""

    def __init__(self, model: Model, layer: str, space: Space, tile: int):
        self.starts = Starts(space, tile)
        self.pre_activation = Map(layer).pre_activation(model)
        self.maps = model.layer(layer).maps
        shape = (self.starts.group, tile, *space_shapes(space)[0])
        points = jax.ShapeDtypeStruct(shape, np.float32)
        static = (model.network, layer, self.maps, self.pre_activation, space)
        like = (points, np.int32(0))
        self.program = Program(_responses, static, (model.params,), like)

    @property
    def size(self) -> int:
        """The most points of one call."""
        return self.starts.size

    @property
    def floor(self) -> np.float32:
        """The layer's floor; minus infinity if it has none."""
        return np.float32(-np.inf if self.pre_activation is None else self.pre_activation.floor)

    def to_starts(self, worker: int, stream: Array, numbers: np.ndarray) -> np.ndarray:
        """Responses ``[n, k]`` to the starts of ``numbers [n]``."""
        points = self.starts(worker, stream, numbers)
        responses = self.program(worker, points, self.starts.tiles_of(numbers))
        return self._flat(responses, numbers)

    def to_points(self, worker: int, z: np.ndarray) -> np.ndarray:
        """Responses ``[n, k]`` to points ``z [n, ...]``."""
        points = self.starts.grouped(z)
        responses = self.program(worker, points, self.starts.tiles_of(z))
        return self._flat(responses, z)

    def _flat(self, responses: Array, of: np.ndarray) -> np.ndarray:
        """``[group, tile, k]`` as ``[n, k]``, as long as ``of [n, ...]``."""
        return np.asarray(responses).reshape(-1, self.maps)[: len(of)]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4), compiler_options=OPTIONS)
def _responses(
    network: Network,
    layer: str,
    maps: int,
    pre_activation: PreActivation | None,
    space: Space,
    params,
    points,
    count,
):
    """The response of every map to every point.

    Args:
        network: the network.
        layer: the layer's name.
        maps: the number of its maps ``k``.
        pre_activation: the response below the floor, if the layer has one.
        space: the image space.
        params: the network's parameters.
        points: float32 ``[group, tile, ...]``.
        count: the number of tiles that are computed.

    Returns:
        float32 ``[group, tile, k]``, minus infinity where a response is not finite.
    """
    layers = (layer,)
    if pre_activation is not None:
        layers = (layer, pre_activation.pre)

    def response_of(z):
        activations = network.activations(params, jax.vmap(space.render)(z), layers)
        if pre_activation is None:
            response = jax.vmap(spatial_mean)(activations[layer])
        else:
            response = jax.vmap(pre_activation.every_map)(activations)
        return jnp.where(jnp.isfinite(response), response, -jnp.inf)

    def add_tile(place, responses):
        return responses.at[place].set(response_of(points[place]))

    # Tile after tile in one program: its buffers are made once, and no tile touches new memory.
    nothing = jnp.zeros((*points.shape[:2], maps), jnp.float32)
    return jax.lax.fori_loop(0, count, add_tile, nothing)
