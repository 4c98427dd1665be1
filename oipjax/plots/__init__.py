"""Arrays in, figures out."""

from oipjax.plots.activations import exemplars_figure, maps_figure
from oipjax.plots.atlas import (
    BLUE,
    FAINT,
    INACTIVE,
    INK,
    atlas_figure,
    confusion_figure,
    contrast,
    history_figure,
    oip_figure,
    reconstruction_figure,
)

__all__ = [
    "BLUE",
    "FAINT",
    "INACTIVE",
    "INK",
    "atlas_figure",
    "confusion_figure",
    "contrast",
    "exemplars_figure",
    "history_figure",
    "maps_figure",
    "oip_figure",
    "reconstruction_figure",
]
