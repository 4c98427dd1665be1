"""Images that come close to a bound, as starts for a search."""

import numpy as np
from jaxtyping import Float32, Integer

from oipjax.bounds.conv.chain import Stage, recognise
from oipjax.bounds.conv.hull import hull_bound
from oipjax.bounds.conv.patches import cells
from oipjax.bounds.conv.shapes import pixel_range, unfit_numbers, unfit_patch
from oipjax.bounds.conv.strip_means import StripMeans, strip_problem
from oipjax.bounds.conv.strips import mean_search
from oipjax.bounds.interval.enclosures import box_ends
from oipjax.model import Model
from oipjax.spaces import Box, Domain


def strip_images(model: Model, layer: str, domain: Domain) -> Float32[np.ndarray, "k h w c"] | None:
    """For every map of a first convolution behind its ReLU an image that is hard to beat.

    Args:
        model: the network.
        layer: name of the layer.
        domain: the set of images.

    Returns:
        float32 ``[k, h, w, c]``, or None where the search of `oipjax.bounds.conv.strips` does not
        fit.
    """
    stack = recognise(model, layer)
    if not isinstance(domain, Box) or StripMeans().fits(stack, domain) is not None:
        return None
    images, _ = mean_search(*strip_problem(stack.stages[0], domain))
    return images.astype(np.float32)


def relaxed_images(
    model: Model, layer: str, domain: Domain, maps: Integer[np.ndarray, " n"]
) -> Float32[np.ndarray, "n r h w c"] | None:
    """For each map the images that maximise its patch hull relaxation.

    A node of the second convolution is relaxed as it is. One of the third is taken without its
    pools and ReLUs in between, once for each position that the pools may all choose.

    Args:
        model: the network.
        layer: name of the layer.
        domain: the set of images.
        maps: int ``[n]``, indices of the maps.

    Returns:
        float32 ``[n, r, h, w, c]``, or None where the hull does not fit.
    """
    stages = recognise(model, layer).stages
    if len(stages) not in (2, 3) or not isinstance(domain, Box):
        return None
    if unfit_numbers(stages) is not None or unfit_patch(stages[0], domain) is not None:
        return None
    first, second = stages[:2]
    if len(stages) == 2:
        weights = np.moveaxis(second.kernel, 3, 0)[maps][:, None]
    else:
        weights = _through_pools(second, stages[2], maps)
    patches = cells(first.kernel, first.bias, first.pool, *pixel_range(domain))
    problems = weights.reshape(-1, *weights.shape[2:])
    _, windows = hull_bound(patches, problems, steps=60, splits=0)
    low, high = box_ends(domain)
    grey = np.broadcast_to((low + high) / 2, (len(windows), *domain.shape))
    images = grey.astype(np.float32)
    images[:, : windows.shape[1], : windows.shape[2]] = windows
    return images.reshape(*weights.shape[:2], *domain.shape)


def _through_pools(second: Stage, third: Stage, maps: np.ndarray) -> np.ndarray:
    """Nodes of a third convolution as weights of the first pooled layer, for each pool position.

    Returns:
        ``[n, q, a, b, c]``.
    """
    kh, kw, features, _ = second.kernel.shape
    a, b = third.kernel.shape[:2]
    pool = second.pool
    height = a * pool + kh - 1
    width = b * pool + kw - 1
    weights = np.zeros((len(maps), pool, pool, height, width, features))
    for i, j, down, right in np.ndindex(a, b, pool, pool):
        outer = third.kernel[i, j][:, maps]
        part = np.einsum("uvcf,fn->nuvc", second.kernel, outer)
        row = i * pool + down
        column = j * pool + right
        weights[:, down, right, row : row + kh, column : column + kw] += part
    return weights.reshape(len(maps), pool * pool, *weights.shape[3:])
