"""The shapes and types that public signatures promise, checked on calls of a tiny network."""

import functools
import inspect
import types
import typing
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import beartype
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from beartype.door import is_bearable

from oipjax import bounds, search, spaces
from oipjax.model import Model
from oipjax.objectives import Map, Objective
from oipjax.search import Ascent, Survey

KEY = jax.random.key(3)
OPTIONS: dict[str, Any] = {"tile": 4}
PROTOCOLS = (spaces.Space, spaces.Domain, Objective)
"""No value can be checked against these at run time."""


def is_checkable(hint: Any) -> bool:
    """Whether a value can be checked against a hint; it cannot where a static protocol occurs."""
    if hint in PROTOCOLS:
        return False
    return all(is_checkable(part) for part in typing.get_args(hint))


def checked(function: Callable) -> Callable:
    """The function, with its arguments and its result checked against its signature.

    Hints with a static protocol are left to basedpyright.
    """
    function = inspect.unwrap(function)
    hints = typing.get_type_hints(function)
    copy = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = {name: hint for name, hint in hints.items() if is_checkable(hint)}
    return jaxtyping.jaxtyped(typechecker=beartype.beartype)(copy)


def check_fields(record: Any) -> None:
    """Check that all arrays of a record have the shapes and types of its fields, as one."""
    with jaxtyping.jaxtyped("context"):
        for name, hint in typing.get_type_hints(type(record)).items():
            value = getattr(record, name)
            assert is_bearable(value, hint), f"{name} is no {hint}"


def survey_of(tiny: Model, **changes: Any) -> Survey:
    return checked(search.survey)(KEY, tiny, "conv2", draws=20, keep=2, **changes, **OPTIONS)


def runs_of(tiny: Model, **changes: Any) -> Ascent:
    numbers = np.array([0, 3, 5, 6, 9])
    targets = np.array([2, 3, 4, 5, 2])
    ascend = checked(search.ascend)
    return ascend(KEY, tiny, Map("conv2"), targets, numbers, steps=4, **changes, **OPTIONS)


# Search


def test_survey(tiny):
    found = survey_of(tiny)
    check_fields(found)
    assert found.start_index.shape == (6, 2)
    share = checked(Survey.responded_fraction.fget)(found)
    assert share.shape == (6,)


def test_best_of(tiny):
    parts = [survey_of(tiny), survey_of(tiny, first=20)]
    names = ("start_index", "response", "scores", "responded")
    arrays = [{name: getattr(part, name) for name in names} for part in parts]
    best = checked(search.best_of)(arrays, 3)
    check_fields(Survey(layer="conv2", draws=40, **best))
    assert best["response"].shape == (6, 3)


@pytest.mark.parametrize("name", sorted(spaces.SPACES))
def test_starts_and_their_images(tiny, name):
    space = spaces.space_for(tiny, name)
    checked(search.check_draws)(5, 2)
    numbers = checked(search.checked_start_numbers)([3, 1, 4, 1, 5])
    starts = checked(search.make_starts)(KEY, space, numbers, **OPTIONS)
    assert starts.shape == (5, 8, 8, 1)
    assert checked(search.images_of)(space, starts, **OPTIONS).shape == (5, 8, 8, 1)
    found = checked(search.responses)(tiny, "conv2", starts, space=space, **OPTIONS)
    assert found.shape == (5, 6)


def test_methods_of_starts(tiny):
    starts = search.Starts(spaces.space_for(tiny), 4)
    numbers = np.arange(5, dtype=np.uint32)
    z = checked(search.Starts.__call__)(starts, 0, KEY, numbers)
    assert z.shape[1:] == (4, 8, 8, 1)
    flat = checked(search.Starts.array)(starts, 0, KEY, numbers)
    assert checked(search.Starts.grouped)(starts, flat).shape == z.shape
    assert checked(search.Starts.tiles_of)(starts, flat) == 2


@pytest.mark.parametrize("record_images", [False, True])
def test_ascent(tiny, record_images):
    runs = runs_of(tiny, record_images=record_images)
    check_fields(runs)
    assert runs.images.shape == (5, 8, 8, 1)


def test_ascent_from_points(tiny):
    space = spaces.space_for(tiny)
    points = search.make_starts(KEY, space, np.arange(3), **OPTIONS)
    checked(search.prepare)(tiny, Map("conv2"), **OPTIONS)
    tiles = checked(search.ascend_tiles)
    targets = np.array([2, 3, 4])
    parts = list(tiles(KEY, tiny, Map("conv2"), targets, points, steps=3, **OPTIONS))
    for part in parts:
        check_fields(part)
    check_fields(checked(search.concatenate)(parts, 3))


def test_continued_runs(tiny):
    first = runs_of(tiny)
    place = np.array([1, 4])
    images = first.images[place]
    further = search.ascend(KEY, tiny, Map("conv2"), np.array([3, 2]), images, steps=3, **OPTIONS)
    joined = checked(search.continued)(first, place, further)
    check_fields(joined)
    assert len(joined.trace_steps) == len(first.trace_steps) + len(further.trace_steps)


# Spaces


def decoder_of(tiny: Model) -> spaces.Decoder:
    def decode(params, latent):
        flat = jax.nn.sigmoid(latent @ params["matrix"])
        return flat.reshape(-1, 8, 8, 1)

    rng = np.random.default_rng(0)
    params = {"matrix": jnp.asarray(rng.normal(size=(3, 64)), jnp.float32)}
    codes = rng.normal(size=(20, 3))
    return checked(spaces.decoder_space)(tiny, "small", decode, params, codes)


MAKE_SPACE = {
    "standardised": functools.partial(spaces.space_for, name="standardised"),
    "box": functools.partial(spaces.space_for, name="box"),
    "decoder": decoder_of,
}


@pytest.mark.parametrize("name", MAKE_SPACE)
@pytest.mark.parametrize("is_traced", [False, True])
def test_methods_of_a_space(tiny, name, is_traced):
    space = checked(spaces.checked_space)(tiny, MAKE_SPACE[name](tiny))
    kind = type(space)

    def walk(key):
        z = checked(kind.init)(space, key)
        gradient = checked(kind.tangent)(space, z, jnp.ones_like(z))
        z = checked(kind.project)(space, z + 0.1 * gradient)
        image = checked(kind.render)(space, z)
        return image, checked(kind.from_image)(space, image)

    image, z = (jax.jit(walk) if is_traced else walk)(KEY)
    assert checked(spaces.accepts_images)(space) == (z is not None)
    assert checked(spaces.space_shapes)(space)[1] == image.shape
    checked(kind.scale.fget)(space)
    domain = checked(kind.domain.fget)(space)
    inside = checked(type(domain).contains)(domain, np.asarray(image)[None])
    assert inside.tolist() == [True]


def test_methods_of_one_space_only(tiny):
    box = checked(spaces.space_for)(tiny, "box")
    checked(spaces.Box.ends.fget)(box)
    decoder = decoder_of(tiny)
    latent = checked(spaces.Decoder.latent_of)(decoder, decoder.init(KEY))
    assert latent.shape == (3,)


def test_fluctuations():
    fluctuations = checked(spaces.default_fluctuations)((8, 6, 2))
    checked(spaces.Fluctuations.which)(fluctuations, KEY)
    image = checked(spaces.Fluctuations.draw)(fluctuations, KEY, (8, 6, 2))
    assert checked(spaces.standardise)(image).shape == (8, 6, 2)


# Bounds


@pytest.fixture
def box(tiny) -> spaces.Box:
    return spaces.space_for(tiny, "box").domain


@pytest.mark.parametrize("name", ["standardised", "box"])
def test_certificates(tiny, name):
    domain = spaces.space_for(tiny, name).domain
    proved = checked(bounds.certify)(tiny, "conv2", domain)
    check_fields(proved)
    few = checked(bounds.Bounds.of)(proved, np.array([0, 3]))
    check_fields(few)
    check_fields(checked(bounds.Bounds.with_scores)(few, np.zeros(2), "test"))


def test_refined_bounds(tiny, box):
    maps = np.array([1, 2])
    limits = checked(bounds.refinement_limits)(tiny, "conv2", box)
    refined = checked(bounds.refine)(tiny, "conv2", box, maps, limits=limits)
    check_fields(refined)
    assert refined.score.shape == (2,)
    limits = checked(bounds.hull_limits)(tiny, "conv2", box, splits=0, steps=5)
    check_fields(checked(bounds.assemble)(tiny, "conv2", box, limits, maps))


def test_refined_scores(tiny, box):
    proved = bounds.assemble(tiny, "conv1", box)
    check_fields(checked(bounds.refine_scores)(tiny, proved, box))


def test_intervals(tiny, box):
    for ends in checked(bounds.intervals)(tiny, box).values():
        check_fields(ends)


@pytest.mark.slow
def test_linear_relaxation(tiny, box):
    assert checked(bounds.crown)(tiny, "conv2_pre", box, steps=1).ndim == 3
    assert checked(bounds.crown)(tiny, "logits", box, steps=1).shape == (3,)


def test_images_near_a_bound(tiny, box):
    nodes = np.array([(0, 0, 1), (2, 3, 0)])
    check_fields(checked(bounds.best_images)(tiny, "conv1_pre", nodes, box))
    images = checked(bounds.strip_images)(tiny, "conv1", box)
    assert images.shape == (4, 8, 8, 1)
    images = checked(bounds.relaxed_images)(tiny, "conv2", box, np.array([1, 2]))
    assert images.shape == (2, 1, 8, 8, 1)


# The check itself


def test_a_wrong_argument_is_caught(tiny, box):
    space = spaces.space_for(tiny)
    flat = np.zeros((3, 64), np.float32)
    violation = jaxtyping.TypeCheckError
    with pytest.raises(violation, match="index"):
        checked(search.make_starts)(KEY, space, np.zeros((2, 2), int))
    with pytest.raises(violation, match="index"):
        checked(search.make_starts)(KEY, space, np.zeros(2))
    with pytest.raises(violation, match="key"):
        checked(search.survey)(jax.random.PRNGKey(0), tiny, "conv2")
    with pytest.raises(violation, match="images"):
        checked(spaces.Box.contains)(box, flat)
    with pytest.raises(violation, match="gradient"):
        checked(spaces.Box.tangent)(box, jnp.zeros((8, 8, 1)), jnp.zeros((7, 8, 1)))
    with pytest.raises(violation, match="maps"):
        checked(bounds.refine)(tiny, "conv2", box, np.array([True, False]))


def test_a_wrong_result_is_caught():
    def flat_draw(key, shape):
        return jnp.zeros(shape).ravel()

    space = spaces.Standardised((8, 8, 1), SimpleNamespace(draw=flat_draw))
    with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
        checked(spaces.Standardised.init)(space, KEY)


def test_a_wrong_field_is_caught(tiny):
    found = survey_of(tiny)
    wrong = {
        "response": found.response[:, :1],
        "scores": found.scores.astype(np.float64),
        "responded": found.responded[:-1],
    }
    for name, value in wrong.items():
        with pytest.raises(AssertionError, match=name):
            check_fields(found._replace(**{name: value}))
