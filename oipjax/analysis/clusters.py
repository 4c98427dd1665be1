"""Many optima: how many distinct patterns a map has, after shifts are taken out.

Ascents from different starts end in images that are alike in structure and differ in detail. Two
images are compared by their highest normalised cross-correlation over shifts, and grouped around
the best ones. What was decided, by looking at the patterns of a small CNN in both image spaces:

- Images are blurred by one pixel first. Pooling forgives a pixel, a plain correlation does not:
  without the blur, a line that moved by its own width counts as another one.
- Pixels that the map does not see keep the noise of the start. On the sphere of
  `images.Standardised` they fade by themselves; in a box they stay, and ``weights`` must take them
  out: `seen` makes them of the score's gradients.
- A shift moves a part of both images out of the common window. The correlation is normalised over
  that window, and only shifts that keep ``overlap`` of the energy of either image count, so a small
  overlap cannot win.
- Groups are led by their best run: a run joins the leader it is most like, or leads a group of its
  own. Unlike linkage, this cannot chain two different patterns together, and leaders are less alike
  than the threshold.
"""

from dataclasses import dataclass

import numpy as np

THRESHOLD = 0.63
"""1 in 100 pairs of different maps' best patterns reaches it: mnist-cnn, conv3, standardised (experiments.optima)."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """The distinct patterns of a map. Axes: ``r`` runs, ``g`` groups, the best first.

    A share is one of the runs that were given. It estimates the basin's size among starts chosen in
    the same way: an atlas climbs from the starts that the map responds to most, not from all.

    Attributes:
        labels: int ``[r]``, the group of each run; -1 if it is silent.
        counts: int ``[g]``, runs.
        shares: float ``[g]``, of all runs; they and ``silent`` sum to 1.
        best: float ``[g]``, highest score, descending.
        representative: int ``[g]``, the run with that score.
        silent: share of the runs whose score is at the floor, or not finite.
    """

    labels: np.ndarray
    counts: np.ndarray
    shares: np.ndarray
    best: np.ndarray
    representative: np.ndarray
    silent: float


def similarity(
    images: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    blur: float = 1.0,
    reach: int | None = None,
    overlap: float = 0.9,
) -> tuple[np.ndarray, np.ndarray]:
    """The highest normalised cross-correlation of each image with each other one over shifts.

    With ``y = weights * (image - weighted mean)`` it is, over the pixels ``p`` for which ``p + d``
    is in the image too, ``sum_p y_i(p) y_j(p + d) / sqrt(sum_p y_i(p)^2 sum_p y_j(p + d)^2)`` (J.
    P. Lewis, "Fast normalized cross-correlation", 1995), maximised over ``d``. An image without
    contrast is like none but itself.

    Args:
        images: ``[r, h, w, c]``.
        weights: ``[r, h, w]``, not negative: how much a pixel counts; all the same unless given.
        blur: standard deviation in pixels of the Gaussian that is applied first; 0 for none.
        reach: largest shift in pixels along h and w; a third of the smaller side unless given.
        overlap: share of the energy, ``sum y^2``, of both images that must lie in the common
            window.

    Returns:
        ``(ncc [r, r], shifts int [r, r, 2])``: image j is most like image i moved by ``shifts[i,
            j]`` (down, right).

    Raises:
        ValueError: shapes do not fit, a value is not finite, or an option is out of range.
    """
    images = _checked(images)
    count, height, width, _ = images.shape
    side = min(height, width)
    limit = side // 3 if reach is None else reach
    if not 0 <= limit < side:
        raise ValueError(
            f"reach must be from 0 to {side - 1} for images of {height}x{width}, got {reach}"
        )
    if not 0 < overlap <= 1:
        raise ValueError(f"overlap must be above 0 and at most 1, got {overlap}")
    if blur < 0:
        raise ValueError(f"blur must not be negative, got {blur}; 0 is none")
    y = _prepared(images, weights, blur)
    moves = np.arange(-limit, limit + 1)
    size = (height + limit, width + limit)
    waves = np.fft.rfft2(y, size, axes=(1, 2))
    energy = np.square(y).sum(-1)
    inside = _window_energy(energy, moves)
    total = energy.sum((1, 2))[:, None, None]
    wide = (inside >= overlap * total - 1e-9 * total) & (total > 0)
    ncc, shifts = np.eye(count), np.zeros((count, count, 2), int)
    for i in range(count - 1):
        rest = slice(i + 1, count)
        product = np.fft.irfft2((waves[i].conj() * waves[rest]).sum(-1), size, axes=(1, 2))[
            :, moves
        ][:, :, moves]
        # Moved by d seen from i is moved by -d seen from j.
        other, allowed = inside[rest, ::-1, ::-1], wide[i] & wide[rest, ::-1, ::-1]
        scale = np.sqrt(inside[i] * other)
        values = np.divide(
            product, scale, out=np.full_like(product, -np.inf), where=allowed & (scale > 0)
        )
        values = values.reshape(len(values), -1)
        place = values.argmax(1)
        highest = values.max(1, initial=-np.inf)
        known = np.isfinite(highest)
        ncc[i, rest] = ncc[rest, i] = np.where(known, np.clip(highest, -1, 1), 0)
        down, right = np.divmod(place, len(moves))
        shifts[i, rest] = np.where(known[:, None], np.stack([moves[down], moves[right]], -1), 0)
        shifts[rest, i] = -shifts[i, rest]
    return ncc, shifts


def cluster(
    images: np.ndarray,
    scores: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    threshold: float = THRESHOLD,
    floor: float | None = 0.0,
    ncc: np.ndarray | None = None,
) -> Clusters:
    """Group the kept patterns of one map.

    >>> atlas = oipjax.atlas(key, model, "conv3", keep=32)  # doctest: +SKIP
    >>> cluster(atlas.images[120], atlas.scores[120]).shares  # doctest: +SKIP

    Args:
        images: ``[r, h, w, c]``, of one map.
        scores: ``[r]``.
        weights: ``[r, h, w]``, see `similarity`.
        threshold: two images at least as similar as this show the same pattern.
        floor: runs with a score not above it are silent; None if there is none.
        ncc: ``[r, r]``, from `similarity`, if it is known (for several thresholds); computed unless
            given.

    Raises:
        ValueError: shapes do not fit, or the threshold is out of range.
    """
    images, scores = _checked(images), np.asarray(scores, np.float64)
    count = len(images)
    if scores.shape != (count,):
        raise ValueError(
            f"scores must be one per image, [{count}], got {list(scores.shape)}; give one map at a time"
        )
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold}")
    if ncc is not None and np.shape(ncc) != (count, count):
        raise ValueError(
            f"ncc must be [{count}, {count}], as similarity returns it, got {list(np.shape(ncc))}"
        )
    if weights is not None:
        weights = _checked_weights(weights, images)
    live = np.flatnonzero(np.isfinite(scores) & (scores > (-np.inf if floor is None else floor)))
    if ncc is None:
        ncc = np.eye(count)
        some = None if weights is None else weights[live]
        if len(live):
            ncc[np.ix_(live, live)] = similarity(images[live], some)[0]
    labels, leaders = np.full(count, -1), []
    for run in live[np.argsort(-scores[live], kind="stable")]:
        alike = ncc[run, leaders]
        if len(leaders) and alike.max() >= threshold:
            labels[run] = alike.argmax()
        else:
            labels[run] = len(leaders)
            leaders.append(run)
    counts = np.bincount(labels[live], minlength=len(leaders))
    leaders = np.array(leaders, int)
    return Clusters(labels, counts, counts / count, scores[leaders], leaders, 1 - len(live) / count)


def seen(gradients: np.ndarray, *, least: float = 0.1, blur: float = 1.0) -> np.ndarray:
    """Weights that leave out what a map does not see: 0 where the score does not depend on a pixel's surroundings.

    The weight rises in proportion to the blurred size of the gradient and is 1 from ``least`` of
    its largest on.

    Args:
        gradients: ``[r, h, w, c]``, of the score at the image.
        least: share of the largest size.
        blur: standard deviation in pixels of the Gaussian over squared gradients.

    Returns:
        ``[r, h, w]`` in [0, 1]; all zero for a silent run.

    Raises:
        ValueError: these are no gradients of images, or ``least`` is out of range.
    """
    if not 0 < least <= 1:
        raise ValueError(f"least must be above 0 and at most 1, got {least}")
    gradients = _checked(gradients)
    gradients = gradients / np.maximum(np.abs(gradients).max((1, 2, 3), keepdims=True), 1e-300)
    size = np.sqrt(_blurred(np.square(gradients).sum(-1, keepdims=True), blur)[..., 0])
    return np.minimum(size / np.maximum(least * size.max((1, 2), keepdims=True), 1e-300), 1)


def _checked(images: np.ndarray) -> np.ndarray:
    images = np.asarray(images, np.float64)
    if images.ndim != 4 or not images.size:
        raise ValueError(
            f"images must be [r, h, w, c] with at least one, got {list(images.shape)}; one map at a time"
        )
    if not np.isfinite(images).all():
        raise ValueError("images must be finite; leave out the runs that hold NaN or infinity")
    return images


def _checked_weights(weights: np.ndarray, images: np.ndarray) -> np.ndarray:
    weights = np.asarray(weights, np.float64)
    if weights.shape != images.shape[:3]:
        raise ValueError(
            f"weights must be [r, h, w], here {list(images.shape[:3])}, got {list(weights.shape)}"
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("weights must be finite and not negative; 0 leaves a pixel out")
    return weights


def _prepared(images: np.ndarray, weights: np.ndarray | None, blur: float) -> np.ndarray:
    """Blurred, weighted, with a weighted mean of zero in each channel; exactly zero without contrast."""
    weights = np.ones(images.shape[:3]) if weights is None else _checked_weights(weights, images)
    weights = weights[..., None]
    images = _blurred(images, blur)
    mean = (weights * images).sum((1, 2), keepdims=True) / np.maximum(
        weights.sum((1, 2), keepdims=True), 1e-300
    )
    y = weights * (images - mean)
    largest = np.abs(images).max((1, 2, 3), keepdims=True)
    flat = np.abs(y).max((1, 2, 3), keepdims=True) <= 1e-6 * largest
    return np.where(flat, 0, y / np.maximum(largest, 1e-300))


def _blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    """Convolved with a Gaussian over h and w; at the border with what of it lies inside."""
    for axis in (1, 2) if sigma else ():
        place = np.arange(images.shape[axis])
        kernel = np.exp(-0.5 * np.square((place[:, None] - place) / sigma))
        kernel /= kernel.sum(1, keepdims=True)
        images = np.moveaxis(np.tensordot(images, kernel, (axis, 1)), -1, axis)
    return images


def _window_energy(energy: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """``[r, s, s]``: for each shift ``d`` the energy of ``[r, h, w]`` over pixels ``p`` with ``p + d`` inside."""
    height, width = energy.shape[1:]
    sums = np.pad(energy, ((0, 0), (1, 0), (1, 0))).cumsum(1).cumsum(2)
    first, last = np.maximum(0, -moves), -np.maximum(0, moves)
    top, bottom, left, right = first, height + last, first, width + last
    across = sums[:, :, right] - sums[:, :, left]
    return np.maximum(across[:, bottom] - across[:, top], 0)
