"""Every value that XLA computes lies in the enclosure of its rule, over each function's domain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from oipjax.bounds.interval import Interval, evaluate
from oipjax.bounds.interval.transcendental import ABSOLUTE, ALLOWANCES
from oipjax.bounds.interval.values import saturate
from oipjax.jaxpr import Program, flatten_jaxpr

LARGEST = float(np.finfo(np.float32).max)
TINY = 2.0**-126
UNIT = 2.0**-24
ROW = 33
"""Length of the short arrays; XLA computes them by other code than long ones."""
COUNT = 2**14 * ROW

FUNCTIONS = {name: getattr(lax, name) for name in ALLOWANCES}
WORST = {
    "exp": (86, 89),
    "exp2": (112, 128),
    "expm1": (0.02, 0.05),
    "cbrt": (1e36, 3e38),
    "sinh": (37, 40),
    "asinh": (0.3, 0.45),
    "tanh": (4.5, 5.5),
    "atan": (0.0005, 0.0015),
    "erf": (3, 4.5),
    "log1p": (0.35, 0.5),
}
"""Arguments near which the greatest errors were measured."""


def sweep(name: str) -> np.ndarray:
    """Float32 numbers of all magnitudes and both signs, ordinary ones and bad ones."""
    rng = np.random.default_rng(len(name))
    quarter = COUNT // 4
    bits = np.linspace(0, 2**32 - 1, quarter, dtype=np.uint64).astype(np.uint32)
    every = bits.view(np.float32)
    every = np.where(np.isfinite(every), every, np.float32(1))
    wide = rng.uniform(-130, 130, quarter)
    narrow = rng.uniform(-2, 2, quarter)
    low, high = WORST.get(name, (0.5, 1.5))
    worst = rng.uniform(low, high, COUNT - 3 * quarter)
    return np.concatenate([every, wide, narrow, worst]).astype(np.float32)


def computed(function, x: np.ndarray) -> dict[str, np.ndarray]:
    """Values by all the code that XLA may choose, in float64."""
    rows = x.reshape(-1, ROW)
    found = {
        "long": jax.jit(function)(x),
        "vmap": jax.jit(jax.vmap(function))(rows),
        "loop": jax.jit(lambda rows: lax.map(function, rows))(rows),
    }
    out = {name: np.asarray(value).ravel().astype(np.float64) for name, value in found.items()}
    for length in (1, 2, 3, 5, 8, 15, 33):
        short = jax.jit(function)
        ends = range(length, 200 * length + 1, length)
        parts = [np.asarray(short(x[::-7][end - length : end])) for end in ends]
        value = out["long"].copy()
        value[::-7][: 200 * length] = np.concatenate(parts)
        out[f"short {length}"] = value
    return out


def program_of(function, x: np.ndarray) -> Program:
    with jax.enable_x64(False):
        return flatten_jaxpr(jax.make_jaxpr(function)(jnp.asarray(x)))


def enclosure(function, x: np.ndarray) -> Interval:
    """By the rule, of tiny intervals around numbers."""
    program = program_of(function, x)
    low = np.nextafter(x.astype(np.float64), -np.inf)
    high = np.nextafter(x.astype(np.float64), np.inf)

    def propagate(low, high):
        values = evaluate(program, [saturate(Interval(low, high, high - low))])
        return values[program.variable(0)][:3]

    with jax.enable_x64(True):
        return Interval(*(np.asarray(end) for end in jax.jit(propagate)(low, high)))


@pytest.mark.parametrize("name", ALLOWANCES)
def test_no_computed_value_leaves_the_enclosure(name):
    x = sweep(name)
    found = enclosure(FUNCTIONS[name], x)
    with jax.enable_x64(True):
        exact = np.asarray(jax.jit(FUNCTIONS[name])(x.astype(np.float64)))
    is_known = ~np.isnan(found.low)
    is_number = np.isfinite(exact) & (np.abs(exact) < LARGEST) & (np.abs(x) > TINY)
    assert is_known[is_number].all()
    is_normal = is_number & (np.abs(exact) > TINY)
    truth = exact[is_normal]
    scale = np.ones_like(truth) if name in ABSOLUTE else np.abs(truth)
    allowance = ALLOWANCES[name]
    allowed = (allowance.base + allowance.slope * np.abs(x[is_normal].astype(np.float64))) * UNIT
    for code, value in computed(FUNCTIONS[name], x).items():
        is_inside = (value >= found.low) & (value <= found.high)
        assert is_inside[is_known].all(), (code, x[is_known & ~is_inside][:3])
        distance = np.abs(value[is_normal] - truth)
        assert (distance <= found.error[is_normal]).all(), code
        relative = distance / scale
        assert relative.max() <= allowance.measured * UNIT, (code, relative.max() / UNIT)
        assert (2 * relative <= allowed).all(), "an allowance is twice the error"


def products(first, second):
    """Products and quotients that XLA computes by one exponential."""
    return {
        "product": lambda a, b: first(a) * second(b),
        "quotient": lambda a, b: first(a) / second(-b),
        "three": lambda a, b: first(a) * second(b / 2) * second(b / 2),
        "cube": lambda a, b: lax.integer_pow(first(a / 2), 3),
        "turned": lambda a, b: first(a) / ((b * 0 + 1) / second(b)),
    }


@pytest.mark.parametrize("second", [lax.exp, lax.exp2])
@pytest.mark.parametrize("kind", list(products(None, None)))
def test_a_product_of_exponentials_stays_in_the_enclosure(kind, second):
    function = products(lax.exp, second)[kind]
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 44, 2**17).astype(np.float32)
    b = rng.uniform(0, 44, 2**17).astype(np.float32)
    with jax.enable_x64(False):
        program = flatten_jaxpr(jax.make_jaxpr(function)(a, b))

    def propagate(*numbers):
        given = [Interval(number, number, jnp.zeros_like(number)) for number in numbers]
        return evaluate(program, given)[program.variable(0)][:3]

    with jax.enable_x64(True):
        numbers = (a.astype(np.float64), b.astype(np.float64))
        low, high, _ = (np.asarray(end) for end in jax.jit(propagate)(*numbers))
    value = np.asarray(jax.jit(function)(a, b)).astype(np.float64)
    assert np.isfinite(high).all()
    assert ((value >= low) & (value <= high)).all()


def test_more_exponentials_than_the_allowance_pays_for_are_refused():
    def power(x):
        return lax.exp(x) ** 3 * lax.exp(x + 1)

    def hidden(x):
        shared = jax.jit(lambda y: jnp.where(y > 1, lax.exp(y), y))
        return lax.exp(x) * lax.exp(2 * x) * lax.exp(3 * x) / (-shared(x)).reshape(1, -1)

    x = np.ones((1, 3), np.float32)
    for function in (power, hidden):
        program = program_of(function, x)
        with (
            jax.enable_x64(True),
            pytest.raises(ValueError, match="products of more than 3 exponentials"),
        ):
            evaluate(program, [Interval(*[x.astype(np.float64)] * 3)])


def test_a_softmax_is_not_refused():
    x = np.ones((1, 3), np.float32)

    def layers(x):
        for _ in range(5):
            x = jax.nn.softmax(x @ jnp.ones((3, 3), jnp.float32))
        return x

    program = program_of(layers, x)
    with jax.enable_x64(True):
        one = jnp.ones((1, 3))
        values = evaluate(program, [Interval(one, one, one * 0)])
    np.testing.assert_allclose(values[program.variable(0)].high, 1 / 3, rtol=0.01)


def test_a_stated_accuracy_is_refused():
    x = np.ones(3, np.float32)
    program = program_of(lambda x: lax.exp(x, accuracy=lax.Tolerance(0, 0, 1)), x)
    with (
        jax.enable_x64(True),
        pytest.raises(ValueError, match="no bound is known for 'exp' with accuracy="),
    ):
        evaluate(program, [Interval(x, x, x)])
