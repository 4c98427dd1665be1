"""The survey: many random starts through the network once, every map answering each of them.

One forward pass of a start answers for all maps of the layer, so the search for a start that a map reacts to costs the
same for one map as for all. Only the best few starts of each map are kept, as numbers; a start is made again from its
number whenever it is needed. Memory does not grow with the number of draws.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from oipjax import keys
from oipjax.images import Space, checked_space, space_shapes
from oipjax.model import Model
from oipjax.objectives import Map, Waking, spatial_mean
from oipjax.tiles import OPTIONS, Program, checked_tile, in_flight, padded, tiles

MAX_DRAWS = 2**32 - 1

Progress = Callable[[int, int], None]
"""Called with (done, in all) as work goes on."""


class Survey(NamedTuple):
    """What the maps of one layer answered.

    Attributes:
        layer: its name.
        draws: how many starts were seen.
        start_index: int64 ``[k, r]``, numbers of the best starts of each map, the best one first.
        reaction: float32 ``[k, r]``, the map's score there; where it is silent, its largest value before the
            nonlinearity (at most the floor); the starts are ranked by it.
        scores: float32 ``[k, r]``, the map's score there, never below the floor.
        reacted: int64 ``[k]``, how many of the starts lift the map above the floor.
    """

    layer: str
    draws: int
    start_index: np.ndarray
    reaction: np.ndarray
    scores: np.ndarray
    reacted: np.ndarray

    @property
    def reacted_fraction(self) -> np.ndarray:
        """float64 ``[k]``, the share of starts that lift the map above the floor."""
        return self.reacted / self.draws


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
        key: the root key; start ``i`` is made from ``fold_in(stream(key, SURVEY), i)``, whatever else is asked for.
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
    waking = Waking.of(Map(layer), model)
    space = checked_space(model, space)
    tile = checked_tile(tile)
    firsts, last = range(first, first + draws, tile), first + draws
    start, stream = start_program(space, tile), keys.stream(key, keys.SURVEY)
    like = jax.ShapeDtypeStruct((tile, *space_shapes(space)[0]), np.float32)
    answer = Program(_answer, (model.apply, layer, waking, space), (model.params,), (like,))
    reaction = np.full((facts.maps, keep), -np.inf, np.float32)
    index = np.zeros((facts.maps, keep), np.int64)
    reacted, floor = np.zeros(facts.maps, np.int64), -np.inf if waking is None else np.float32(waking.floor)

    def work(number: int, first: int) -> np.ndarray:
        chosen = (np.arange(first, first + tile, dtype=np.uint64) % 2**32).astype(np.uint32)
        return np.asarray(answer(number, start(number, stream, chosen)))[: last - first]

    for number, answers in zip(firsts, in_flight(work, firsts), strict=True):
        reacted += np.sum(answers > floor, axis=0)
        _keep_best(reaction, index, answers.T, number)
        if progress is not None:
            progress(min(number + tile, last) - first, draws)
    scores = reaction if waking is None else np.maximum(reaction, floor)
    return Survey(layer, draws, index, reaction, scores, reacted)


def _keep_best(reaction: np.ndarray, index: np.ndarray, answers: np.ndarray, first: int) -> None:
    """Take ``answers [k, n]`` to the starts from ``first`` on into the best ``[k, r]`` so far; of equals the first."""
    better = np.flatnonzero(answers.max(1) > reaction[:, -1])
    if better.size:
        numbers = np.broadcast_to(first + np.arange(answers.shape[1]), (better.size, answers.shape[1]))
        candidates = np.concatenate([reaction[better], answers[better]], axis=1)
        where = np.argsort(-candidates, axis=1, kind="stable")[:, : reaction.shape[1]]
        reaction[better] = np.take_along_axis(candidates, where, axis=1)
        index[better] = np.take_along_axis(np.concatenate([index[better], numbers], axis=1), where, axis=1)


def best_of(parts: list[dict[str, np.ndarray]], keep: int) -> dict[str, np.ndarray]:
    """One answer out of several, in the order of their starts: ``start_index, reaction, scores, reacted``."""
    out = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0] if name != "reacted"}
    best = np.argsort(-out["reaction"], axis=1, kind="stable")[:, :keep]
    joined = {name: np.take_along_axis(array, best, axis=1) for name, array in out.items()}
    return joined | {"reacted": np.sum([part["reacted"] for part in parts], axis=0)}


def check_numbers(draws: int, keep: int, first: int = 0) -> None:
    """Raise a ValueError unless a survey can make so many draws and keep so many of them."""
    if not 1 <= draws <= MAX_DRAWS:
        raise ValueError(f"draws must be between 1 and {MAX_DRAWS}, got {draws}")
    if not 0 <= first <= MAX_DRAWS - draws:
        raise ValueError(f"starts are numbered from 0 to {MAX_DRAWS}; {draws} from {first} on are too many")
    if not 1 <= keep <= draws:
        raise ValueError(f"keep must be between 1 and draws ({draws}), got {keep}")


def make_starts(key: Array, space: Space, index: np.ndarray, *, tile: int | None = None) -> np.ndarray:
    """The starts of a survey, made again: ``z [n, ...]`` of numbers ``index [n]``, the same bits as in the survey.

    Args:
        key: the root key the survey was given.
        space: the survey's image space.
        index: integers ``[n]``.
        tile: the survey's tile.
    """
    tile = checked_tile(tile)
    index = checked_index(index).astype(np.uint32)
    start, stream = start_program(space, tile), keys.stream(key, keys.SURVEY)

    def work(number: int, some: np.ndarray) -> np.ndarray:
        return np.asarray(start(number, stream, padded(some, tile)))[: len(some)]

    return np.concatenate(list(in_flight(work, tiles(index, tile))))


def start_program(space: Space, tile: int) -> Program:
    """What makes starts: a stream's key and uint32 ``[tile]`` numbers in it to ``z [tile, ...]``."""
    key, numbers = jax.eval_shape(jax.random.key, 0), jax.ShapeDtypeStruct((tile,), np.uint32)
    return Program(_make_starts, (space,), (), (key, numbers))


def checked_index(index) -> np.ndarray:
    """Numbers of starts as an integer array ``[n]``; a ValueError if they are not."""
    index = np.asarray(index)
    if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer) or (index < 0).any() or (index > MAX_DRAWS).any():
        raise ValueError(f"starts are numbered by integers [n] from 0 to {MAX_DRAWS}, got {index.dtype} {index.shape}")
    return index


@functools.partial(jax.jit, static_argnums=0, compiler_options=OPTIONS)
def _make_starts(space, stream, index):
    return jax.vmap(lambda i: space.init(jax.random.fold_in(stream, i)))(index)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), compiler_options=OPTIONS)
def _answer(apply, layer, waking: Waking | None, space, params, starts) -> Array:
    """The reaction of every map to every start, ``[n, k]``; minus infinity where it is not finite."""
    activations = apply(params, jax.vmap(space.render)(starts))
    if waking is None:
        reaction = jax.vmap(spatial_mean)(activations[layer])
    else:
        reaction = jax.vmap(waking.every_map)({name: activations[name] for name in (layer, waking.pre)})
    return jnp.where(jnp.isfinite(reaction), reaction, -jnp.inf)
