"""Survey, ascend, prove, restart: every map of a layer."""

from oipjax.study.config import AtlasConfig
from oipjax.study.findings import Progress
from oipjax.study.plan import Study, plan_study
from oipjax.study.result import (
    BY_EXEMPLAR,
    BY_PRE_ACTIVATION,
    BY_RELAXATION,
    BY_RESTART,
    BY_SEARCH,
    BY_STRIPS,
    BY_SURVEY,
    DEAD,
    FOUND,
    MAP_STATUS,
    STATUS_NAMES,
    UNRESOLVED,
    Atlas,
)
from oipjax.study.run import atlas, run_study

__all__ = [
    "BY_EXEMPLAR",
    "BY_PRE_ACTIVATION",
    "BY_RELAXATION",
    "BY_RESTART",
    "BY_SEARCH",
    "BY_STRIPS",
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
    "plan_study",
    "run_study",
]
