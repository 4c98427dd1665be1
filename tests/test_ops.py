"""Convolution and pooling against lax: values, gradients, other platforms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from oipjax import ops
from oipjax.ops import convolution
from oipjax.ops.dispatch import choose
from oipjax.ops.winograd import WINOGRAD


def reference_conv(x, w, stride, padding):
    return lax.conv_general_dilated(
        x, w, stride, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def reference_pool(x, window, stride, padding):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, *window, 1), (1, *stride, 1), padding)


sides = st.integers(1, 4)
strides = st.tuples(st.integers(1, 3), st.integers(1, 3))
explicit = st.tuples(
    st.tuples(st.integers(0, 2), st.integers(0, 2)), st.tuples(st.integers(0, 2), st.integers(0, 2))
)
paddings = st.one_of(st.sampled_from(["VALID", "SAME"]), explicit)


on_cpu = pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="the program that is inspected is compiled for a CPU"
)


def close(a, b, by=2e-5):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=by, atol=by)


@pytest.mark.slow
@settings(max_examples=15)
@given(
    st.integers(1, 3),
    st.integers(4, 9),
    st.integers(4, 9),
    sides,
    sides,
    sides,
    sides,
    strides,
    paddings,
    st.integers(0, 99),
)
def test_conv2d_is_lax(n, h, w, c, k, kh, kw, stride, padding, seed):
    rng = np.random.default_rng(seed)
    x, kernel = (rng.normal(size=s).astype(np.float32) for s in ((n, h, w, c), (kh, kw, c, k)))
    y, pull = jax.vjp(lambda x, w: ops.conv2d(x, w, stride, padding), x, kernel)
    y_ref, pull_ref = jax.vjp(lambda x, w: reference_conv(x, w, stride, padding), x, kernel)
    assert y.shape == y_ref.shape
    close(y, y_ref)
    dy = rng.normal(size=y.shape).astype(np.float32)
    for ours, theirs in zip(pull(dy), pull_ref(dy), strict=True):
        close(ours, theirs)


@pytest.mark.slow
@settings(max_examples=15)
@given(
    st.integers(1, 3),
    st.integers(4, 9),
    st.integers(4, 9),
    sides,
    sides,
    sides,
    sides,
    strides,
    paddings,
    st.integers(0, 99),
)
def test_conv2d_transpose_is_the_transpose_of_lax(n, h, w, c, k, kh, kw, stride, padding, seed):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(kh, kw, c, k)).astype(np.float32)
    large = jax.ShapeDtypeStruct((n, h, w, c), np.float32)
    small = jax.eval_shape(lambda x: reference_conv(x, jnp.asarray(kernel), stride, padding), large)
    y = rng.normal(size=small.shape).astype(np.float32)

    def reference(y, kernel):
        return jax.linear_transpose(lambda x: reference_conv(x, kernel, stride, padding), large)(y)[
            0
        ]

    x, pull = jax.vjp(
        lambda y, kernel: ops.conv2d_transpose(y, kernel, (h, w), stride, padding), y, kernel
    )
    x_ref, pull_ref = jax.vjp(reference, y, kernel)
    assert x.shape == (n, h, w, c)
    close(x, x_ref)
    dx = rng.normal(size=x.shape).astype(np.float32)
    for ours, theirs in zip(pull(dx), pull_ref(dx), strict=True):
        close(ours, theirs)


def test_an_impossible_enlargement_is_an_error():
    y, kernel = jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 2, 3))
    assert ops.conv2d_transpose(y, kernel, (7, 8), (2, 2)).shape == (1, 7, 8, 2)
    with pytest.raises(ValueError, match=r"conv2d makes \(5, 4\) of \(9, 8\)"):
        ops.conv2d_transpose(y, kernel, (9, 8), (2, 2))
    with pytest.raises(ValueError, match="with equal k"):
        ops.conv2d_transpose(y, kernel.transpose(0, 1, 3, 2), (8, 8), (2, 2))


@pytest.mark.slow
@settings(max_examples=15)
@given(
    st.integers(1, 3),
    st.integers(4, 9),
    st.integers(4, 9),
    sides,
    sides,
    sides,
    strides,
    st.sampled_from(["VALID", "SAME"]),
    st.booleans(),
    st.integers(0, 99),
)
def test_max_pool_is_lax_also_where_values_are_equal(
    n, h, w, c, kh, kw, stride, padding, ties, seed
):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, h, w, c)).astype(np.float32)
    x = np.round(x) if ties else x
    y, pull = jax.vjp(lambda x: ops.max_pool(x, (kh, kw), stride, padding), x)
    y_ref, pull_ref = jax.vjp(lambda x: reference_pool(x, (kh, kw), stride, padding), x)
    np.testing.assert_array_equal(y, y_ref)
    dy = rng.normal(size=y.shape).astype(np.float32)
    close(pull(dy)[0], pull_ref(dy)[0])


@pytest.mark.parametrize("size", [(26, 26), (11, 11), (7, 10)])
def test_windows_that_tile_the_image(size):
    x = np.round(np.random.default_rng(0).normal(size=(2, *size, 3))).astype(np.float32)
    y, pull = jax.vjp(lambda x: ops.max_pool(x), x)
    y_ref, pull_ref = jax.vjp(lambda x: reference_pool(x, (2, 2), (2, 2), "VALID"), x)
    np.testing.assert_array_equal(y, y_ref)
    dy = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    np.testing.assert_array_equal(pull(dy)[0], pull_ref(dy)[0])


def test_under_vmap_and_jit():
    rng = np.random.default_rng(0)
    x, w = (
        rng.normal(size=(4, 1, 8, 8, 2)).astype(np.float32),
        rng.normal(size=(3, 3, 2, 5)).astype(np.float32),
    )

    def score(conv, pool):
        return jax.jit(jax.vmap(jax.grad(lambda x: jnp.sum(jnp.sin(pool(conv(x, w)))))))(x)

    ours = score(ops.conv2d, ops.max_pool)
    theirs = score(
        lambda x, w: reference_conv(x, w, (1, 1), "VALID"),
        lambda x: reference_pool(x, (2, 2), (2, 2), "VALID"),
    )
    close(ours, theirs)


def test_each_platform_gets_its_own_program():
    x, w = jnp.ones((1, 8, 8, 2)), jnp.ones((3, 3, 2, 4))
    program = jax.jit(jax.grad(lambda x, w: ops.max_pool(ops.conv2d(x, w)).sum(), (0, 1))).trace(
        x, w
    )
    cpu = program.lower(lowering_platforms=("cpu",)).as_text()
    gpu = program.lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.convolution" not in cpu and "select_and_scatter" not in cpu
    assert "stablehlo.convolution" in gpu and "select_and_scatter" not in gpu
    wide, b = jnp.ones((1, 8, 8, 16)), jnp.ones(16)
    program = jax.jit(jax.grad(lambda *args: ops.conv_pool(*args).sum(), (0, 1, 2)))
    program = program.trace(wide, jnp.ones((3, 3, 16, 16)), b)
    assert "stablehlo.convolution" not in program.lower(lowering_platforms=("cpu",)).as_text()
    assert "stablehlo.convolution" in program.lower(lowering_platforms=("cuda",)).as_text()
    y = jnp.ones((1, 4, 4, 4))
    program = jax.jit(
        jax.grad(lambda y, w: ops.conv2d_transpose(y, w, (8, 8), (2, 2)).sum(), (0, 1))
    ).trace(y, w)
    assert "stablehlo.convolution" not in program.lower(lowering_platforms=("cpu",)).as_text()
    assert "stablehlo.convolution" in program.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ops.conv2d(jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 2, 4))), "equal c"),
        (lambda: ops.conv2d(jnp.ones((8, 8, 3)), jnp.ones((3, 3, 3, 4))), "expects x"),
        (lambda: ops.conv2d(jnp.ones((1, 2, 8, 3)), jnp.ones((3, 3, 3, 4))), "does not fit"),
        (
            lambda: ops.conv_pool(jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 4)), jnp.ones(3)),
            "equal c and k",
        ),
        (
            lambda: ops.conv_pool(jnp.ones((1, 3, 8, 3)), jnp.ones((3, 3, 3, 4)), jnp.ones(4)),
            "does not fit",
        ),
        (
            lambda: ops.conv2d(jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 4)), (0, 1)),
            "stride of 1 pixel or more",
        ),
        (
            lambda: ops.conv2d(jnp.ones((1, 8, 8, 3), int), jnp.ones((3, 3, 3, 4), int)),
            "one floating dtype, got int32",
        ),
        (
            lambda: ops.conv2d(jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 4), jnp.float16)),
            "got float16, float32",
        ),
        (
            lambda: ops.conv2d_map(jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 4))),
            "conv2d_map expects",
        ),
        (lambda: ops.max_pool(jnp.ones((8, 8, 3))), "expects x"),
        (lambda: ops.max_pool(jnp.ones((1, 1, 8, 3))), "does not fit"),
    ],
)
def test_bad_shapes_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def pooled(x, w, b, padding):
    return reference_pool(
        reference_conv(x, w, (1, 1), padding) + b.reshape(1, 1, 1, -1), (2, 2), (2, 2), "VALID"
    )


@pytest.mark.slow
@settings(max_examples=12)
@given(
    st.integers(1, 2),
    st.integers(5, 14),
    st.integers(5, 14),
    st.sampled_from(
        [
            (3, 3, 1, 5),
            (2, 4, 2, 3),
            (5, 5, 1, 4),
            (1, 1, 3, 2),
            (3, 3, 4, 5),
            (3, 3, 16, 17),
            (3, 3, 20, 16),
        ]
    ),
    st.sampled_from(["VALID", "SAME", ((0, 2), (1, 0))]),
    st.integers(0, 99),
)
def test_a_convolution_and_its_pool_in_one_are_lax(n, h, w, kernel, padding, seed):
    rng = np.random.default_rng(seed)
    given = [
        rng.normal(size=size).astype(np.float32)
        for size in ((n, h, w, kernel[2]), kernel, kernel[3:])
    ]
    same_values_and_gradients(ops.conv_pool, pooled, given, padding)


@pytest.mark.slow
@settings(max_examples=8)
@given(
    st.integers(1, 2),
    st.integers(6, 13),
    st.integers(6, 13),
    st.sampled_from(["VALID", "SAME"]),
    st.integers(0, 99),
)
def test_minimal_filtering_is_lax(n, h, w, padding, seed):
    rng = np.random.default_rng(seed)
    given = [rng.normal(size=size).astype(np.float32) for size in ((n, h, w, 17), (3, 3, 17, 18))]
    same_values_and_gradients(ops.conv2d, reference_conv, given, (1, 1), padding)


def same_values_and_gradients(ours, theirs, arguments, *static):
    """Equal up to rounding, which grows with the size of the kernel; each compiled as a whole."""

    def both(function):
        def run(arguments, dy):
            y, pull = jax.vjp(lambda *args: function(*args, *static), *arguments)
            return y, *pull(dy)

        return jax.jit(run)

    shape = jax.eval_shape(lambda *args: theirs(*args, *static), *arguments).shape
    dy = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    scale = np.sqrt(np.prod(arguments[1].shape[:3]))
    results = zip(both(ours)(arguments, dy), both(theirs)(arguments, dy), strict=True)
    for mine, other in results:
        assert mine.shape == other.shape
        close(mine / scale, other / scale)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [(3, 3, 1, 4), (3, 3, 16, 16)])
def test_under_vmap_images_alone_or_images_and_weights_may_have_a_new_axis(kernel):
    rng = np.random.default_rng(0)
    x, w = (
        rng.normal(size=(3, 2, 9, 10, kernel[2])),
        rng.normal(size=(3, *kernel)) / np.sqrt(np.prod(kernel[:3])),
    )
    x, w, b = (
        x.astype(np.float32),
        w.astype(np.float32),
        rng.normal(size=(3, kernel[3])).astype(np.float32),
    )

    def gradients(function, axes):
        score = jax.vmap(
            jax.grad(lambda x, w, b: jnp.sum(jnp.sin(function(x, w, b))), (0, 1, 2)), axes
        )
        return jax.jit(score)(x, *((w, b) if axes[1] == 0 else (w[0], b[0])))

    for axes in ((0, None, None), (0, 0, 0)):
        ours = gradients(lambda *args: ops.conv_pool(*args), axes)
        theirs = gradients(lambda *args: pooled(*args, "VALID"), axes)
        for mine, other in zip(ours, theirs, strict=True):
            close(mine, other)


def test_an_image_under_vmap_has_a_gradient_of_its_own():
    """The gradient of the outputs differs from image to image, as in an ascent of nodes."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(3, 9, 10, 17)), rng.normal(size=(3, 3, 17, 18)) / 12
    x, w = x.astype(np.float32), w.astype(np.float32)

    def gradients(conv):
        return jax.jit(jax.vmap(jax.grad(lambda x: jnp.sum(jnp.sin(conv(x[None], w))))))(x)

    close(gradients(ops.conv2d), gradients(lambda x, w: reference_conv(x, w, (1, 1), "VALID")))
    assert jax.vmap(lambda image: ops.conv2d(image[None], w)[0])(
        jnp.zeros((0, 9, 10, 17))
    ).shape == (0, 7, 8, 18)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [(3, 3, 1, 4), (3, 3, 16, 16), (2, 2, 9, 4)])
def test_each_gradient_may_be_taken_alone_and_has_a_gradient_itself(kernel):
    rng = np.random.default_rng(0)
    arguments = [
        rng.normal(size=size).astype(np.float32)
        for size in ((2, 8, 9, kernel[2]), kernel, kernel[3:])
    ]

    def score(function):
        return lambda *arguments: jnp.sum(
            jnp.sin(function(*arguments) / np.sqrt(np.prod(kernel[:3])))
        )

    def ours(*arguments):
        return score(ops.conv_pool)(*arguments)

    theirs = score(lambda *arguments: pooled(*arguments, "VALID"))
    for part in range(3):
        close(jax.grad(ours, part)(*arguments), jax.grad(theirs, part)(*arguments))
    second_gradients = [
        jax.grad(lambda *args, f=f: jnp.sum(jax.grad(f)(*args) ** 2), (0, 1))(*arguments)
        for f in (ours, theirs)
    ]
    for mine, other in zip(*second_gradients, strict=True):
        close(mine, other)


@pytest.mark.parametrize("padding", [((2, -1), (0, 1)), ((1, -1), (0, 0)), ((-1, 0), (0, -1))])
@pytest.mark.parametrize("kernel", [(3, 3, 1, 4), (3, 3, 16, 16), (2, 2, 9, 4)])
def test_negative_padding_crops(padding, kernel):
    rng = np.random.default_rng(0)
    arguments = [
        rng.normal(size=size).astype(np.float32) for size in ((1, 9, 9, kernel[2]), kernel)
    ]
    same_values_and_gradients(ops.conv2d, reference_conv, arguments, (1, 1), padding)
    x = arguments[0]
    expected = lax.reduce_window(
        x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), ((0, 0), *padding, (0, 0))
    )
    np.testing.assert_array_equal(ops.max_pool(x, padding=padding), expected)


def test_short_numbers_are_summed_plainly():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(1, 8, 8, 64)), rng.normal(size=(3, 3, 64, 16))
    exact = reference_conv(
        jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32), (1, 1), "VALID"
    )
    x, w = jnp.asarray(x, jnp.bfloat16), jnp.asarray(w, jnp.bfloat16)
    lost, lax_loses = (
        jnp.abs(conv(x, w).astype(jnp.float32) - exact).max()
        for conv in (ops.conv2d, lambda x, w: reference_conv(x, w, (1, 1), "VALID"))
    )
    assert lost <= 1.5 * lax_loses


@pytest.mark.parametrize("kernel", [(3, 3, 1, 8), (3, 3, 16, 16)])
def test_short_numbers_are_pooled_as_in_lax(kernel):
    rng = np.random.default_rng(0)
    given = [rng.normal(size=size) for size in ((2, 9, 9, kernel[2]), kernel, kernel[3:])]

    dy = np.cos(np.arange(2 * 3 * 3 * kernel[3])).reshape(2, 3, 3, -1)

    def computed(pooled, dtype):
        y, back = jax.vjp(pooled, *(jnp.asarray(a, dtype) for a in given))
        arrays = y, *back(jnp.asarray(dy, dtype))
        assert {array.dtype for array in arrays} == {jnp.dtype(dtype)}
        return [array.astype(jnp.float32) for array in arrays]

    def by_lax(x, w, b):
        return reference_pool(
            reference_conv(x, w, (1, 1), "VALID") + b.reshape(1, 1, 1, -1), (2, 2), (2, 2), "VALID"
        )

    all_three = (
        computed(ops.conv_pool, jnp.bfloat16),
        computed(by_lax, jnp.bfloat16),
        computed(by_lax, jnp.float32),
    )
    for mine, theirs, exact in zip(*all_three, strict=True):
        assert jnp.linalg.norm(mine - exact) <= 1.5 * jnp.linalg.norm(theirs - exact)


def test_a_pool_of_equal_values_gives_its_gradient_to_the_first():
    x, w, b = jnp.ones((1, 8, 8, 1)), jnp.ones((3, 3, 1, 2)), jnp.zeros(2)
    ours, theirs = (
        jax.grad(lambda x, f=f: f(x).sum())(x)
        for f in (lambda x: ops.conv_pool(x, w, b), lambda x: pooled(x, w, b, "VALID"))
    )
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("size", "kernel", "padding"), [((5, 6), (3, 3), "VALID"), ((7, 4), (2, 3), "SAME")]
)
def test_one_map_is_that_of_all(size, kernel, padding):
    rng = np.random.default_rng(0)
    x, w = (
        rng.normal(size=(4, *size, 3)).astype(np.float32),
        rng.normal(size=(*kernel, 3, 5)).astype(np.float32),
    )
    maps = np.array([4, 0, 2, 2])
    all_maps = reference_conv(x, w, (1, 1), padding)
    one = jax.vmap(
        lambda x, number: ops.conv2d_map(x[None], jnp.take(w, number, axis=3), padding)[0]
    )(x, maps)
    close(one, np.stack([all_maps[n, ..., number] for n, number in enumerate(maps)]))


@on_cpu
def test_a_step_is_isolated_and_its_input_is_computed_once():
    x, w, b = jnp.ones((2, 12, 12, 16)), jnp.ones((3, 3, 16, 16)), jnp.zeros(16)
    program = jax.jit(jax.grad(lambda x: ops.conv_pool(jnp.sin(x), w, b).sum()))
    text = program.lower(x).compile().as_text()
    assert text.count(" sine(") == 1 and " call(" in text


def test_within_trace_only_the_implementation_for_all_platforms_is_traced():
    x, w, b = jnp.ones((1, 12, 12, 16)), jnp.ones((3, 3, 16, 16)), jnp.zeros(16)

    @jax.jit
    def inner(x):
        return ops.conv2d(x, w).sum()

    def network(x):
        return ops.conv_pool(x, w, b).sum() + inner(x)

    with ops.trace_only():
        inspected = str(jax.make_jaxpr(network)(x))
    assert "platform_index" not in inspected and inspected.count("conv_general_dilated") == 2
    # The trace leaves nothing behind in the program that runs.
    assert (
        "stablehlo.convolution"
        not in jax.jit(network).trace(x).lower(lowering_platforms=("cpu",)).as_text()
    )


@on_cpu
def test_unwanted_gradients_are_not_traced(monkeypatch):
    x, w, b = jnp.ones((1, 12, 12, 16)), jnp.ones((3, 3, 16, 16)), jnp.zeros(16)

    def score(x, w):
        return ops.conv_pool(x, w, b).sum() + ops.conv2d(x, w).sum()

    def refuse(*_):
        raise RuntimeError("traced")

    refusing = dataclasses.replace(WINOGRAD, kernel_gradient=refuse)
    monkeypatch.setattr(convolution, "WINOGRAD", refusing)
    assert jax.grad(score)(x, w).shape == x.shape
    with pytest.raises(RuntimeError, match="traced"):
        jax.grad(score, 1)(x, w)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["default", "highest"])
@pytest.mark.parametrize(("kernel", "size"), [((3, 3, 2, 5), (11, 10)), ((3, 3, 16, 17), (8, 13))])
def test_other_platforms_compute_the_same(kernel, size, precision):
    rng = np.random.default_rng(0)
    x, w, b = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((3, 2, *size, kernel[2]), kernel, kernel[3:])
    )

    def apart(x, w, b, padding):
        return ops.max_pool(ops.conv2d(x, w, padding=padding) + b.reshape(1, 1, 1, -1))

    def gradients(function, padding, x, w, b):
        y, pull = jax.vjp(lambda *given: function(*given, padding), x, w, b)
        return y, *pull(jnp.sin(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    with jax.default_matmul_precision(precision):
        for padding in ("VALID", "SAME"):
            expected = jax.vmap(lambda x: gradients(pooled, padding, x, w, b))(x)  # noqa: B023
            for function in (ops.conv_pool, apart):
                with ops.compiled_for("gpu"):
                    found = jax.vmap(lambda x: gradients(function, padding, x, w, b))(x)  # noqa: B023
                    program = str(jax.make_jaxpr(lambda x: function(x, w, b, padding))(x[0]))  # noqa: B023
                # Products of JAX's default precision are not of float32 on a GPU.
                short = precision == "default" and jax.default_backend() != "cpu"
                for mine, other in zip(found, expected, strict=True):
                    close(mine, other, 5e-3 if short else 2e-5)
                wide = kernel[2] == 16 or function is apart
                assert ("conv_general_dilated" in program) == (precision == "default" and wide)


def test_compiled_for_one_platform_its_implementation_alone_is_traced():
    traced = []

    def implementation(name):
        return lambda x: traced.append(name) or x

    def chosen(x):
        return choose(
            x,
            cpu=implementation("cpu"),
            default=implementation("default"),
            for_tracing=implementation("for_tracing"),
        )

    def names():
        traced.clear()
        # A function of its own, or JAX would take the trace that it has.
        jax.make_jaxpr(lambda x: chosen(x))(1.0)
        return set(traced)

    assert names() == {"cpu", "default"}
    for platform, expected in (("cpu", {"cpu"}), ("gpu", {"default"})):
        with ops.compiled_for(platform):
            assert names() == expected
            with ops.trace_only():
                assert names() == {"for_tracing"}
            assert names() == expected
    assert names() == {"cpu", "default"}
