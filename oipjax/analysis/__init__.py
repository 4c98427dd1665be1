"""What patterns, activations and codes tell."""

from oipjax.analysis import activations, clusters, latent, matching, path_similarity, readout
from oipjax.analysis.activations import class_means, exemplars, layer_activations, map_means
from oipjax.analysis.clusters import THRESHOLD, Clusters, cluster, seen, similarity
from oipjax.analysis.latent import Normal
from oipjax.analysis.matching import Matching, correlations, match, over_pairs
from oipjax.analysis.path_similarity import PIXELS, alike, layer_similarities, relative

__all__ = [
    "PIXELS",
    "THRESHOLD",
    "Clusters",
    "Matching",
    "Normal",
    "activations",
    "alike",
    "class_means",
    "cluster",
    "clusters",
    "correlations",
    "exemplars",
    "latent",
    "layer_activations",
    "layer_similarities",
    "map_means",
    "match",
    "matching",
    "over_pairs",
    "path_similarity",
    "readout",
    "relative",
    "seen",
    "similarity",
]
