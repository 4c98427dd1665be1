"""A function as a flat list of steps: calls are written out, repeated values are recognised."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oipjax.jaxpr import (
    PIECEWISE,
    Constant,
    evaluate_step,
    flatten_apply,
    flatten_jaxpr,
    is_crop,
    original_variables,
    restrict,
)

SHAPE = (6, 5, 1)


def apply(params, x):
    """A shallow layer of the whole image, and a deep one of a crop."""
    whole = jax.nn.relu(jnp.maximum(x * params["w"], 1))
    part = jax.checkpoint(lambda x: jax.nn.relu(jnp.maximum(x * params["w"], 1)))(x[:, :4, :3])
    return {"shallow": whole, "deep": part.sum((1, 2)), "other": jax.nn.elu(x)}


def program(layers=("shallow", "deep", "other")):
    return flatten_apply(apply, {"w": np.ones((1, 1, 1, 1), np.float32)}, SHAPE, layers)


def names(flat):
    return [equation.name for equation in flat.equations]


def test_calls_are_written_out_and_the_same_arguments_give_the_same_object():
    flat = program()
    assert not {"jit", "pjit", "checkpoint", "remat2", "custom_jvp_call"} & {*names(flat)}
    assert flat is program() and flat is not program(("deep",))
    assert [flat.shapes[flat.variable(i)] for i in range(3)] == [(1, 6, 5, 1), (1, 1), (1, 6, 5, 1)]
    assert flat.shapes[flat.inputs[-1]] == (1, *SHAPE)


def test_the_steps_give_what_the_function_gives():
    flat = program()
    x = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    with jax.enable_x64(True):
        values = dict(zip(flat.inputs, [np.ones((1, 1, 1, 1)), x.astype(np.float64)], strict=True))
        for equation in flat.equations:
            inputs = [
                jnp.asarray(ref.value if isinstance(ref, Constant) else values[ref])
                for ref in equation.inputs
            ]
            inputs = [
                each.astype(jnp.float64) if each.dtype == jnp.float32 else each for each in inputs
            ]
            values.update(zip(equation.outputs, evaluate_step(equation, inputs), strict=True))
    expected = apply({"w": jnp.ones((1, 1, 1, 1))}, jnp.asarray(x))
    for index, layer in enumerate(expected):
        np.testing.assert_allclose(values[flat.variable(index)], expected[layer], rtol=1e-6)


def test_a_value_of_a_crop_is_the_leading_part_of_the_value_of_the_whole():
    flat = program()
    originals = original_variables(flat)
    (crop,) = [equation.outputs[0] for equation in flat.equations if is_crop(equation, flat.shapes)]
    assert originals[crop] == flat.inputs[-1]
    deep = flat.made(flat.variable(1))
    assert deep is not None and originals[deep.variable(0)] == flat.variable(0)
    assert originals[flat.variable(1)] == flat.variable(1), "a sum of a part is no part of a sum"


def test_only_the_steps_that_are_needed_are_kept():
    flat = program()
    kept = restrict(flat, frozenset({flat.variable(2)}))
    assert names(kept) == [PIECEWISE]
    assert kept.outputs == flat.outputs and kept.shapes == flat.shapes


def test_a_function_in_two_pieces_is_kept_whole():
    (step,) = [equation for equation in program().equations if equation.name == PIECEWISE]
    piecewise = step.params["piecewise"]
    assert piecewise.threshold == 0 and set(piecewise.sides.values()) == {True}
    two_thresholds = jax.jit(lambda x: jnp.where(x > 0, 1.0, jnp.where(x > 1, 2.0, 3.0)))
    flat = flatten_jaxpr(jax.make_jaxpr(two_thresholds)(jnp.ones(3)))
    assert PIECEWISE not in names(flat)


def test_a_constant_output_and_a_constant_input_are_named():
    flat = flatten_jaxpr(jax.make_jaxpr(lambda x: (x * 2, 1.0))(jnp.ones(3)))
    with pytest.raises(ValueError, match="layer 1 of the network does not depend on anything"):
        flat.variable(1)
    with pytest.raises(ValueError, match="input 1 of mul is a constant"):
        flat.equations[0].variable(1)
