"""The study over all maps: their status, independence, repeatability."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

import oipjax
from oipjax.bounds import Bounds, certify
from oipjax.search import AscentConfig, Classic
from oipjax.study import (
    BY_EXEMPLAR,
    BY_PRE_ACTIVATION,
    BY_SURVEY,
    DEAD,
    FOUND,
    UNRESOLVED,
    AtlasConfig,
    plan_study,
    run_study,
)
from oipjax.study.proofs import refine_maps

KEY = jax.random.key(3)
OPTIONS = {"draws": 64, "keep": 3, "steps": 20, "restarts": 2, "tile": 8}
ARRAYS = [
    field.name for field in dataclasses.fields(oipjax.Atlas) if field.name not in ("model", "layer")
]


@pytest.fixture(scope="module")
def whole(tiny) -> oipjax.Atlas:
    return oipjax.atlas(KEY, tiny, "conv2", **OPTIONS)


def test_one_status_for_each_map(whole, tiny):
    assert whole.model == "tiny" and whole.layer == "conv2"
    assert whole.status.tolist() == [DEAD, FOUND, FOUND, FOUND, FOUND, FOUND]
    assert whole.counts == {"maps": 6, "found": 5, "dead": 1, "unresolved": 0}
    assert whole.found_by.tolist()[:3] == ["", BY_PRE_ACTIVATION, BY_SURVEY]
    assert (
        whole.responded_fraction[:2].tolist() == [0, 0] and (whole.responded_fraction[2:] > 0).all()
    )
    assert whole.draws_seen.tolist() == [64] * 6
    assert whole.gradient_evaluations.tolist() == [3 * 5 + 20] * 6, (
        "three short ascents, one to the end"
    )
    assert (
        whole.bound[0] == 0
        and whole.node_bound[0] == pytest.approx(-1, abs=1e-6)
        and np.isnan(whole.achieved[0])
    )
    assert (whole.scores[1:, 0] < whole.bound[1:]).all() and (whole.achieved[1:] > 0).all()
    assert (np.diff(whole.scores, axis=1) <= 0).all(), "the best comes first"
    assert (whole.scores >= whole.start_scores).all() and (whole.scores[0] == 0).all()
    assert (whole.start_index[1:] >= 0).all() and (whole.start_index < 64).all()
    shape = (6, 3, 8, 8, 1)
    assert whole.images.shape == shape and whole.trace.shape == (6, 3, len(whole.trace_steps))


def test_without_bounds_nothing_is_dead(whole, tiny):
    out = oipjax.atlas(KEY, tiny, "conv2", bounds="none", search=0, **OPTIONS)
    assert out.status.tolist() == [UNRESOLVED, *[FOUND] * 5] and np.isnan(out.bound).all()
    assert out.draws_seen.tolist() == [66, *[64] * 5] and out.gradient_evaluations.tolist() == [
        35 + 2 * 25,
        *[35] * 5,
    ]
    np.testing.assert_array_equal(out.images[1:], whole.images[1:])


def test_scores_come_from_the_images(whole, tiny):
    images = whole.images.reshape(-1, 8, 8, 1)
    again = np.asarray(tiny.apply(tiny.params, images)["conv2"]).mean((1, 2)).reshape(6, 3, 6)
    again = again[np.arange(6), :, np.arange(6)]
    np.testing.assert_allclose(again, whole.scores, rtol=1e-5)


def test_the_same_key_gives_the_same_bits_and_another_key_others(whole, tiny):
    same, other = (oipjax.atlas(key, tiny, "conv2", **OPTIONS) for key in (KEY, jax.random.key(4)))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(same, name), getattr(whole, name))
    assert not np.array_equal(other.images, whole.images) and not np.array_equal(
        other.start_index, whole.start_index
    )


@pytest.mark.parametrize("maps", [(4,), (5, 1, 0)])
def test_maps_do_not_depend_on_what_else_is_asked(whole, tiny, maps):
    few = oipjax.atlas(KEY, tiny, "conv2", maps=maps, **OPTIONS)
    for name in ARRAYS:
        if name != "trace_steps":
            np.testing.assert_array_equal(
                getattr(few, name), getattr(whole, name)[list(maps)], err_msg=name
            )


@pytest.mark.slow
def test_shipped_map_120_alone_is_map_120_in_the_crowd():
    model = oipjax.load()
    options = {"draws": 96, "keep": 2, "steps": 12, "restarts": 0}
    crowd = oipjax.atlas(KEY, model, "conv3", maps=tuple(range(100, 128)), **options)
    alone = oipjax.atlas(KEY, model, "conv3", maps=(120,), **options)
    for name in ("images", "scores", "trace", "start_index", "start_scores", "run_status"):
        np.testing.assert_array_equal(
            getattr(alone, name)[0], getattr(crowd, name)[20], err_msg=name
        )


def test_most_maps_of_the_shipped_network_are_found():
    counts = oipjax.atlas(
        KEY, oipjax.load(), "conv3", draws=2048, keep=1, steps=30, restarts=0
    ).counts
    assert counts["maps"] == 128 and counts["found"] >= 110


def test_unresolved_maps_have_the_same_bits_alone_and_together():
    model = oipjax.load()
    options = {"draws": 64, "keep": 2, "steps": 3, "restarts": 4, "search": 0}
    maps = (17, 44, 49, 65, 68, 86, 103)
    crowd = oipjax.atlas(KEY, model, "conv3", maps=maps, **options)
    assert (crowd.draws_seen == 68).any() and (crowd.start_index == -1).any()
    for position in (1, 3, 5):
        alone = oipjax.atlas(KEY, model, "conv3", maps=(maps[position],), **options)
        for name in ("images", "scores", "responses", "start_index", "run_status"):
            np.testing.assert_array_equal(
                getattr(alone, name)[0], getattr(crowd, name)[position], err_msg=name
            )


def test_pooled_layers_know_their_floor(tiny):
    params = jax.tree.map(np.array, tiny.params)
    params["conv1"]["kernel"][..., 0], params["conv1"]["bias"][0] = 0, -1
    out = oipjax.atlas(KEY, dataclasses.replace(tiny, params=params), "pool1", **OPTIONS)
    assert out.status.tolist() == [DEAD, FOUND, FOUND, FOUND] and out.responses[
        0, 0
    ] == pytest.approx(-1)
    assert out.responded_fraction[0] == 0


def test_the_classic_method_does_not_climb_pre_activations(tiny):
    out = oipjax.atlas(KEY, tiny, "conv2", method=Classic(), **OPTIONS)
    assert out.status.tolist()[:2] == [DEAD, UNRESOLVED]


@pytest.mark.slow
def test_layers_without_a_floor_have_no_unresolved_maps(tiny):
    for layer in ("conv2_pre", "logits"):
        out = oipjax.atlas(KEY, tiny, layer, **OPTIONS)
        assert (out.status == FOUND).all() and (out.draws_seen == 64).all()


@pytest.mark.slow
def test_dense_layers_and_boxes(tiny):
    space = oipjax.space_for(tiny, "box")
    out = oipjax.atlas(KEY, tiny, "dense1", space=space, **OPTIONS)
    assert (
        out.images.shape == (5, 3, 8, 8, 1)
        and space.domain.contains(out.images.reshape(-1, 8, 8, 1)).all()
    )


def test_parts_are_asked_for_once_and_used(tiny, whole):
    parts, computed = {}, []

    def store(name, compute):
        if name not in parts:
            computed.append(name)
            parts[name] = compute()
        return parts[name]

    study = plan_study(KEY, tiny, "conv2", **OPTIONS)
    first = run_study(study, store)
    assert computed == ["survey-00000", "ascent-00000", "ascent-on-00000", "bounds"]
    second = run_study(study, store)
    assert len(computed) == 4
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(first, name), getattr(whole, name))
        np.testing.assert_array_equal(getattr(second, name), getattr(whole, name))


def test_maps_do_not_depend_on_the_size_of_a_part(tiny, whole, monkeypatch):
    monkeypatch.setattr("oipjax.study.climbing.PART_TILES", 1)
    small = oipjax.atlas(KEY, tiny, "conv2", **OPTIONS)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(small, name), getattr(whole, name), err_msg=name)


def test_only_the_best_are_climbed_to_their_end(tiny, whole):
    all_of_them = oipjax.atlas(KEY, tiny, "conv2", screen=0, **OPTIONS)
    two = oipjax.atlas(KEY, tiny, "conv2", finish=2, **OPTIONS)
    assert all_of_them.gradient_evaluations.tolist() == [60] * 6
    assert two.gradient_evaluations.tolist() == [3 * 5 + 2 * 20] * 6
    assert (two.scores[:, 0] >= whole.scores[:, 0]).all()
    assert whole.trace_steps.tolist() == [0, 1, 2, 4, 5, 6, 7, 9, 13, 21, 24]
    at_last = whole.trace[:, :, -1]
    assert (np.sum(at_last == whole.trace[:, :, 4], axis=1) >= 2).all(), (
        "of the others the last value repeats"
    )
    assert (
        oipjax.atlas(KEY, tiny, "conv2", method=Classic(), **OPTIONS).gradient_evaluations[2] == 60
    )


def test_images_of_the_best_patterns_only(tiny, whole):
    few = oipjax.atlas(KEY, tiny, "conv2", keep_images=1, search=1, **OPTIONS)
    np.testing.assert_array_equal(few.images, whole.images[:, :1])
    np.testing.assert_array_equal(few.scores, whole.scores)
    with pytest.raises(ValueError, match="keep_images must be at least 1, got 0"):
        plan_study(KEY, tiny, "conv2", keep_images=0)


def test_a_survey_in_parts_is_the_survey(tiny, whole, monkeypatch):
    monkeypatch.setattr("oipjax.study.run.PART_DRAWS", 24)
    parts = oipjax.atlas(KEY, tiny, "conv2", **OPTIONS)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name), err_msg=name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer": "conv7"}, "no layer 'conv7'; it has"),
        ({"maps": (0, 6)}, "no map of conv2 6"),
        ({"maps": (1, 1)}, "different indices"),
        ({"maps": ()}, "different indices"),
        ({"draws": 0}, "draws must be between 1"),
        ({"draws": 2**32}, "draws must be between 1"),
        ({"steps": 2**31}, "below 2"),
        ({"maps": (1.5,)}, "integers"),
        ({"maps": (10**20,)}, "integers|no map"),
        ({"space": oipjax.Standardised((9, 9, 1))}, "takes images"),
        ({"keep": 0}, "keep must be between"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"restarts": -1}, "restarts must not be negative"),
        ({"tile": -8}, "tile must be at least 1"),
        ({"maps": "some"}, "maps are 'all' or indices, got 'some'"),
        ({"space": "sphere"}, "unknown image space 'sphere'"),
        ({"screen": -1}, "screen must not be negative, got -1"),
        ({"finish": 0}, "finish must be at least 1, got 0"),
        ({"record_images": True}, "an atlas records no images along the way"),
        ({"precision": "half"}, "unknown precision 'half'; there are float32, tf32, bf16"),
        ({"drawz": 3}, "unknown option 'drawz'; did you mean 'draws'"),
    ],
)
def test_bad_plans_are_refused_before_anything_runs(tiny, options, words):
    with pytest.raises(ValueError, match=words):
        plan_study(KEY, tiny, **{"layer": "conv2", **options})


def test_options_are_the_fields_of_the_configs_or_changes_of_them(tiny, whole):
    ascent = AscentConfig(steps=20, tile=8)
    config = AtlasConfig(ascent=ascent, draws=64, keep=3, restarts=2)
    out = oipjax.atlas(KEY, tiny, "conv2", config=config)
    np.testing.assert_array_equal(out.images, whole.images)
    changed = plan_study(KEY, tiny, "conv2", config=config, steps=8, maps=range(2, 4), stop=True)
    assert changed.config.draws == 64 and changed.ascent.tile == 8
    assert (changed.ascent.steps, changed.ascent.stop) == (8, True)
    assert changed.maps == changed.config.maps == (2, 3)


def test_a_plan_holds_numbers_and_objects(tiny):
    options = {"maps": None, "screen": None, "keep_images": None, "tile": None, "space": None}
    study = plan_study(KEY, tiny, keep=3, **options)
    config = study.config
    assert study.layer == "conv2" and study.maps == (0, 1, 2, 3, 4, 5) and study.floor == 0
    assert (config.screen, config.keep_images, config.ascent.tile) == (25, 3, 16)
    assert study.space == config.ascent.space == oipjax.space_for(tiny)
    assert plan_study(KEY, tiny, space="box").space == oipjax.space_for(tiny, "box")
    assert plan_study(KEY, tiny, method=Classic()).config.screen == 0


@pytest.mark.parametrize("wrong", ["dead", "score"])
def test_a_proof_that_an_image_contradicts_is_an_error(tiny, monkeypatch, wrong):
    def false(model, layer, domain, **options):
        found = certify(model, layer, domain, **options)
        value = np.array(getattr(found, wrong))
        value[3] = {"dead": True, "score": 1e-6}[wrong]
        return dataclasses.replace(found, **{wrong: value})

    monkeypatch.setattr("oipjax.study.proofs.certify", false)
    options = {"draws": 32, "keep": 1, "steps": 3, "restarts": 0, "search": 0}
    message = "contradicted by an image, for conv2 of tiny, maps 3: please report this"
    with pytest.raises(RuntimeError, match=message):
        oipjax.atlas(KEY, tiny, "conv2", maps=(2, 3), **options)


def test_refined_bounds_are_added_by_map_and_never_looser(tiny, monkeypatch):
    def better(model, layer, domain, maps, **_):
        score = np.where(maps == 1, 0.5, 9.0)
        node = np.where(maps == 1, 9.0, 0.25)
        return Bounds(layer, score, node, maps == 5, np.full(len(maps), "late"))

    monkeypatch.setattr("oipjax.study.proofs.refine", better)
    study = plan_study(KEY, tiny, "conv2", maps=(5, 0, 1))
    known = {
        "score": np.full(3, 2.0),
        "node": np.full(3, 2.0),
        "dead": np.array([False, True, False]),
        "method": np.full(3, "first"),
    }
    out = refine_maps(study, known, np.array([1, 5]), None, lambda *_: None)
    assert out["score"].tolist() == [2.0, 2.0, 0.5] and out["node"].tolist() == [0.25, 2.0, 2.0]
    assert out["dead"].tolist() == [True, True, False]
    assert out["method"].tolist() == ["first", "first", "late"]
    assert known["score"].tolist() == [2.0, 2.0, 2.0], "what was given stays as it is"


def test_a_real_image_finds_what_random_starts_do_not(whole, tiny):
    """Map 1 is off at first; with hardly any climbing only an image that turns it on finds it."""
    options = {"maps": (1,), "draws": 16, "keep": 1, "steps": 2, "restarts": 0, "method": Classic()}
    lost = oipjax.atlas(KEY, tiny, "conv2", search=1, **options)
    assert lost.status.tolist() == [UNRESOLVED] and lost.draws_seen.tolist() == [16 + 4 + 1]
    # From its best image it was climbed again once, which brought it no nearer.
    images = np.concatenate([whole.images[2:, 0], whole.images[1, :1]])
    found = oipjax.atlas(KEY, tiny, "conv2", search=1, exemplars=images, **options)
    assert found.status.tolist() == [FOUND] and found.found_by.tolist() == [BY_EXEMPLAR]
    assert found.start_index.tolist() == [[-1]] and found.draws_seen.tolist() == [16 + 1]
    with pytest.raises(
        ValueError, match=r"exemplars are images \[n, 8, 8, 1\], got \[3, 7, 8, 1\]"
    ):
        plan_study(KEY, tiny, "conv2", exemplars=np.zeros((3, 7, 8, 1)))
    with pytest.raises(ValueError, match="search must not be negative, got -1"):
        plan_study(KEY, tiny, "conv2", search=-1)


def test_more_is_proved_where_it_decides():
    """Over standardised images only the energy that patches share proves map 72 dead."""
    options = {"maps": (72,), "draws": 64, "keep": 2, "steps": 3, "restarts": 0, "search": 0}
    found = oipjax.atlas(KEY, oipjax.load(), "conv3", **options)
    assert found.status.tolist() == [DEAD] and found.bound_by.tolist() == ["energy"]
    assert found.node_bound[0] < 0 and found.bound[0] == 0


@pytest.mark.slow
def test_tight_bounds_are_never_looser(tiny):
    space = oipjax.space_for(tiny, "box")
    for layer in ("conv1", "conv2"):
        cheap, tight = (
            oipjax.atlas(KEY, tiny, layer, bounds=level, space=space, **OPTIONS)
            for level in ("cheap", "tight")
        )
        assert (tight.bound <= cheap.bound).all() and (tight.bound < cheap.bound).any()
        assert (tight.node_bound <= cheap.node_bound).all()
        assert (tight.scores[:, 0] <= tight.bound).all() and (
            tight.scores[:, 0] >= cheap.scores[:, 0]
        ).all()
    with pytest.raises(
        ValueError, match="unknown level of bounds 'huge'; there are none, cheap, tight"
    ):
        plan_study(KEY, tiny, bounds="huge")


@pytest.mark.slow
def test_the_maximiser_of_the_relaxation_is_a_start(tiny):
    """Only it finds a map that one pixel turns on, and that random starts do not find."""
    params = jax.tree.map(np.array, tiny.params)
    params["conv2"]["bias"][1] = (
        -oipjax.bounds.certify(tiny, "conv2", oipjax.space_for(tiny, "box").domain).node[1] * 0.5
    )
    model = dataclasses.replace(tiny, params=params)
    images = oipjax.bounds.relaxed_images(
        model, "conv2", oipjax.space_for(model, "box").domain, np.array([1, 4])
    )
    assert images.shape == (2, 1, 8, 8, 1)
    assert oipjax.space_for(model, "box").domain.contains(images.reshape(-1, 8, 8, 1)).all()
    nodes = np.asarray(model.apply(model.params, images[:, 0])["conv2_pre"])[:, 0, 0]
    grey = np.asarray(
        model.apply(model.params, np.full((1, 8, 8, 1), np.mean(model.input_box), np.float32))[
            "conv2_pre"
        ]
    )
    assert (nodes[[0, 1], [1, 4]] > grey[0, 0, 0, [1, 4]]).all()
    assert (
        oipjax.bounds.relaxed_images(
            model, "logits", oipjax.space_for(model, "box").domain, np.array([1])
        )
        is None
    )


@pytest.mark.parametrize(("floor", "words"), [(0.0, None), (5000.0, "below its declared floor 5e")])
def test_a_wrong_floor_is_no_proof(tiny, floor, words):
    nonlinearities = dict(tiny.nonlinearities)
    nonlinearities["conv2"] = (nonlinearities["conv2"][0], floor)
    model = dataclasses.replace(tiny, nonlinearities=nonlinearities)
    options: Any = {"draws": 32, "steps": 3, "keep": 1, "search": 0, "restarts": 0}
    if words is None:
        assert oipjax.atlas(jax.random.key(0), model, "conv2", **options).counts["found"]
    else:
        with pytest.raises(ValueError, match=words):
            oipjax.atlas(jax.random.key(0), model, "conv2", **options)


def test_weights_that_are_not_finite_are_refused(tiny):
    params = jax.tree.map(np.array, tiny.params)
    params["conv2"]["kernel"][0, 0, 0, 0] = np.nan
    model = dataclasses.replace(tiny, params=params)
    with pytest.raises(ValueError, match="NaN or infinity in the parameters conv2/kernel"):
        oipjax.atlas(jax.random.key(0), model, "conv2", draws=32, steps=3)
