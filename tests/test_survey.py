"""The survey against the same thing written in plain numpy."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oipjax import keys
from oipjax.search import make_starts, responses, survey
from oipjax.spaces import Box, Standardised, space_for

KEY = jax.random.key(7)


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["conv2", "conv2_pre", "dense1", "logits"])
@pytest.mark.parametrize("space", ["standardised", "box"])
def test_against_numpy(tiny, layer, space):
    chosen = space_for(tiny, space)
    found = survey(KEY, tiny, layer, space=chosen, draws=150, keep=3, tile=32)
    stream = keys.stream(KEY, keys.SURVEY)
    starts = jnp.stack([chosen.init(jax.random.fold_in(stream, i)) for i in range(150)])
    acts = tiny.apply(tiny.params, starts)
    scores = np.asarray(acts[layer]).reshape(150, -1, tiny.layer(layer).maps).mean(1)
    rank = scores
    if tiny.layer(layer).floor is not None:
        pre = np.asarray(acts[f"{layer}_pre"]).reshape(150, -1, tiny.layer(layer).maps).max(1)
        rank = np.where(scores > 0, scores, pre)
        np.testing.assert_array_equal(found.responded, (scores > 0).sum(0))
        assert (found.scores >= 0).all()
    else:
        np.testing.assert_array_equal(found.responded, 150)
    best = -np.sort(-rank, axis=0)[:3].T
    np.testing.assert_allclose(found.response, best, rtol=1e-4, atol=1e-5)
    for k in range(tiny.layer(layer).maps):
        np.testing.assert_allclose(
            rank[found.start_index[k], k], found.response[k], rtol=1e-4, atol=1e-5
        )
        assert len(set(found.start_index[k].tolist())) == 3
    np.testing.assert_allclose(found.responded_fraction, found.responded / 150)


def test_responses_to_given_starts_are_those_to_drawn_ones(tiny):
    found = survey(KEY, tiny, "conv2", draws=150, keep=3, tile=4)
    starts = make_starts(KEY, space_for(tiny), found.start_index.ravel(), tile=4)
    answers = responses(tiny, "conv2", starts, tile=4).reshape(*found.response.shape, -1)
    maps = np.arange(len(found.response))
    np.testing.assert_array_equal(answers[maps, :, maps], found.response)


def test_more_draws_only_add(tiny):
    few, many = (survey(KEY, tiny, "conv2", draws=n, keep=2, tile=16) for n in (40, 200))
    assert (many.response >= few.response).all() and (many.responded >= few.responded).all()
    kept = many.start_index < 40
    assert kept.any() and not kept.all()
    again = survey(KEY, tiny, "conv2", draws=40, keep=2, tile=16)
    np.testing.assert_array_equal(again.start_index, few.start_index)
    np.testing.assert_array_equal(again.response, few.response)


def test_ends_of_the_last_tile_do_not_count(tiny):
    one = survey(KEY, tiny, "conv2", draws=33, keep=33, tile=32)
    assert sorted(one.start_index[3].tolist()) == list(range(33))


def test_starts_are_made_again_bit_for_bit():
    space = Standardised((8, 8, 1))
    hundred = make_starts(KEY, space, np.arange(100), tile=16)
    three = make_starts(KEY, space, np.array([99, 3, 42]), tile=16)
    np.testing.assert_array_equal(three, hundred[[99, 3, 42]])
    other = make_starts(jax.random.key(8), space, np.arange(3), tile=16)
    assert not np.array_equal(other, hundred[:3])
    with pytest.raises(ValueError, match="numbered by integers"):
        make_starts(KEY, space, np.array([-1]))


def test_progress_counts_up_to_the_draws(tiny):
    calls = []
    survey(
        KEY,
        tiny,
        "conv2",
        draws=600,
        keep=1,
        tile=16,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(256, 600), (512, 600), (600, 600)]


def test_memory_does_not_grow_with_the_draws(tiny):
    def peak(draws):
        sizes = []

        def look(done, total):
            sizes.append(sum(array.nbytes for array in jax.live_arrays()))

        survey(KEY, tiny, "conv2", draws=draws, keep=2, tile=16, progress=look)
        return max(sizes)

    a_call = 256 * 4 * (8 * 8 + 6) + 1000
    assert peak(12800) <= 2 * (len(os.sched_getaffinity(0)) + 2) * a_call


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"draws": 0}, "draws must be between 1"),
        ({"draws": -4}, "draws must be between 1"),
        ({"draws": 2**32}, "draws must be between 1"),
        ({"keep": 0}, "keep must be between 1"),
        ({"draws": 3, "keep": 4}, "keep must be between 1 and draws"),
        ({"tile": 0}, "tile must be at least 1"),
    ],
)
def test_numbers_out_of_range_are_named(tiny, options, words):
    with pytest.raises(ValueError, match=words):
        survey(KEY, tiny, "conv2", **options)


def test_old_keys_are_refused(tiny):
    with pytest.raises(ValueError, match="typed key"):
        survey(jax.random.PRNGKey(0), tiny, "conv2")


def test_key_reuse_checker_finds_nothing(tiny):
    with jax.debug_key_reuse(True):
        survey(
            jax.random.key(1), tiny, "conv2", space=Box((8, 8, 1), (0.0,), (1.0,)), draws=20, tile=8
        )
