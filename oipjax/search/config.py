"""How runs are climbed: the options of an ascent, written once."""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from oipjax.runtime import checked_tile
from oipjax.search.methods import Method, Momentum
from oipjax.spaces import Space

Config = TypeVar("Config")


@dataclass(frozen=True)
class AscentConfig:
    """The options of an ascent; `oipjax.ascend`, `oipjax.survey` and `oipjax.atlas` share them.

    Attributes:
        space: the image space, or the name of one: ``standardised`` (images of mean 0 and standard
            deviation 1) or ``box`` (all valid pixels).
        method: how to climb: ``Momentum()``, or ``Classic()``, the reference rule.
        steps: number of scores, and so of gradients, of each run; ``steps - 1`` updates.
        reports: how many scores are recorded between the first and the last one.
        criterion: relative change of the score per step below which a run counts as converged.
        stop: end a run once it has converged.
        record_images: keep the image at every report.
        precision: of the steps' products on a GPU: ``tf32`` and ``bf16`` are faster. Scores are
            those of ``float32`` in any case.
        tile: batch size of all compiled programs; it is part of what decides the last bits.
            ``auto``: 16 on a CPU, 2,048 elsewhere.
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

    @property
    def tile_size(self) -> int:
        """The batch size as a number."""
        return checked_tile(None if self.tile == "auto" else self.tile)


def replace_options(config: Config, changes: Mapping[str, Any]) -> Config:
    """A configuration in which some fields, its own or those of a configuration inside it, differ.

    Args:
        config: a frozen dataclass; a field that holds another frozen dataclass whose name ends in
            ``Config`` is searched, too.
        changes: new values by the name of the field.

    Raises:
        ValueError: there is no field of that name; the message gives the nearest one.
    """
    own = {field.name for field in dataclasses.fields(config)}  # pyright: ignore[reportArgumentType]
    inner = {
        name: getattr(config, name) for name in sorted(own) if _is_config(getattr(config, name))
    }
    replaced = {name: value for name, value in changes.items() if name in own}
    rest = {name: value for name, value in changes.items() if name not in own}
    known = set(own)
    for name, part in inner.items():
        options = {field.name for field in dataclasses.fields(part)}
        known |= options
        given = {option: rest.pop(option) for option in options & rest.keys()}
        if given:
            replaced[name] = dataclasses.replace(replaced.get(name, part), **given)
    for name in rest:
        raise ValueError(f"unknown option {name!r}{_nearest(name, known)}")
    return dataclasses.replace(config, **replaced)  # pyright: ignore[reportArgumentType]


def _is_config(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and type(value).__name__.endswith("Config")


def _nearest(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0)
    return f"; did you mean {near[0]!r}?" if near else ""
