"""What patterns and codes tell."""

from oipjax.analysis.activations import exemplars, layer_activations, map_means, separation
from oipjax.analysis.clusters import THRESHOLD, Clusters, cluster, seen, similarity
from oipjax.analysis.latent import Normal
from oipjax.analysis.matching import Matching, correlations, match, over_pairs
from oipjax.analysis.path_similarity import (
    PIXELS,
    Gate,
    alike,
    fooled,
    gate,
    layer_similarities,
    relative,
)

__all__ = [
    "PIXELS",
    "THRESHOLD",
    "Clusters",
    "Gate",
    "Matching",
    "Normal",
    "alike",
    "cluster",
    "correlations",
    "exemplars",
    "fooled",
    "gate",
    "layer_activations",
    "layer_similarities",
    "map_means",
    "match",
    "over_pairs",
    "relative",
    "seen",
    "separation",
    "similarity",
]
