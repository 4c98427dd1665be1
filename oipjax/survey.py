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
from oipjax.images import Space, checked_space
from oipjax.model import Model
from oipjax.objectives import Map, Waking, spatial_mean

TILES = {"cpu": 32}
DEFAULT_TILE = 2048
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


class _Best(NamedTuple):
    """The running answer: reactions and start numbers ``[k, r]``, counts ``[k]``."""

    reaction: Array
    start: Array
    reacted: Array


def survey(
    key: Array,
    model: Model,
    layer: str,
    *,
    space: Space | None = None,
    draws: int = 4096,
    keep: int = 4,
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
        tile: batch size of every compiled program; see `default_tile`.
        progress: called after each tile with (draws done, draws).

    Raises:
        ValueError: unknown layer, or ``draws`` or ``keep`` out of range.
    """
    check_numbers(draws, keep)
    facts = model.layer(layer)
    waking = Waking.of(Map(layer), model)
    space = checked_space(model, space)
    tile = checked_tile(tile)
    stream = keys.stream(key, keys.SURVEY)
    best = _Best(
        jnp.full((facts.maps, keep), -jnp.inf, jnp.float32),
        jnp.zeros((facts.maps, keep), jnp.uint32),
        jnp.zeros(facts.maps, jnp.uint32),
    )
    for first in range(0, draws, tile):
        index = np.arange(first, first + tile, dtype=np.uint64)
        starts = _make_starts(space, stream, (index % 2**32).astype(np.uint32))
        best = _answer(
            model.apply, layer, waking, space, model.params, starts, np.uint32(first), np.uint32(draws), best
        )
        if progress is not None:
            best.reacted.block_until_ready()
            progress(min(first + tile, draws), draws)
    reaction = np.asarray(best.reaction)
    scores = reaction if waking is None else np.maximum(reaction, np.float32(waking.floor))
    reacted = np.asarray(best.reacted).astype(np.int64)
    return Survey(layer, draws, np.asarray(best.start).astype(np.int64), reaction, scores, reacted)


def check_numbers(draws: int, keep: int) -> None:
    """Raise a ValueError unless a survey can make so many draws and keep so many of them."""
    if not 1 <= draws <= MAX_DRAWS:
        raise ValueError(f"draws must be between 1 and {MAX_DRAWS}, got {draws}")
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
    tile, stream = checked_tile(tile), keys.stream(key, keys.SURVEY)
    index = checked_index(index)
    parts = [
        _make_starts(space, stream, padded(part.astype(np.uint32), tile))[: len(part)] for part in tiles(index, tile)
    ]
    return np.concatenate(parts)


def checked_index(index) -> np.ndarray:
    """Numbers of starts as an integer array ``[n]``; a ValueError if they are not."""
    index = np.asarray(index)
    if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer) or (index < 0).any() or (index > MAX_DRAWS).any():
        raise ValueError(f"starts are numbered by integers [n] from 0 to {MAX_DRAWS}, got {index.dtype} {index.shape}")
    return index


def default_tile() -> int:
    """The batch size of every survey and ascent program on this platform.

    One size, whatever is asked for: XLA may round differently for another batch shape, and a long ascent amplifies it.
    """
    return TILES.get(jax.default_backend(), DEFAULT_TILE)


def checked_tile(tile: int | None) -> int:
    """``tile``, or the default one; a ValueError if it is not positive."""
    if tile is None:
        return default_tile()
    if tile < 1:
        raise ValueError(f"tile must be at least 1, got {tile}")
    return tile


def tiles(array: np.ndarray, tile: int) -> list[np.ndarray]:
    """``array [n, ...]`` in pieces of at most ``tile``."""
    return [array[i : i + tile] for i in range(0, len(array), tile)]


def padded(array: np.ndarray, tile: int) -> np.ndarray:
    """``array [n, ...]`` filled up to ``[tile, ...]`` with its last element; nothing looks at the filling."""
    return np.concatenate([array, np.repeat(array[-1:], tile - len(array), axis=0)])


@functools.partial(jax.jit, static_argnums=0)
def _make_starts(space, stream, index):
    return jax.vmap(lambda i: space.init(jax.random.fold_in(stream, i)))(index)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=8)
def _answer(apply, layer, waking: Waking | None, space, params, starts, first, draws, best: _Best) -> _Best:
    activations = apply(params, jax.vmap(space.render)(starts))
    tile, keep = starts.shape[0], best.start.shape[1]
    position = jnp.arange(tile, dtype=jnp.uint32)
    valid = position < draws - first
    if waking is None:
        reaction = jax.vmap(spatial_mean)(activations[layer])
        reacted = valid[:, None] & jnp.isfinite(reaction)
    else:
        reaction = jax.vmap(waking.every_map)({name: activations[name] for name in (layer, waking.pre)})
        reacted = valid[:, None] & (reaction > waking.floor)
    reaction = jnp.where(valid[:, None] & jnp.isfinite(reaction), reaction, -jnp.inf)
    # Of equals the first stays first (top_k is stable), so the answer does not depend on the tile.
    candidates = jnp.concatenate([best.reaction, reaction.T], axis=1)
    top, where = jax.lax.top_k(candidates, keep)
    index = jnp.concatenate([best.start, jnp.broadcast_to(first + position, (reaction.shape[1], tile))], axis=1)
    return _Best(
        top, jnp.take_along_axis(index, where, axis=1), best.reacted + jnp.sum(reacted, axis=0, dtype=jnp.uint32)
    )
