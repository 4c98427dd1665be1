"""The results of runs: their status, and how the results of several groups become one."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Integer, Shaped, UInt8

COMPLETED = 0
CONVERGED = 1
INACTIVE = 2
NOT_FINITE = 3
STATUS = {
    COMPLETED: "ran all its steps",
    CONVERGED: "converged: the relative change of the score fell below the criterion",
    INACTIVE: "inactive: the map never rose above its floor",
    NOT_FINITE: "not finite: a score or gradient became NaN or infinite; "
    "the best image before that is kept",
}
"""Each status code of a run, as a sentence."""


class Ascent(NamedTuple):
    """The results of ``n`` runs; ``t`` counts recorded steps.

    Compiled programs return it with arrays of JAX; everybody else gets arrays of numpy.

    Attributes:
        images: float32 ``[n, h, w, c]``, the best image of each run, as network input.
        scores: float32 ``[n]``, its score; never below ``start_scores``.
        start_scores: float32 ``[n]``, the score of the start.
        responses: float32 ``[n]``, the score or, where a map is inactive, its largest value before
            the nonlinearity.
        status: uint8 ``[n]``, see `STATUS`.
        evaluations: int32 ``[n]``, gradients computed.
        converged: int32 ``[n]``, the first step that met the criterion; -1 if none did.
        trace_steps: int32 ``[t]``, the recorded steps; after an early stop the last value repeats.
        trace: float32 ``[n, t]``, the scores there.
        changes: float32 ``[n, t]``, the change of the score by the last update there (the score
            itself at step 0).
        trace_images: float32 ``[n, t, h, w, c]``, the images there; ``[n, t, 0]`` if they are not
            recorded.
    """

    images: Float32[np.ndarray, "n h w c"]
    scores: Float32[np.ndarray, " n"]
    start_scores: Float32[np.ndarray, " n"]
    responses: Float32[np.ndarray, " n"]
    status: UInt8[np.ndarray, " n"]
    evaluations: Int32[np.ndarray, " n"]
    converged: Int32[np.ndarray, " n"]
    trace_steps: Int32[np.ndarray, " t"]
    trace: Float32[np.ndarray, "n t"]
    changes: Float32[np.ndarray, "n t"]
    trace_images: Float32[np.ndarray, "n t h w c"] | Float32[np.ndarray, "n t 0"]


RUN_FIELDS = tuple(name for name in Ascent._fields if name != "trace_steps")
"""The fields of an `Ascent` that have one entry for each run."""


def concatenate(parts: Iterable[Ascent], count: int) -> Ascent:
    """Several groups of runs as one; each part is released as soon as it is copied.

    Args:
        parts: the groups, in order.
        count: the number of all runs.

    Raises:
        ValueError: the parts do not have ``count`` runs.
    """
    joined: dict[str, np.ndarray] = {}
    first = 0
    for part in parts:
        last = first + len(part.scores)
        for name in RUN_FIELDS:
            array = getattr(part, name)
            if name not in joined:
                joined[name] = np.empty((count, *array.shape[1:]), array.dtype)
            joined[name][first:last] = array
        joined["trace_steps"] = part.trace_steps
        first = last
    if first != count:
        raise ValueError(f"expected {count} runs, got {first}")
    return Ascent(**joined)


def continued(first: Ascent, place: Integer[np.ndarray, " m"], further: Ascent) -> Ascent:
    """Runs of which some were climbed on from their best images; the records are joined.

    Args:
        first: ``n`` runs.
        place: integers ``[m]``, which of them were climbed on.
        further: the ``m`` runs that began at their best images.

    Returns:
        ``n`` runs with the recorded steps of both. Where a run was not climbed on, its last
        recorded values repeat.
    """
    offset = first.trace_steps[-1] + 1
    is_better = further.responses > first.responses[place]
    improved = {}
    for name in ("images", "scores", "responses"):
        values = np.array(getattr(first, name))
        values[place[is_better]] = getattr(further, name)[is_better]
        improved[name] = values

    # A failure in either half is a failure. Otherwise the second half says how the run ended.
    status = np.array(first.status)
    has_failed = first.status[place] == NOT_FINITE
    status[place] = np.where(has_failed, NOT_FINITE, further.status)

    converged = np.array(first.converged)
    converged_later = np.where(further.converged >= 0, offset + further.converged, -1)
    converged_before = first.converged[place]
    converged[place] = np.where(converged_before >= 0, converged_before, converged_later)

    evaluations = np.array(first.evaluations)
    evaluations[place] += further.evaluations

    return first._replace(
        **improved,
        status=status,
        converged=converged,
        evaluations=evaluations,
        trace_steps=np.concatenate([first.trace_steps, offset + further.trace_steps]),
        trace=_continued_trace(first.trace, place, further.trace),
        changes=_continued_trace(first.changes, place, further.changes),
        trace_images=_continued_trace(first.trace_images, place, further.trace_images),
    )


def _continued_trace(
    first: Shaped[np.ndarray, "n t ..."],
    place: Integer[np.ndarray, " m"],
    further: Shaped[np.ndarray, "m u ..."],
) -> Shaped[np.ndarray, "n t+u ..."]:
    """``first [n, t, ...]`` and, at ``place [m]``, ``further [m, u, ...]``: ``[n, t + u, ...]``."""
    rest = np.repeat(first[:, -1:], further.shape[1], axis=1)
    rest[place] = further
    return np.concatenate([first, rest], axis=1)
