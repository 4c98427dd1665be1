"""Gradient ascent of many runs, each a pair (target, start).

A run is written for one image in `oipjax.search.step`; `oipjax.search.engine` makes many of them.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax import Array
from jaxtyping import Key

from oipjax import keys
from oipjax.model import Model
from oipjax.objectives import Objective
from oipjax.runtime import checked_precision
from oipjax.search.config import AscentConfig, most_report_steps, replace_options
from oipjax.search.engine import Engine, Job, StartsOf
from oipjax.search.precursor import Progress
from oipjax.search.results import Ascent, concatenate
from oipjax.search.starts import Starts, checked_start_numbers, images_of
from oipjax.search.step import Problem
from oipjax.spaces import Space, space_shapes


def ascend(
    key: Key[Array, ""],
    model: Model,
    objective: Objective,
    targets: Any,
    starts: Any,
    *,
    config: AscentConfig = AscentConfig(),
    progress: Progress | None = None,
    **changes: Any,
) -> Ascent:
    """Climb ``objective`` from each start towards its target, all runs in batches of one size.

    Args:
        key: the root key. Starts given by number are made from it, as the survey made them.
        model: the network.
        objective: the score to climb, e.g. ``Map("conv3")``.
        targets: the objective's targets, one for each run, e.g. map indices ``[n]``; None if it
            takes none.
        starts: integers ``[n]``, numbers of the survey's starts; or floats ``[n, ...]``, a ``z`` of
            the space for each run, which is projected first.
        config: the options.
        progress: called after each tile with (runs done, runs).
        **changes: options that differ from ``config``, by the names of `AscentConfig`.

    Raises:
        ValueError: a layer, target or shape does not fit the network, or an option is unknown or
            out of range.
    """
    parts = ascend_tiles(
        key, model, objective, targets, starts, config=config, progress=progress, **changes
    )
    count = np.shape(starts)[0] if np.ndim(starts) else 0
    return concatenate(parts, count)


def ascend_tiles(
    key: Key[Array, ""],
    model: Model,
    objective: Objective,
    targets: Any,
    starts: Any,
    *,
    config: AscentConfig = AscentConfig(),
    progress: Progress | None = None,
    **changes: Any,
) -> Iterator[Ascent]:
    """As `ascend`, but each tile of runs is yielded as soon as it is finished, in order."""
    keys.check(key)
    config = replace_options(config, changes)
    space = config.image_space(model)
    tile = config.tile_size
    targets = objective.check(model, targets)
    starts = _checked_starts(space, starts, tile)
    _check_lengths(targets, starts)
    count = len(starts)
    engine = _engine(model, objective, targets, config)
    job = Job(
        starts_of=_starts_of(key, space, starts, tile),
        targets=targets,
        count=count,
        recorded_steps=config.recorded_steps,
    )
    done = 0
    for part in engine.run(job):
        yield part
        done += len(part.scores)
        if progress is not None:
            progress(done, count)


def prepare(
    model: Model,
    objective: Objective,
    *,
    config: AscentConfig = AscentConfig(),
    **changes: Any,
) -> None:
    """Compile the program of `ascend` with the same options ahead of its use.

    It may be called from another thread.

    Args:
        model: the network.
        objective: the score to climb; its target must be a map's index.
        config: the options; neither ``steps`` nor the number of runs matters.
        **changes: options that differ from ``config``, by the names of `AscentConfig`.
    """
    config = replace_options(config, changes)
    target = objective.check(model, np.zeros(1, int))
    _engine(model, objective, target, config)


def _engine(model: Model, objective: Objective, targets: Any, config: AscentConfig) -> Engine:
    problem = Problem(
        network=model.network,
        objective=objective,
        pre_activation=objective.pre_activation(model),
        space=config.image_space(model),
        method=config.method,
        criterion=config.criterion,
        record_images=config.record_images,
        precision=checked_precision(config.precision),
        stop=config.stop,
    )
    most_reports = most_report_steps(config.reports)
    return Engine(problem, model.params, targets, most_reports, config.tile_size)


def _checked_starts(space: Space, starts: Any, tile: int) -> np.ndarray:
    """Starts as numbers, uint32 ``[n]``, or as points of the space, float32 ``[n, ...]``."""
    starts = np.asarray(starts)
    if not starts.size:
        raise ValueError("no starts given")
    if np.issubdtype(starts.dtype, np.integer) and starts.ndim == 1:
        return checked_start_numbers(starts).astype(np.uint32)
    shape = space_shapes(space)[0]
    if starts.shape[1:] != shape or not np.issubdtype(starts.dtype, np.floating):
        expected = ", ".join(map(str, shape))
        given = f"{starts.dtype}{list(starts.shape)}"
        raise ValueError(f"starts are integers [n] or floats [n, {expected}], got {given}")
    is_valid = space.domain.contains(images_of(space, starts, tile=tile))
    if not is_valid.all():
        first = np.flatnonzero(~is_valid)[0]
        name = type(space).__name__
        raise ValueError(f"start {first} cannot be made an image of {name} (is it constant?)")
    return starts.astype(np.float32)


def _check_lengths(targets: Any, starts: np.ndarray) -> None:
    lengths = {len(leaf) for leaf in jax.tree.leaves(targets)}
    if lengths - {len(starts)}:
        given = sorted(lengths | {len(starts)})
        raise ValueError(
            f"one target per start: got {len(starts)} starts and targets of length {given}"
        )


def _starts_of(key: Array, space: Space, starts: np.ndarray, tile: int) -> StartsOf:
    """A function from a worker and numbers of runs ``[m]`` to their starts ``z [m, ...]``."""
    if np.issubdtype(starts.dtype, np.floating):
        return lambda worker, numbers: starts[numbers]
    program = Starts(space, tile)
    stream = keys.stream(key, keys.SURVEY)
    return lambda worker, numbers: program.array(worker, stream, starts[numbers])
