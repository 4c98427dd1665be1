"""Survey, ascend, prove, restart: every map of a layer."""

from oipjax.study.config import AtlasConfig
from oipjax.study.result import (
    BY_EXEMPLAR,
    BY_PRE_ACTIVATION,
    BY_SURVEY,
    DEAD,
    FOUND,
    MAP_STATUS,
    STATUS_NAMES,
    UNRESOLVED,
    Atlas,
)
from oipjax.study.run import Progress, Study, atlas

__all__ = [
    "BY_EXEMPLAR",
    "BY_PRE_ACTIVATION",
    "BY_SURVEY",
    "DEAD",
    "FOUND",
    "MAP_STATUS",
    "STATUS_NAMES",
    "UNRESOLVED",
    "Atlas",
    "AtlasConfig",
    "Progress",
    "Study",
    "atlas",
]
