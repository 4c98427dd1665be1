"""oipjax: for every map of a trained CNN, the input patterns that trigger it most.

Names are imported on first use, so ``import oipjax`` alone loads neither JAX nor anything else.

>>> import jax, oipjax
>>> model = oipjax.load()
>>> result = oipjax.atlas(jax.random.key(0), model, "conv3", maps=(120,), draws=256, steps=20)
>>> result.images.shape
(1, 4, 28, 28, 1)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oipjax.model import LayerInfo as LayerInfo
    from oipjax.model import Model as Model
    from oipjax.model import Network as Network
    from oipjax.networks import load as load
    from oipjax.objectives import Class as Class
    from oipjax.objectives import Direction as Direction
    from oipjax.objectives import Layer as Layer
    from oipjax.objectives import Map as Map
    from oipjax.objectives import Node as Node
    from oipjax.objectives import Objective as Objective
    from oipjax.objectives import TotalVariation as TotalVariation
    from oipjax.search import Ascent as Ascent
    from oipjax.search import AscentConfig as AscentConfig
    from oipjax.search import Classic as Classic
    from oipjax.search import Momentum as Momentum
    from oipjax.search import Survey as Survey
    from oipjax.search import ascend as ascend
    from oipjax.search import survey as survey
    from oipjax.spaces import Box as Box
    from oipjax.spaces import Fluctuation as Fluctuation
    from oipjax.spaces import Fluctuations as Fluctuations
    from oipjax.spaces import Standardised as Standardised
    from oipjax.spaces import space_for as space_for
    from oipjax.study import Atlas as Atlas
    from oipjax.study import AtlasConfig as AtlasConfig
    from oipjax.study import atlas as atlas

__version__ = "0.1.0"

_HOME = {
    "Ascent": "search",
    "AscentConfig": "search",
    "Atlas": "study",
    "AtlasConfig": "study",
    "Box": "spaces",
    "Class": "objectives",
    "Classic": "search",
    "Direction": "objectives",
    "Fluctuation": "spaces",
    "Fluctuations": "spaces",
    "Layer": "objectives",
    "LayerInfo": "model",
    "Map": "objectives",
    "Model": "model",
    "Momentum": "search",
    "Network": "model",
    "Node": "objectives",
    "Objective": "objectives",
    "Standardised": "spaces",
    "Survey": "search",
    "TotalVariation": "objectives",
    "ascend": "search",
    "atlas": "study",
    "load": "networks",
    "space_for": "spaces",
    "survey": "search",
}
"""Each public name, and the package or module that defines it."""

_PACKAGES = (
    "analysis",
    "bounds",
    "cli",
    "data",
    "images",
    "jaxpr",
    "keys",
    "model",
    "networks",
    "objectives",
    "ops",
    "plots",
    "pytrees",
    "records",
    "runtime",
    "search",
    "spaces",
    "storage",
    "study",
    "training",
)

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Import a public name, or a package, when it is first used."""
    if name in _HOME:
        value = getattr(importlib.import_module(f"oipjax.{_HOME[name]}"), name)
    elif name in _PACKAGES:
        value = importlib.import_module(f"oipjax.{name}")
    else:
        raise AttributeError(f"module 'oipjax' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """All public names, imported yet or not."""
    return sorted({*globals(), *_HOME, *_PACKAGES})
