"""The plan of a study: every option checked, and replaced by a number or an object."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jax import Array

from oipjax import keys
from oipjax.bounds import LEVELS
from oipjax.model import LayerInfo, Model
from oipjax.objectives import Map
from oipjax.pytrees import check_finite
from oipjax.runtime import checked_precision
from oipjax.search import AscentConfig, check_draws, replace_options
from oipjax.spaces import Space
from oipjax.study.config import AtlasConfig

DEFAULT_WORDS = {"maps": "all", "screen": "auto", "keep_images": "all"}
"""What None means as the value of an option."""


@dataclass(frozen=True, eq=False)
class Study:
    """The checked plan of an atlas, as `plan_study` makes it.

    Attributes:
        key: the root key.
        model: the network.
        layer: name of the layer.
        maps: indices of the maps.
        space: the image space.
        config: the options; ``auto``, ``all`` and names are replaced by numbers and objects.
        floor: of the layer's nonlinearity; None if it has none.
    """

    key: Array
    model: Model
    layer: str
    maps: tuple[int, ...]
    space: Space
    config: AtlasConfig
    floor: float | None

    @property
    def ascent(self) -> AscentConfig:
        """The options of its ascents."""
        return self.config.ascent


def plan_study(
    key: Array,
    model: Model,
    layer: str = "",
    *,
    config: AtlasConfig = AtlasConfig(),
    **changes: Any,
) -> Study:
    """Plan an atlas; nothing is computed yet.

    Args:
        key: the root key.
        model: the network.
        layer: name of the layer; the network's `default_layer` unless given.
        config: the options.
        **changes: new values for some of the options, by the name of the field in `AtlasConfig` or
            in its `AscentConfig`. None means the default for ``maps``, ``screen``,
            ``keep_images`` and all options of an ascent.

    Raises:
        ValueError: an option is unknown, out of range, or does not fit the network.
    """
    keys.check(key)
    facts = model.layer(layer if layer else model.default_layer)
    check_finite(model.params, model.name)
    if 0 in facts.shape:
        raise ValueError(f"{model.name}: {facts.name} has no nodes for images {model.input_shape}")
    for name, word in DEFAULT_WORDS.items():
        if name in changes and changes[name] is None:
            changes[name] = word
    config = replace_options(config, changes)
    maps = _maps(config, model, facts)
    space = config.ascent.image_space(model)
    config = _resolved(config, maps, space)
    _check(config, model)
    return Study(
        key=key,
        model=model,
        layer=facts.name,
        maps=maps,
        space=space,
        config=config,
        floor=facts.floor,
    )


def _resolved(config: AtlasConfig, maps: tuple[int, ...], space: Space) -> AtlasConfig:
    """The options with ``auto``, ``all`` and names replaced by numbers and objects."""
    ascent = config.ascent
    screen = config.screen
    if screen == "auto":
        screen = ascent.steps // 4 if ascent.method.restarts else 0
    return replace(
        config,
        ascent=replace(
            ascent,
            space=space,
            tile=ascent.tile_size,
            precision=checked_precision(ascent.precision),
        ),
        maps=maps,
        screen=screen,
        keep_images=config.keep if config.keep_images == "all" else config.keep_images,
    )


def _maps(config: AtlasConfig, model: Model, facts: LayerInfo) -> tuple[int, ...]:
    if isinstance(config.maps, str):
        if config.maps != "all":
            raise ValueError(f"maps are 'all' or indices, got {config.maps!r}")
        indices = np.arange(facts.maps)
    else:
        indices = np.asarray(config.maps)
    if not indices.size:
        indices = indices.astype(int)
    maps = tuple(Map(facts.name).check(model, indices).tolist())
    if not maps or len(set(maps)) != len(maps):
        raise ValueError(f"maps must be one or more different indices, got {maps}")
    return maps


def _check(config: AtlasConfig, model: Model) -> None:
    """Raise a ValueError if one of the resolved options is out of range."""
    check_draws(config.draws, config.keep)
    not_negative = {
        "restarts": config.restarts,
        "search": config.search,
        "screen": config.screen,
    }
    at_least_one = {"finish": config.finish, "keep_images": config.keep_images}
    for name, value in not_negative.items():
        if int(value) < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
    for name, value in at_least_one.items():
        if int(value) < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if config.bounds not in LEVELS:
        levels = ", ".join(LEVELS)
        raise ValueError(f"unknown level of bounds {config.bounds!r}; there are {levels}")
    if config.ascent.record_images:
        raise ValueError(
            "an atlas records no images along the way (record_images); oipjax.ascend does"
        )
    if config.exemplars is not None:
        _check_exemplars(np.shape(config.exemplars), model.input_shape)


def _check_exemplars(given: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if given[1:] != expected:
        axes = ", ".join(map(str, expected))
        raise ValueError(f"exemplars are images [n, {axes}], got {list(given)}")
