"""What every phase of a study is given."""

from dataclasses import dataclass

from oipjax.study.ahead import Ahead
from oipjax.study.findings import Progress, Store
from oipjax.study.plan import Study


@dataclass(frozen=True, eq=False)
class Work:
    """The work at hand.

    Attributes:
        study: the plan.
        store: keeps finished parts.
        report: is told how far a phase is.
        ahead: the second thread.
    """

    study: Study
    store: Store
    report: Progress
    ahead: Ahead
