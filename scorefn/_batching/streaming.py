"""The mean of many samples and its derivatives, in one pass and constant memory."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params

from scorefn._core.arrays import as_local, merged, picked, stop, wide
from scorefn._core.derivatives import Arrays, Moving, linear, minimizes, with_jvp
from scorefn._core.types import Sample
from scorefn._score import attach_score, leave_one_out, without_impossible

from .chunk_size import LEAST, fitting, is_narrow
from .samples import ChunkSize, chunked_vmap, keys_of

# The largest total size of separate copies of an array for the samples.
_MOST_COPIED = 2**20
# Of these JAX has no transpose.
_FORWARD_ONLY = {"while", "pure_callback", "io_callback", "ffi_call"}


def streamed_mean(
    one: Callable[[jax.Array], Sample], key: jax.Array, num_samples: int, chunk_size: ChunkSize
) -> jax.Array | None:
    """The mean over samples with keys ``fold_in(key, i)``, whose gradient takes one pass.

    The gradient is accumulated with the mean, chunk by chunk, and no sample is stored. With
    leave-one-out it is a covariance of the costs and the scores s:

    .. code-block:: text

        mean grad f + sum (f_i - mean f) s_i / (n - 1)
          = mean grad f + [sum (f_i - p) s_i - (mean f - p) sum s_i] / (n - 1)

    for any p. Here p is the mean cost of the first chunk, so that a large offset of the costs loses
    no digits. Higher derivatives are those of the terms, which are computed again in chunks.

    Returns:
        The mean; None if there is only one chunk, if a cost is not a scalar, or if a learned
        baseline is trained.
    """
    if chunk_size in (None, num_samples) or chunk_size == "auto" and num_samples <= LEAST:
        return None
    jaxpr, shape = jax.make_jaxpr(one, return_shape=True)(key)
    if minimizes(jaxpr.jaxpr):
        return None  # The gradient depends on the sign of what multiplies the mean.
    if chunk_size == "auto":
        chunk_size = fitting(num_samples, jaxpr)
    if chunk_size == num_samples or jax.tree.map(jnp.shape, shape.value) != ():
        return None

    # Closed-over arrays become arguments, so that other transformations see them.
    arrays = [key, *jaxpr.consts]
    hoisted = jax.make_jaxpr(
        lambda key, *closed_over: jax.core.eval_jaxpr(jaxpr.jaxpr, closed_over, key)
    )(*arrays)
    stream = _Stream(hoisted, int(num_samples), int(chunk_size))
    return with_jvp(stream.value, stream.derivative)(*arrays)[0]


@dataclass(frozen=True)
class _Stream:
    """Functions of the key of all samples and the arrays that a sample closes over."""

    jaxpr: Any
    num_samples: int
    chunk_size: int

    def one(self, *arrays: jax.Array) -> list[jax.Array]:
        """The outputs for one sample, whose key is the first array."""
        return jax.core.eval_jaxpr(self.jaxpr.jaxpr, self.jaxpr.consts, *arrays)

    def value(self, *arrays: jax.Array) -> list[jax.Array]:
        """The mean."""
        return self.one_pass((False,) * len(arrays), *arrays)

    def derivative(self, moving: Moving, arrays: Arrays, tangents: Arrays) -> Any:
        """The mean and its tangent."""
        arrays, along = list(map(jnp.asarray, arrays)), list(map(jnp.asarray, tangents))
        some = picked(arrays, moving)

        def by_terms(arrays: Arrays, along: Arrays) -> Any:
            return jax.jvp(
                lambda some: [self.terms_mean(*merged(arrays, moving, some))],
                (picked(arrays, moving),),
                (list(along),),
            )

        if not self.takes_one_pass(moving, arrays):
            return by_terms(arrays, along)
        gradient = with_jvp(partial(self.one_pass, moving), partial(self.second_derivative, moving))
        mean, *gradients = gradient(*arrays)

        def forward(fixed: Arrays, along: Arrays) -> list[jax.Array]:
            return by_terms(fixed[len(some) :], along)[1]

        def backward(fixed: Arrays, cotangents: Arrays) -> list[jax.Array]:
            return [g * cotangents[0].astype(g.dtype) for g in fixed[: len(some)]]

        return [mean], linear(forward, backward, [*gradients, *arrays], along, [mean])

    def takes_one_pass(self, moving: Moving, arrays: Arrays) -> bool:
        """Whether JAX can transpose the derivative of one sample, for each device."""
        some, found = picked(arrays, moving), []

        def trace() -> None:  # closes over the arrays, which keep their axes of devices
            sample, push = jax.linearize(lambda some: self.one(*merged(arrays, moving, some)), some)
            # The gradient along an array shared by devices is summed over them, for all samples.
            shared = _in_shard_map() and any(
                jax.typeof(as_local(x, sample)) != jax.typeof(as_local(x, x)) for x in some
            )
            found.append(not shared and _has_transpose(jax.make_jaxpr(push)(some).jaxpr))

        jax.eval_shape(trace)
        return all(found)

    def second_derivative(
        self, first: Moving, moving: Moving, arrays: Arrays, tangents: Arrays
    ) -> Any:
        """The mean and the gradient along the first moving arrays, and tangents of these."""
        arrays = list(map(jnp.asarray, arrays))

        def mean_and_gradient(some: list[jax.Array]) -> list[jax.Array]:
            at = merged(arrays, moving, some)
            mean, gradient = jax.value_and_grad(
                lambda some: self.terms_mean(*merged(at, first, some))
            )(picked(at, first))
            return [mean, *gradient]

        return jax.jvp(mean_and_gradient, (picked(arrays, moving),), (list(tangents),))

    def terms_mean(self, key: jax.Array, *closed_over: jax.Array) -> jax.Array:
        """The mean of all terms, whose derivatives are right at every order."""
        one = lambda key: self.one(key, *closed_over)  # noqa: E731
        keys = keys_of(key, jnp.arange(self.num_samples, dtype=jnp.uint32))
        values, *log_probs = chunked_vmap(one, chunk_size=self.chunk_size)(keys)
        if log_probs:
            values = attach_score(values, log_probs[0], leave_one_out(stop(values)))
        return jnp.mean(values)

    def one_pass(self, moving: Moving, *arrays: jax.Array) -> list[jax.Array]:
        """The mean and its gradient along each moving array."""
        n, (value, *log_prob) = self.num_samples, self.jaxpr.out_avals
        dtype, coupled = value.dtype, bool(log_prob)

        def samples(some: list[jax.Array], indices: jax.Array, axes: list[Any]) -> list[jax.Array]:
            def one(key: jax.Array, some: list[jax.Array]) -> list[jax.Array]:
                _, *closed_over = merged(arrays, moving, some)
                return self.one(key, *closed_over)

            keys = keys_of(arrays[0], indices)
            values, *log_probs = jax.vmap(one, (0, axes))(keys, some)
            for log_prob in log_probs:  # As `attach_score`: a broken model stays visible.
                values = jnp.where(jnp.isnan(log_prob), jnp.asarray(jnp.nan, values.dtype), values)
            return [values, *(without_impossible(log_prob) for log_prob in log_probs)]

        some = list(map(jnp.asarray, picked(arrays, moving)))
        zero = jnp.zeros((), wide(dtype))
        zeros = [jnp.zeros(x.shape, _summed(x.dtype)) for x in some]
        if _in_shard_map():
            like = samples(some, jnp.zeros(1, jnp.uint32), [None] * len(some))
            zero, zeros = as_local((zero, zeros), like)

        def add(state: Any, size: int) -> Any:
            start, pilot, total, gradients, scores = state
            indices = start + jnp.arange(size, dtype=jnp.uint32)
            # The derivatives of 16-bit arrays must not be summed in 16 bits: each sample gets its
            # own copy, unless the copies would be large, as for the weights of a network.
            axes = [0 if is_narrow(x) and x.size * size <= _MOST_COPIED else None for x in some]
            each = [
                x if axis is None else jnp.broadcast_to(x, (size, *x.shape))
                for x, axis in zip(some, axes, strict=True)
            ]
            (values, *log_probs), pull = jax.vjp(lambda some: samples(some, indices, axes), each)
            costs = values.astype(zero.dtype)
            center = jnp.mean(costs)
            pilot = jnp.where((start == 0) & jnp.isfinite(center), center, pilot)
            excess = costs - pilot
            total = total + jnp.sum(excess)
            ones = jnp.ones_like(values)
            if not coupled:
                return start + size, pilot, total, _added(gradients, pull([ones])[0]), scores
            weight = (excess * (n / (n - 1))).astype(log_probs[0].dtype)
            gradients = _added(gradients, pull([ones, weight])[0])
            scores = _added(scores, pull([jnp.zeros_like(values), jnp.ones_like(weight)])[0])
            return start + size, pilot, total, gradients, scores

        chunks, rest = divmod(n, self.chunk_size)
        state = (jnp.uint32(0), zero, zero, zeros, zeros if coupled else [])
        state, _ = jax.lax.scan(
            lambda state, _: (add(state, self.chunk_size), None), state, length=chunks
        )
        if rest:
            state = add(state, rest)
        _, pilot, total, gradients, scores = state
        if coupled:
            # The baseline is the mean cost instead of the pilot.
            shift = total / (n - 1)
            gradients = [g - shift * s for g, s in zip(gradients, scores, strict=True)]
        means = [(g / n).astype(x.dtype) for g, x in zip(gradients, some, strict=True)]
        return [(pilot + total / n).astype(dtype), *means]


def _in_shard_map() -> bool:
    return bool(jax.sharding.get_abstract_mesh().manual_axes)


def _has_transpose(jaxpr: Any) -> bool:
    """Whether a linear jaxpr holds no loop of unknown length and no code outside of JAX."""
    return all(
        eqn.primitive.name not in _FORWARD_ONLY
        and all(map(_has_transpose, jaxprs_in_params(eqn.params)))
        for eqn in jaxpr.eqns
    )


def _summed(dtype: Any) -> Any:
    """The dtype in which numbers of a dtype are summed."""
    return wide(dtype) if jnp.issubdtype(dtype, jnp.floating) else dtype


def _added(xs: list[jax.Array], ys: list[jax.Array]) -> list[jax.Array]:
    """The sums plus the derivatives of one chunk, or of each of its samples."""
    wider = [y.astype(x.dtype) for x, y in zip(xs, ys, strict=True)]
    return [x + (y if x.ndim == y.ndim else jnp.sum(y, 0)) for x, y in zip(xs, wider, strict=True)]
