"""The options of an ascent, written once."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from oipjax.model import Model
from oipjax.runtime import PRECISIONS, checked_tile
from oipjax.search.methods import Method, Momentum
from oipjax.spaces import Space, checked_space, space_for

MAX_DOUBLINGS = 62
"""More doublings than this exceed any number of steps."""

Config = TypeVar("Config")


@dataclass(frozen=True)
class AscentConfig:
    """The options of an ascent; `oipjax.ascend`, `oipjax.survey` and `oipjax.atlas` share them.

    An option that is None takes its default.

    Attributes:
        space: the image space, or the name of one: ``standardised`` (images of mean 0 and standard
            deviation 1) or ``box`` (all valid pixels).
        method: how to climb: by long steps with momentum, or by ``Classic``, the reference rule.
        steps: number of scores, and so of gradients, of each run; ``steps - 1`` updates.
        reports: how many scores are recorded between the first and the last one.
        criterion: relative change of the score per step below which a run counts as converged.
        stop: end a run once it has converged.
        record_images: keep the image at every report.
        precision: of the steps' products on a GPU: ``tf32`` and ``bf16`` are faster. Scores and
            responses are those of ``float32`` in any case, and so is the status ``inactive``; the
            trace and the step of convergence are those that the steps computed.
        tile: batch size of all compiled programs; it is part of what decides the last bits.
            ``auto``: 16 on a CPU, 2,048 elsewhere.

    Raises:
        ValueError: an option is out of range, or there is no precision of that name.
    """

    space: Space | str = "standardised"
    method: Method = Momentum()
    steps: int = 100
    reports: int = 6
    criterion: float = 2e-4
    stop: bool = False
    record_images: bool = False
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    tile: int | Literal["auto"] = "auto"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is None:
                object.__setattr__(self, field.name, field.default)
        report_steps(self.steps, self.reports)
        if not self.criterion >= 0:
            raise ValueError(f"criterion is a relative change, 0 or more, got {self.criterion}")
        if self.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise ValueError(f"unknown precision {self.precision!r}; there are {known}")
        if self.tile != "auto":
            checked_tile(self.tile)

    @property
    def tile_size(self) -> int:
        """The batch size as a number."""
        return checked_tile(None if self.tile == "auto" else self.tile)

    @property
    def recorded_steps(self) -> tuple[int, ...]:
        """The steps at which the score is recorded, see `report_steps`."""
        return report_steps(self.steps, self.reports)

    def image_space(self, model: Model) -> Space:
        """The image space as a value.

        Raises:
            ValueError: there is no space of that name, or the model does not take its images.
        """
        if isinstance(self.space, str):
            return space_for(model, self.space)
        return checked_space(model, self.space)


def report_steps(steps: int, reports: int) -> tuple[int, ...]:
    """The recorded steps: 0, ``steps - 1``, and ``max(1, steps // 2**reports) * 2**i`` in between.

    >>> report_steps(600, 6)
    (0, 9, 18, 36, 72, 144, 288, 599)

    Raises:
        ValueError: ``steps`` or ``reports`` is out of range.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if steps >= 2**31:
        raise ValueError(f"steps must be below 2**31, got {steps}")
    if reports < 0:
        raise ValueError(f"reports must not be negative, got {reports}")
    last = steps - 1
    doublings = min(reports, MAX_DOUBLINGS)
    recorded = {0, last}
    step = max(1, steps // 2**doublings)
    for _ in range(doublings):
        if step < last:
            recorded.add(step)
        step *= 2
    return tuple(sorted(recorded))


def most_report_steps(reports: int) -> int:
    """The largest number of recorded steps that ``reports`` allows, for any number of steps."""
    return min(reports, MAX_DOUBLINGS) + 2


def replace_options(config: Config, changes: Mapping[str, Any]) -> Config:
    """A configuration with some of its fields replaced, or fields of a configuration inside it.

    Args:
        config: a frozen dataclass. Fields that hold another dataclass whose name ends in
            ``Config`` are searched too.
        changes: new values by the name of the field.

    Raises:
        ValueError: there is no field of that name; the message gives the nearest one.
    """
    values = _values(config)
    known = set(values)
    replaced = {}
    for name, value in values.items():
        value = changes.get(name, value)
        if _is_config(value):
            options = _values(value)
            known |= options.keys()
            value = dataclasses.replace(value, **_only(changes, options))
        replaced[name] = value
    for name in changes:
        if name not in known:
            raise ValueError(f"unknown option {name!r}{_nearest(name, known)}")
    return dataclasses.replace(config, **replaced)  # pyright: ignore[reportArgumentType]


def _values(config: Any) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def _only(changes: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: changes[name] for name in names if name in changes}


def _is_config(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and type(value).__name__.endswith("Config")


def _nearest(name: str, known: set[str]) -> str:
    nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
