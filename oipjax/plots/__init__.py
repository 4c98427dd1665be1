"""Arrays in, figures out: nothing is read, printed or saved here."""

from oipjax.plots.activations import exemplars_figure, maps_figure
from oipjax.plots.atlas import atlas_figure, warm_up
from oipjax.plots.run import oip_figure
from oipjax.plots.style import BLUE, FAINT, INACTIVE, INK, contrast, number
from oipjax.plots.training import (
    confusion_figure,
    history_figure,
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
    "number",
    "oip_figure",
    "reconstruction_figure",
    "warm_up",
]
