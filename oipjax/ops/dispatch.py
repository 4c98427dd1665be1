"""Which implementation of an operation is traced, and its marks for XLA and for bounds.

The choice depends on one value, `Lowering`, held in a context variable. `compiled_for`,
`trace_only` and `allow_extra_rounding` each replace one of its fields.
"""

import contextlib
import contextvars
import dataclasses
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array, lax
from jax.custom_batching import custom_vmap
from jax.experimental.xla_metadata import set_xla_metadata
from jax.interpreters import batching

Implementation = Callable[..., Any]


@dataclass(frozen=True)
class Lowering:
    """How the operations that are traced at the moment will be used.

    Attributes:
        platform: the only platform that the program is compiled for; None: any platform.
        trace_only: whether the program is inspected and never run.
        extra_rounding: whether algorithms that round more are allowed.
    """

    platform: str | None = None
    trace_only: bool = False
    extra_rounding: bool = False

    @property
    def takes_extra_rounding(self) -> bool:
        """Whether algorithms that round more are used: they are allowed and a CPU runs them."""
        on_cpu = self.platform in (None, "cpu")
        return self.extra_rounding and on_cpu and not self.trace_only


_DEFAULT = Lowering()
_LOWERING = contextvars.ContextVar("lowering", default=_DEFAULT)


def lowering() -> Lowering:
    """The value in force."""
    return _LOWERING.get()


@contextlib.contextmanager
def _replaced(**changes: Any) -> Iterator[None]:
    """Within it some fields of `Lowering` have other values."""
    changed = dataclasses.replace(_LOWERING.get(), **changes)
    token = _LOWERING.set(changed)
    try:
        yield
    finally:
        _LOWERING.reset(token)


@contextlib.contextmanager
def trace_only() -> Iterator[None]:
    """Within it `choose` takes one implementation for all platforms.

    This is for programs that are inspected but never run. It halves the tracing.
    """
    # JAX caches traces by the metadata in force. The mark keeps a trace made here from being reused
    # for a program that runs.
    with _replaced(trace_only=True), set_xla_metadata(plain="true"):
        yield


def compiled_for(platform: str) -> AbstractContextManager[None]:
    """Within it `choose` takes the implementation of one platform, which halves the tracing.

    JAX does not see the choice. A function of ``jax.jit`` that was traced within keeps this
    implementation. Lowered for another platform later, it gives right values, perhaps slowly.

    Args:
        platform: the only platform that the program is compiled for, e.g. ``"cpu"``.
    """
    return _replaced(platform=platform)


def allow_extra_rounding() -> AbstractContextManager[None]:
    """Within it 3x3 convolutions on a CPU may use `oipjax.ops.toom_cook`: faster, but rounds more.

    This is for training on a CPU. Scores and bounds must not be computed within, since no bound
    counts this rounding. JAX does not see the choice, as with `compiled_for`: a function of
    ``jax.jit`` that was traced within keeps it.
    """
    return _replaced(extra_rounding=True)


def choose(
    *arguments: Any,
    cpu: Implementation,
    default: Implementation,
    for_tracing: Implementation | None = None,
) -> Any:
    """The result of one of several implementations of the same function.

    The platform decides. It is the one given to `compiled_for`, or else the one that the program is
    lowered for.

    Args:
        *arguments: of the implementation.
        cpu: the implementation for CPUs.
        default: the one for all other platforms.
        for_tracing: the one traced within `trace_only`; None: ``default``.
    """
    current = _LOWERING.get()
    if current.trace_only:
        implementation = default if for_tracing is None else for_tracing
        return implementation(*arguments)
    if current.platform is None:
        return lax.platform_dependent(*arguments, cpu=cpu, default=default)
    implementation = cpu if current.platform == "cpu" else default
    return implementation(*arguments)


@jax.tree_util.register_static
@dataclass(frozen=True)
class WantedGradients:
    """Which gradients are wanted. As a pytree without leaves it may be a residual."""

    images: bool
    kernel: bool
    bias: bool = False


def wanted_gradients(*primals: Any) -> tuple[tuple[Array, ...], WantedGradients]:
    """Values of arguments of a ``custom_vjp`` with ``symbolic_zeros``, and the wanted gradients.

    XLA drops unused gradients, but only after they have been traced, which takes longer.

    Args:
        *primals: images, kernel and perhaps bias, as JAX hands them to the forward function.
    """
    values = tuple(primal.value for primal in primals)
    perturbed = tuple(primal.perturbed for primal in primals)
    return values, WantedGradients(*perturbed)


def isolated(function: Implementation, *, per_image: bool = True) -> Implementation:
    """The same ``function(shared, *images)`` as a step that XLA does not merge with its neighbours.

    XLA computes an elementwise operation again for each of its readers instead of storing the
    result. With sixteen readers, as in `oipjax.ops.winograd`, that costs more than all products. An
    isolated step has its inputs and outputs stored.

    Under `jax.vmap` the new axis becomes part of the images' first axis, which suits products of
    matrices. This holds where ``shared`` has no new axis and ``per_image`` is true.

    Args:
        function: of arguments that all images share, and of arrays with a row for each image.
        per_image: whether each output has a row for each image.
    """

    def body(*arguments):
        with set_xla_metadata(inlineable="true"):  # All calls within inherit the attribute.
            return function(*arguments)

    @custom_vmap
    def call(*arguments):
        with set_xla_metadata(inlineable="false"):
            return jax.jit(body)(*arguments)

    def on_joined_axes(size, shared, images):
        def joined(leaf):
            return lax.collapse(leaf, 0, 2)

        def separated(leaf):
            return leaf.reshape(size, rows, *leaf.shape[1:])

        rows = jax.tree.leaves(images)[0].shape[1]
        out = call(shared, *jax.tree.map(joined, images))
        return jax.tree.map(separated, out)

    @call.def_vmap
    def _(size, is_batched, *arguments):
        shared, *images = arguments
        shared_is_batched = any(jax.tree.leaves(is_batched[0]))
        all_images_batched = all(jax.tree.leaves(is_batched[1:]))
        if per_image and all_images_batched and not shared_is_batched:
            out = on_joined_axes(size, shared, images)
        else:
            axes = jax.tree.map(lambda batched: 0 if batched else None, tuple(is_batched))
            out = jax.vmap(function, axes)(*arguments)
        return out, jax.tree.map(lambda _: True, out)

    @jax.custom_jvp
    def isolated_function(*arguments):
        return call(*arguments)

    @isolated_function.defjvp
    def _(primals, tangents):
        # A gradient of a gradient comes here: `custom_vmap` has no reverse mode.
        return jax.jvp(function, primals, tangents)

    return isolated_function


def without_bound(x: Array) -> Array:
    """The same values; within `trace_only` they are marked, and no bound of them can be made.

    The mark is a primitive that bounds have no rule for. It stands where the rounding of the
    implementation that runs is not counted.
    """
    return _mark().bind(x) if _LOWERING.get().trace_only else x


@functools.cache
def _mark() -> Any:
    # Imported on first use: it brings a compiler of kernels, which takes long to import.
    from jax.extend.core import Primitive

    def batched(arguments, axes):
        return mark.bind(*arguments), axes[0]

    mark = Primitive("kernel_gradient_by_minimal_filtering")
    mark.def_abstract_eval(lambda x: x)
    batching.primitive_batchers[mark] = batched
    return mark
