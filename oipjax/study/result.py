"""What an atlas says of each map: its patterns, how they were found, and the map's status."""

from dataclasses import dataclass

import numpy as np

UNRESOLVED, FOUND, DEAD = range(3)
MAP_STATUS = {
    UNRESOLVED: (
        "unresolved: no image found that lifts the map above its floor, "
        "and no proof that there is none"
    ),
    FOUND: "found: here are images that lift the map above its floor",
    DEAD: "dead: proved that no image of the space lifts the map above its floor",
}
"""What a map's status code says."""
STATUS_NAMES = {UNRESOLVED: "unresolved", FOUND: "found", DEAD: "dead"}

BY_SURVEY = "survey"
BY_PRE_ACTIVATION = "pre-activation"
BY_STRIPS = "strips"
BY_RESTART = "restart"
BY_EXEMPLAR = "exemplar"
BY_RELAXATION = "relaxation"
BY_SEARCH = "search"


@dataclass(frozen=True)
class Atlas:
    """What all maps of a layer respond to most.

    Axes: ``k`` maps, ``r`` kept patterns (best first), ``t`` recorded steps.

    Attributes:
        model: name of the network.
        layer: name of the layer.
        maps: int32 ``[k]``, indices of the maps.
        status: uint8 ``[k]``, see `MAP_STATUS`.
        run_status: uint8 ``[k, r]``, see `oipjax.search.STATUS`.
        images: float32 ``[k, r, h, w, c]``, network inputs; ``apply(params, images)`` gives
            ``scores`` again. With ``keep_images`` only of the first so many patterns.
        scores: float32 ``[k, r]``, means over h, w.
        responses: float32 ``[k, r]``, the score or, where the map is off, its largest
            pre-activation node.
        start_index: int64 ``[k, r]``, the survey's number of the start; -1 where it was not one of
            the survey's.
        start_scores: float32 ``[k, r]``.
        trace: float32 ``[k, r, t]``, scores at ``trace_steps``, as exact as the steps were.
        trace_steps: int32 ``[t]``.
        bound: float64 ``[k]``, a certified upper limit of the score; NaN where none was computed.
        node_bound: float64 ``[k]``, the same of the map's highest node, before the nonlinearity if
            there is one.
        bound_by: str ``[k]``, where the limit of the score comes from.
        responded_fraction: float64 ``[k]``, share of the survey's starts that lift the map above
            its floor.
        draws_seen: int64 ``[k]``, starts that were tried for the map, by survey and restarts.
        gradient_evaluations: int64 ``[k]``.
        found_by: str ``[k]``: ``survey`` (a random start responded), ``pre-activation`` (none did;
            the pre-activation was climbed first), ``restart`` (by further starts), ``exemplar``
            (from real images), ``relaxation`` (from an image that maximises a relaxation),
            ``search`` (by many further starts, or again from the best), ``strips`` (exact search in
            strips of pixels), or empty.
    """

    model: str
    layer: str
    maps: np.ndarray
    status: np.ndarray
    run_status: np.ndarray
    images: np.ndarray
    scores: np.ndarray
    responses: np.ndarray
    start_index: np.ndarray
    start_scores: np.ndarray
    trace: np.ndarray
    trace_steps: np.ndarray
    bound: np.ndarray
    node_bound: np.ndarray
    bound_by: np.ndarray
    responded_fraction: np.ndarray
    draws_seen: np.ndarray
    gradient_evaluations: np.ndarray
    found_by: np.ndarray

    @property
    def achieved(self) -> np.ndarray:
        """``[k]``: the best score as a share of its bound.

        NaN where either is missing or the map is dead.
        """
        is_known = np.isfinite(self.bound) & (self.bound > 0) & (self.status == FOUND)
        limit = np.where(is_known, self.bound, 1)
        return np.where(is_known, self.scores[:, 0] / limit, np.nan)

    @property
    def counts(self) -> dict[str, int]:
        """``{"maps": ..., "found": ..., "dead": ..., "unresolved": ...}``."""
        counts = {"maps": len(self.maps)}
        for code in (FOUND, DEAD, UNRESOLVED):
            counts[STATUS_NAMES[code]] = int(np.sum(self.status == code))
        return counts
