"""What patterns and codes tell."""

from oipjax.analysis.activations import activations, exemplars, map_means, separation
from oipjax.analysis.clusters import THRESHOLD, Clusters, cluster, seen, similarity
from oipjax.analysis.latent import Normal
from oipjax.analysis.matching import Matching, correlations, match, over_pairs
from oipjax.analysis.path_similarity import (
    PIXELS,
    Gate,
    alike,
    fooled,
    gate,
    path_similarity,
    relative,
)

__all__ = [
    "PIXELS",
    "THRESHOLD",
    "Clusters",
    "Gate",
    "Matching",
    "Normal",
    "activations",
    "alike",
    "cluster",
    "correlations",
    "exemplars",
    "fooled",
    "gate",
    "map_means",
    "match",
    "over_pairs",
    "path_similarity",
    "relative",
    "seen",
    "separation",
    "similarity",
]
