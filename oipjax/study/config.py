"""What a study of a layer does: the options of an atlas, written once."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from oipjax.search import AscentConfig


@dataclass(frozen=True)
class AtlasConfig:
    """The options of an atlas; those of its ascents are inside.

    Attributes:
        ascent: how runs are climbed, and in which image space.
        maps: indices of the maps; ``all`` of the layer unless given.
        draws: random starts that the survey feeds through the network.
        keep: best starts, and so runs and kept patterns, of each map.
        screen: steps of a short first run from every start, of which only the best are continued.
            0: every start is climbed to its end at once. ``auto``: a quarter of ``steps``, or 0 for
            a method that cannot be continued, such as ``Classic``.
        finish: how many of each map's short runs are continued, the best first.
        keep_images: of each map's patterns, how many keep their images; scores and traces are kept
            of all.
        restarts: further random starts for each map that is still unresolved.
        search: the long search for maps that remain unresolved: so many starts from real images,
            and four times as many random ones.
        bounds: how hard to prove upper limits: ``none``, ``cheap`` (seconds) or ``tight`` (minutes).
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
