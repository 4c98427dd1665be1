"""Many optima: how many distinct patterns a map has, after shifts are taken out.

Ascents from different starts end in images that are alike in structure and differ in detail. Two
images are compared by their highest normalised cross-correlation over shifts, and grouped around
the best ones. The following was decided by looking at the patterns of a small CNN in both image
spaces:

- Images are blurred by one pixel first. Pooling forgives a pixel, a plain correlation does not:
  without the blur, a line that moved by its own width counts as another one.
- Pixels that do not influence the map keep the noise of the start. On the sphere of standardised
  images they fade. In a box they stay, and ``weights`` must remove them; `seen` makes weights of
  the score's gradients.
- A shift moves a part of both images out of the common window. The correlation is normalised over
  that window, and only shifts that keep ``overlap`` of the energy of either image count. A small
  overlap therefore cannot win.
- Groups are led by their best run. A run joins the leader that it is most like, or leads a group of
  its own. Unlike linkage, this cannot chain two different patterns together, and leaders are less
  alike than the threshold.
"""

from dataclasses import dataclass

import numpy as np

THRESHOLD = 0.63
"""1 in 100 pairs of different maps' best patterns reaches it (mnist-cnn, conv3, standardised).

``experiments/optima.py`` measures it.
"""
OVERLAP_ROUNDING = 1e-9
NO_CONTRAST = 1e-6
"""An image is flat if it deviates from its mean by at most this share of its largest value."""
SMALLEST = 1e-300


@dataclass(frozen=True, eq=False)
class Clusters:
    """The distinct patterns of a map. Axes: ``r`` runs, ``g`` groups, the best first.

    A share is one of the given runs. It estimates the size of a basin among starts that were chosen
    in the same way: an atlas climbs from the starts that the map responds to most, not from all.

    Attributes:
        labels: int ``[r]``, the group of each run; -1 if it is inactive.
        counts: int ``[g]``, runs.
        shares: float ``[g]``, of all runs; they and ``inactive`` sum to 1.
        best: float ``[g]``, highest score, descending.
        representative: int ``[g]``, the run with that score.
        inactive: share of the runs whose score is at the floor, or not finite.
    """

    labels: np.ndarray
    counts: np.ndarray
    shares: np.ndarray
    best: np.ndarray
    representative: np.ndarray
    inactive: float


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
    is in the image too, ``sum_p y_i(p) y_j(p + d) / sqrt(sum_p y_i(p)^2 sum_p y_j(p + d)^2)``,
    maximised over ``d`` (J. P. Lewis, "Fast normalized cross-correlation", 1995). An image without
    contrast is like none but itself.

    Args:
        images: ``[r, h, w, c]``.
        weights: ``[r, h, w]``, not negative: how much a pixel counts; all the same unless given.
        blur: standard deviation in pixels of the Gaussian that is applied first; 0 for none.
        reach: largest shift in pixels along h and w; a third of the smaller side unless given.
        overlap: share of the energy, ``sum y^2``, of both images that must lie in the common
            window.

    Returns:
        ``(correlation [r, r], shifts int [r, r, 2])``: image j is most like image i moved by
        ``shifts[i, j]`` (down, right).

    Raises:
        ValueError: shapes do not fit, a value is not finite, or an option is out of range.
    """
    images = _checked(images)
    count, height, width, _ = images.shape
    limit = _checked_reach(reach, height, width)
    if not 0 < overlap <= 1:
        raise ValueError(f"overlap must be above 0 and at most 1, got {overlap}")
    if blur < 0:
        raise ValueError(f"blur must not be negative, got {blur}; 0 is none")
    y = _prepared(images, weights, blur)
    moves = np.arange(-limit, limit + 1)
    size = (height + limit, width + limit)
    spectra = np.fft.rfft2(y, size, axes=(1, 2))
    energy = np.square(y).sum(-1)
    energy_in_window = _window_energy(energy, moves)
    total = energy.sum((1, 2))[:, None, None]
    least = overlap * total - OVERLAP_ROUNDING * total
    is_wide = (energy_in_window >= least) & (total > 0)
    correlation = np.eye(count)
    shifts = np.zeros((count, count, 2), int)
    for i in range(count - 1):
        others = slice(i + 1, count)
        cross = np.fft.irfft2((spectra[i].conj() * spectra[others]).sum(-1), size, axes=(1, 2))
        product = cross[:, moves][:, :, moves]
        # A window that is moved by d for image i is moved by -d for image j.
        other_energy = energy_in_window[others, ::-1, ::-1]
        is_allowed = is_wide[i] & is_wide[others, ::-1, ::-1]
        scale = np.sqrt(energy_in_window[i] * other_energy)
        nothing = np.full_like(product, -np.inf)
        values = np.divide(product, scale, out=nothing, where=is_allowed & (scale > 0))
        values = values.reshape(len(values), -1)
        highest = values.max(1, initial=-np.inf)
        is_known = np.isfinite(highest)
        correlation[i, others] = np.where(is_known, np.clip(highest, -1, 1), 0)
        correlation[others, i] = correlation[i, others]
        down, right = np.divmod(values.argmax(1), len(moves))
        shift = np.stack([moves[down], moves[right]], -1)
        shifts[i, others] = np.where(is_known[:, None], shift, 0)
        shifts[others, i] = -shifts[i, others]
    return correlation, shifts


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
        floor: runs with a score not above it are inactive; None if there is none.
        ncc: ``[r, r]``, the normalised cross-correlations from `similarity`, if they are known (for
            several thresholds); computed unless given.

    Raises:
        ValueError: shapes do not fit, or the threshold is out of range.
    """
    images = _checked(images)
    scores = np.asarray(scores, np.float64)
    count = len(images)
    if scores.shape != (count,):
        raise ValueError(
            f"scores must be one per image, [{count}], got {list(scores.shape)}; "
            "give one map at a time"
        )
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold}")
    if ncc is not None and np.shape(ncc) != (count, count):
        raise ValueError(
            f"ncc must be [{count}, {count}], as similarity returns it, got {list(np.shape(ncc))}"
        )
    if weights is not None:
        weights = _checked_weights(weights, images)
    lowest = -np.inf if floor is None else floor
    active = np.flatnonzero(np.isfinite(scores) & (scores > lowest))
    if ncc is None:
        ncc = np.eye(count)
        if len(active):
            active_weights = None if weights is None else weights[active]
            correlation, _ = similarity(images[active], active_weights)
            ncc[np.ix_(active, active)] = correlation
    best_first = active[np.argsort(-scores[active], kind="stable")]
    labels, leaders = _group(ncc, best_first, threshold)
    counts = np.bincount(labels[active], minlength=len(leaders))
    return Clusters(
        labels=labels,
        counts=counts,
        shares=counts / count,
        best=scores[leaders],
        representative=leaders,
        inactive=1 - len(active) / count,
    )


def _group(ncc: np.ndarray, runs: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The group of each run (-1 for one that is not in ``runs``), and the groups' leaders."""
    labels = np.full(len(ncc), -1)
    leaders: list[int] = []
    for run in runs:
        to_leaders = ncc[run, leaders]
        if leaders and to_leaders.max() >= threshold:
            labels[run] = to_leaders.argmax()
        else:
            labels[run] = len(leaders)
            leaders.append(run)
    return labels, np.array(leaders, int)


def seen(gradients: np.ndarray, *, least: float = 0.1, blur: float = 1.0) -> np.ndarray:
    """Weights of pixels by their influence on a map: 0 where the score does not depend on them.

    The weight is 1 where the blurred size of the gradient reaches the share ``least`` of its
    largest value. Below that it falls in proportion, down to 0.

    Args:
        gradients: ``[r, h, w, c]``, of the score at the image.
        least: share of the largest size.
        blur: standard deviation in pixels of the Gaussian over squared gradients.

    Returns:
        ``[r, h, w]`` in [0, 1]; all zero for an inactive run.

    Raises:
        ValueError: ``gradients`` is not ``[r, h, w, c]`` or not finite, or ``least`` is out of
            range.
    """
    if not 0 < least <= 1:
        raise ValueError(f"least must be above 0 and at most 1, got {least}")
    gradients = _checked(gradients)
    largest = np.abs(gradients).max((1, 2, 3), keepdims=True)
    scaled = gradients / np.maximum(largest, SMALLEST)
    squares = np.square(scaled).sum(-1, keepdims=True)
    size = np.sqrt(_blurred(squares, blur)[..., 0])
    full = least * size.max((1, 2), keepdims=True)
    return np.minimum(size / np.maximum(full, SMALLEST), 1)


def _checked(images: np.ndarray) -> np.ndarray:
    images = np.asarray(images, np.float64)
    if images.ndim != 4 or not images.size:
        raise ValueError(
            f"images must be [r, h, w, c] with at least one, got {list(images.shape)}; "
            "one map at a time"
        )
    if not np.isfinite(images).all():
        raise ValueError("images must be finite; leave out the runs that hold NaN or infinity")
    return images


def _checked_reach(reach: int | None, height: int, width: int) -> int:
    side = min(height, width)
    limit = side // 3 if reach is None else reach
    if not 0 <= limit < side:
        raise ValueError(
            f"reach must be from 0 to {side - 1} for images of {height}x{width}, got {reach}"
        )
    return limit


def _checked_weights(weights: np.ndarray, images: np.ndarray) -> np.ndarray:
    weights = np.asarray(weights, np.float64)
    if weights.shape != images.shape[:3]:
        expected = list(images.shape[:3])
        raise ValueError(f"weights must be [r, h, w], here {expected}, got {list(weights.shape)}")
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("weights must be finite and not negative; 0 leaves a pixel out")
    return weights


def _prepared(images: np.ndarray, weights: np.ndarray | None, blur: float) -> np.ndarray:
    """Images blurred and weighted, with a weighted mean of 0 in each channel.

    An image without contrast becomes exactly 0.
    """
    if weights is None:
        weights = np.ones(images.shape[:3])
    else:
        weights = _checked_weights(weights, images)
    weights = weights[..., None]
    images = _blurred(images, blur)
    total_weight = weights.sum((1, 2), keepdims=True)
    mean = (weights * images).sum((1, 2), keepdims=True) / np.maximum(total_weight, SMALLEST)
    y = weights * (images - mean)
    largest = np.abs(images).max((1, 2, 3), keepdims=True)
    is_flat = np.abs(y).max((1, 2, 3), keepdims=True) <= NO_CONTRAST * largest
    return np.where(is_flat, 0, y / np.maximum(largest, SMALLEST))


def _blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    """Images convolved with a Gaussian over h and w; at the border with its part inside."""
    if not sigma:
        return images
    for axis in (1, 2):
        place = np.arange(images.shape[axis])
        distance = place[:, None] - place
        kernel = np.exp(-0.5 * np.square(distance / sigma))
        kernel /= kernel.sum(1, keepdims=True)
        images = np.moveaxis(np.tensordot(images, kernel, (axis, 1)), -1, axis)
    return images


def _window_energy(energy: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """For each shift ``d`` the energy over pixels ``p`` with ``p + d`` inside the image.

    Args:
        energy: ``[r, h, w]``.
        moves: ``[s]``, shifts along one side.

    Returns:
        ``[r, s, s]``.
    """
    height, width = energy.shape[1:]
    sums = np.pad(energy, ((0, 0), (1, 0), (1, 0))).cumsum(1).cumsum(2)
    first = np.maximum(0, -moves)
    missing = np.maximum(0, moves)
    bottom = height - missing
    right = width - missing
    across = sums[:, :, right] - sums[:, :, first]
    return np.maximum(across[:, bottom] - across[:, first], 0)
