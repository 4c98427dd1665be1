"""A second thread that works ahead of the phases of a study.

Programs are traced and compiled on one core; meanwhile another core is put to use. Results are the
same without it, only later.
"""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from oipjax.bounds import Limits, refinement_limits
from oipjax.objectives import Map
from oipjax.search import prepare
from oipjax.spaces import Sphere
from oipjax.study.findings import Arrays, Progress
from oipjax.study.plan import Study
from oipjax.study.proofs import certify_maps


class Ahead:
    """Compiles what climbs, proves cheap bounds, and prefetches limits, in this order.

    Args:
        study: the plan.
        report: is told how far a proof is.
    """

    def __init__(self, study: Study, report: Progress):
        self.study = study
        self.report = report
        self._thread = ThreadPoolExecutor(1)
        self._program = self._thread.submit(_compile, study)
        self._bounds: Future[Arrays] | None = None
        self._limits: Future[Limits | None] | None = None
        if study.config.bounds == "cheap":
            self._bounds = self._thread.submit(certify_maps, study, report)

    def wait_for_program(self) -> None:
        """Return once the program that climbs is compiled."""
        self._program.result()

    def prefetch_limits(self, responded: np.ndarray) -> None:
        """Begin to compute the limits that a refinement starts from.

        Args:
            responded: int ``[k]``, how many starts of the survey lift each map above its floor.
        """
        if self._bounds is not None:
            self._limits = self._thread.submit(_limits, self.study, responded, self._bounds)

    def bounds(self) -> Arrays:
        """The bounds of `certify_maps`, computed here unless the thread does."""
        if self._bounds is None:
            return certify_maps(self.study, self.report)
        return self._bounds.result()

    def limits(self) -> Limits | None:
        """The prefetched limits; None if there are none."""
        return None if self._limits is None else self._limits.result()

    def close(self) -> None:
        """Drop what has not begun."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _compile(study: Study) -> None:
    """Compile what climbs, ahead of its first use."""
    prepare(study.model, Map(study.layer), config=study.ascent)


def _limits(study: Study, responded: np.ndarray, bounds: Future[Arrays]) -> Limits | None:
    """The limits that a refinement starts from, where they are quick and may be needed."""
    may_be_needed = (responded == 0) & ~bounds.result()["dead"]
    domain = study.space.domain
    if study.floor is None or not may_be_needed.any() or not isinstance(domain, Sphere):
        return None
    return refinement_limits(study.model, study.layer, domain)
