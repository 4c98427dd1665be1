"""The survey: many random starts through the network once, every map answering each of them.

One forward pass of a start answers for all maps of the layer, so the search for a start that a map
responds to costs the same for one map as for all. Only the best few starts of each map are kept, as
numbers; a start is made again from its number whenever it is needed. Memory does not grow with the
number of draws.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from oipjax import keys
from oipjax.model import Model
from oipjax.objectives import Map, PreActivation, spatial_mean
from oipjax.runtime import OPTIONS, Program, checked_tile, in_flight, padded, tiles
from oipjax.spaces import Space, checked_space, space_shapes

MAX_DRAWS = 2**32 - 1
GROUP = 16
"""Tiles that one call of a survey's programs goes through, unless they hold more than `GROUP_VALUES`."""
GROUP_VALUES = 2**22

Progress = Callable[[int, int], None]
"""Called with (done, in all) as work goes on."""


class Survey(NamedTuple):
    """What the maps of one layer answered.

    Attributes:
        layer: its name.
        draws: how many starts were seen.
        start_index: int64 ``[k, r]``, numbers of the best starts of each map, the best one first.
        response: float32 ``[k, r]``, the map's score there; where it is silent, its largest value
            before the nonlinearity (at most the floor); the starts are ranked by it.
        scores: float32 ``[k, r]``, the map's score there, never below the floor.
        responded: int64 ``[k]``, how many of the starts lift the map above the floor.
    """

    layer: str
    draws: int
    start_index: np.ndarray
    response: np.ndarray
    scores: np.ndarray
    responded: np.ndarray

    @property
    def responded_fraction(self) -> np.ndarray:
        """float64 ``[k]``, the share of starts that lift the map above the floor."""
        return self.responded / self.draws


def survey(
    key: Array,
    model: Model,
    layer: str,
    *,
    space: Space | None = None,
    draws: int = 4096,
    keep: int = 4,
    first: int = 0,
    tile: int | None = None,
    progress: Progress | None = None,
) -> Survey:
    """Find the best starts of every map of a layer.

    Args:
        key: the root key; start ``i`` is made from ``fold_in(stream(key, SURVEY), i)``, whatever
            else is asked for.
        model: the network.
        layer: the layer's name.
        space: where starts are drawn; `images.Standardised` with default recipes unless given.
        draws: number of starts, at most ``2**32 - 1``.
        keep: how many starts to keep per map, ``r``.
        first: number of the first start; a long survey can be made in pieces, see `best_of`.
        tile: batch size of every compiled program; see `default_tile`.
        progress: called after each tile with (draws done, draws).

    Raises:
        ValueError: unknown layer, or ``draws`` or ``keep`` out of range.
    """
    check_numbers(draws, keep, first)
    facts = model.layer(layer)
    pre_activation = Map(layer).pre_activation(model)
    space = checked_space(model, space)
    tile = checked_tile(tile)
    start, stream, last = Starts(space, tile), keys.stream(key, keys.SURVEY), first + draws
    answer = _answers(model, layer, space, start)
    response = np.full((facts.maps, keep), -np.inf, np.float32)
    index = np.zeros((facts.maps, keep), np.int64)
    responded, floor = (
        np.zeros(facts.maps, np.int64),
        -np.inf if pre_activation is None else np.float32(pre_activation.floor),
    )
    firsts = range(first, last, start.group * tile)

    def work(number: int, place: int) -> np.ndarray:
        numbers = np.arange(place, min(place + start.group * tile, last), dtype=np.uint64).astype(
            np.uint32
        )
        answers = answer(number, start(number, stream, numbers), np.int32(-(-len(numbers) // tile)))
        return np.asarray(answers).reshape(-1, facts.maps)[: len(numbers)]

    for place, answers in zip(firsts, in_flight(work, firsts), strict=True):
        responded += np.sum(answers > floor, axis=0)
        _keep_best(response, index, answers.T, place)
        if progress is not None:
            progress(place + len(answers) - first, draws)
    scores = response if pre_activation is None else np.maximum(response, floor)
    return Survey(layer, draws, index, response, scores, responded)


def _keep_best(response: np.ndarray, index: np.ndarray, answers: np.ndarray, first: int) -> None:
    """Take ``answers [k, n]`` to the starts from ``first`` on into the best ``[k, r]`` so far; of equals the first."""
    better = np.flatnonzero(answers.max(1) > response[:, -1])
    if better.size:
        numbers = np.broadcast_to(
            first + np.arange(answers.shape[1]), (better.size, answers.shape[1])
        )
        candidates = np.concatenate([response[better], answers[better]], axis=1)
        where = np.argsort(-candidates, axis=1, kind="stable")[:, : response.shape[1]]
        response[better] = np.take_along_axis(candidates, where, axis=1)
        index[better] = np.take_along_axis(
            np.concatenate([index[better], numbers], axis=1), where, axis=1
        )


def best_of(parts: list[dict[str, np.ndarray]], keep: int) -> dict[str, np.ndarray]:
    """One answer out of several, in the order of their starts: ``start_index, response, scores, responded``."""
    out = {
        name: np.concatenate([part[name] for part in parts], axis=1)
        for name in parts[0]
        if name != "responded"
    }
    best = np.argsort(-out["response"], axis=1, kind="stable")[:, :keep]
    joined = {name: np.take_along_axis(array, best, axis=1) for name, array in out.items()}
    return joined | {"responded": np.sum([part["responded"] for part in parts], axis=0)}


def check_numbers(draws: int, keep: int, first: int = 0) -> None:
    """Raise a ValueError unless a survey can make so many draws and keep so many of them."""
    if not 1 <= draws <= MAX_DRAWS:
        raise ValueError(f"draws must be between 1 and {MAX_DRAWS}, got {draws}")
    if not 0 <= first <= MAX_DRAWS - draws:
        raise ValueError(
            f"starts are numbered from 0 to {MAX_DRAWS}; {draws} from {first} on are too many"
        )
    if not 1 <= keep <= draws:
        raise ValueError(f"keep must be between 1 and draws ({draws}), got {keep}")


def responses(
    model: Model, layer: str, z: np.ndarray, *, space: Space | None = None, tile: int | None = None
) -> np.ndarray:
    """The response of every map of a layer to given ``z [n, ...]``, ``[n, k]``, by the survey's own program.

    Args:
        model: the network.
        layer: the layer's name.
        z: of the space, valid ones, at least one.
        space: the image space; `images.Standardised` unless given.
        tile: the survey's tile.

    Raises:
        ValueError: unknown layer, or the space makes images that the network does not take.
    """
    space, tile = checked_space(model, space), checked_tile(tile)
    start = Starts(space, tile)
    answer = _answers(model, layer, space, start)

    def work(number: int, some: np.ndarray) -> np.ndarray:
        answers = np.asarray(answer(number, start.grouped(some), np.int32(-(-len(some) // tile))))
        return answers.reshape(-1, answers.shape[-1])[: len(some)]

    return np.concatenate(
        list(in_flight(work, tiles(np.asarray(z, np.float32), start.group * tile)))
    )


def _answers(model: Model, layer: str, space: Space, start: "Starts") -> Program:
    like = jax.ShapeDtypeStruct((start.group, start.tile, *space_shapes(space)[0]), np.float32)
    static = (
        model.network,
        layer,
        model.layer(layer).maps,
        Map(layer).pre_activation(model),
        space,
    )
    return Program(_answer, static, (model.params,), (like, np.int32(0)))


def make_starts(
    key: Array, space: Space, index: np.ndarray, *, tile: int | None = None
) -> np.ndarray:
    """The starts of a survey, made again: ``z [n, ...]`` of numbers ``index [n]``, the same bits as in the survey.

    Args:
        key: the root key the survey was given.
        space: the survey's image space.
        index: integers ``[n]``.
        tile: the survey's tile.
    """
    tile = checked_tile(tile)
    index = checked_index(index).astype(np.uint32)
    start, stream = Starts(space, tile), keys.stream(key, keys.SURVEY)
    parts = in_flight(
        lambda number, some: start.array(number, stream, some), tiles(index, start.group * tile)
    )
    return np.concatenate(list(parts))


class Starts:
    """What makes starts out of their numbers, several tiles at a call; always the same program, so the same bits.

    Args:
        space: where starts are drawn.
        tile: the batch size.
    """

    def __init__(self, space: Space, tile: int):
        pixels = int(np.prod(space_shapes(space)[0]))
        self.tile, self.group = tile, max(1, min(GROUP, GROUP_VALUES // (tile * pixels)))
        key, numbers = (
            jax.eval_shape(jax.random.key, 0),
            jax.ShapeDtypeStruct((self.group, tile), np.uint32),
        )
        self.program = Program(_make_starts, (space,), (), (key, numbers, np.int32(0)))

    def __call__(self, number: int, stream: Array, index: np.ndarray) -> Array:
        """``z [group, tile, ...]`` of ``index [n]`` in a stream, for work ``number``; the first n of it count."""
        return self.program(
            number,
            stream,
            self.grouped(index.astype(np.uint32)),
            np.int32(-(-len(index) // self.tile)),
        )

    def grouped(self, array: np.ndarray) -> np.ndarray:
        """``array [n, ...]`` filled up to ``[group, tile, ...]``."""
        return padded(array, self.group * self.tile).reshape(
            self.group, self.tile, *array.shape[1:]
        )

    def array(self, number: int, stream: Array, index: np.ndarray) -> np.ndarray:
        """``z [n, ...]`` of ``index [n]``."""
        z = np.asarray(self(number, stream, index))
        return z.reshape(-1, *z.shape[2:])[: len(index)]


def checked_index(index) -> np.ndarray:
    """Numbers of starts as an integer array ``[n]``; a ValueError if they are not."""
    index = np.asarray(index)
    if (
        index.ndim != 1
        or not np.issubdtype(index.dtype, np.integer)
        or (index < 0).any()
        or (index > MAX_DRAWS).any()
    ):
        raise ValueError(
            f"starts are numbered by integers [n] from 0 to {MAX_DRAWS}, got {index.dtype} {index.shape}"
        )
    return index


@functools.partial(jax.jit, static_argnums=0, compiler_options=OPTIONS)
def _make_starts(space, stream, index, count):
    """``z [group, tile, ...]`` of numbers ``index [group, tile]``, the first ``count`` tiles of it."""

    def make(n, z):
        return z.at[n].set(jax.vmap(lambda i: space.init(jax.random.fold_in(stream, i)))(index[n]))

    return jax.lax.fori_loop(
        0, count, make, jnp.zeros((*index.shape, *space_shapes(space)[0]), jnp.float32)
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4), compiler_options=OPTIONS)
def _answer(
    network, layer, maps, pre_activation: PreActivation | None, space, params, starts, count
) -> Array:
    """The response of every map to every start, ``[group, tile, k]``; minus infinity where it is not finite."""

    def response_of(z):
        activations = network.activations(
            params,
            jax.vmap(space.render)(z),
            (layer,) if pre_activation is None else (layer, pre_activation.pre),
        )
        if pre_activation is None:
            response = jax.vmap(spatial_mean)(activations[layer])
        else:
            response = jax.vmap(pre_activation.every_map)(activations)
        return jnp.where(jnp.isfinite(response), response, -jnp.inf)

    # Tile after tile in one program: its buffers are made once, not touched afresh by every tile.
    out = jnp.zeros((*starts.shape[:2], maps), jnp.float32)
    return jax.lax.fori_loop(0, count, lambda n, out: out.at[n].set(response_of(starts[n])), out)
