"""Ways of drawing latent vectors for an autoencoder's decoder."""

from collections.abc import Sequence

import jax
import numpy as np

from oipjax.analysis import Normal, latent

NORMAL = "fitted normal"


def draw(
    codes: np.ndarray,
    normal: Normal,
    labels: np.ndarray | None,
    *,
    boxes: Sequence[float],
    confidences: Sequence[float],
    count: int,
    key: jax.Array,
) -> dict[str, np.ndarray]:
    """Latent vectors ``[count, d]`` by the way they are drawn.

    Args:
        codes: of the training images ``[n, d]``.
        normal: that was fitted to the codes.
        labels: classes of the codes ``[n]``, if there are any.
        boxes: half widths, as multiples of the one whose radii are those of the codes.
        confidences: of the ellipses of pairs.
        count: vectors of each kind.
        key: of the draws.
    """
    dimensions = len(normal.mean)
    keys = [jax.random.fold_in(key, number) for number in range(4)]
    radius = np.median(np.linalg.norm(codes, axis=1))
    half_width = float(radius / np.sqrt(dimensions / 3))
    made = {}
    for factor in boxes:
        half = factor * half_width
        made[f"box, b = {half:.2f}"] = latent.draw_box(keys[0], count, dimensions, half)
    independent = Normal(codes.mean(0), np.eye(dimensions), codes.var(0), 0.0)
    made["normal, no correlations"] = latent.draw_normal(keys[1], independent, count)
    made[NORMAL] = latent.draw_normal(keys[1], normal, count)
    for p in confidences:
        vectors = latent.draw_ellipses(keys[2], normal, count, p)
        made[f"ellipses of pairs, {100 * p:g} %"] = vectors
    ellipsoid = latent.draw_ellipses(keys[3], normal, count, 0.99, together=dimensions)
    made["ellipsoid, 99 %"] = ellipsoid
    if labels is not None:
        made["normal of each class"] = draws_of_classes(key, codes, labels, count)
    return made


def draws_of_classes(
    key: jax.Array, codes: np.ndarray, labels: np.ndarray, count: int
) -> np.ndarray:
    """Draws ``[count, d]`` from the normals of the classes, about as many from each."""
    classes = np.unique(labels)
    share = -(-count // len(classes))
    drawn = []
    for number, label in enumerate(classes):
        normal = latent.fit(codes[labels == label])
        own_key = jax.random.fold_in(key, 10 + number)
        drawn.append(latent.draw_normal(own_key, normal, share))
    return np.concatenate(drawn)[:count]
