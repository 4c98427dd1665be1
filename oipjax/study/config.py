"""What a study of a layer does: the options of an atlas, written once."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from oipjax.search import AscentConfig


@dataclass(frozen=True)
class AtlasConfig:
    """The options of an atlas; the options of its ascents are inside.

    Attributes:
        ascent: how runs are climbed, and in which image space.
        maps: indices of the maps, or ``all`` of the layer.
        draws: random starts that the survey feeds through the network.
        keep: best starts of each map; so many runs are climbed, and so many patterns are kept.
        screen: steps of a short first run from every start, of which only the best are continued.
            0: every start is climbed to its end at once. ``auto``: a quarter of ``steps``, or 0 for
            a method that cannot be continued, such as ``Classic``.
        finish: how many of each map's short runs are continued, the best first.
        keep_images: how many of each map's patterns keep their images, the best first. Scores and
            traces are kept of all patterns.
        restarts: further random starts for each map that is unresolved after the survey's best
            starts have been climbed.
        search: how hard to search for maps that are still unresolved. Each gets so many starts from
            ``exemplars``, those that it responds to most. Next come images that maximise a
            relaxation of the map (in a box), then four times as many random starts. Last, its best
            images are climbed again, up to three times, as long as that improves them.
        bounds: how hard to prove upper limits: ``none``, ``cheap`` (seconds) or ``tight``
            (minutes).
        exemplars: real images ``[n, h, w, c]``, network inputs, that further starts are taken from.
    """

    ascent: AscentConfig = AscentConfig()
    maps: tuple[int, ...] | Literal["all"] = "all"
    draws: int = 4096
    keep: int = 4
    screen: int | Literal["auto"] = "auto"
    finish: int = 1
    keep_images: int | Literal["all"] = "all"
    restarts: int = 4
    search: int = 16
    bounds: Literal["none", "cheap", "tight"] = "cheap"
    exemplars: np.ndarray | None = field(default=None, compare=False, repr=False)
