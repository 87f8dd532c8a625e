"""Distributions: two pure functions and their parameters, or objects with both methods."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.arrays import as_local, is_float, is_number, merged, stop
from scorefn._core.checks import check_instance
from scorefn._core.pytree import pytree_dataclass, static_field

from ._interop.discrete import factor_log_probs
from ._interop.scores import without_wrong_slopes


@pytree_dataclass
class Distribution:
    """A distribution given by a log-density, a sampler and parameters.

    Objects of distrax, TFP on JAX, numpyro and flowjax are accepted wherever a distribution is;
    this record is for all other distributions. It is a pytree with the leaves of `params`. The
    functions are compared by identity, so functions that are defined once cause no retracing.

    Attributes:
        log_prob: ``log_prob(params, x) -> scalar``, the log-density of ONE draw, in nats. It must
            be normalized for every estimator that reads it but two: `SelfNormalized`, and
            `ScoreFunction` with draws made elsewhere (`Given`), allow any constant, which may
            depend on params. `Enumerate` checks it. Pathwise and black-box estimators do not read
            it; families, as `Bernoulli`, are normalized by construction.
        sample: ``sample(params, key) -> x``, one draw: any pytree of arrays, of any dtype. Only
            ``Pathwise`` and other pathwise estimators need it to be differentiable.
        params: any pytree of arrays.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def log_prob(rate, x): return jnp.log(rate) - rate * x
        >>> def sample(rate, key): return jax.random.exponential(key) / rate
        >>> exponential = sf.Distribution(log_prob, sample, params=2.0)
        >>> print(exponential.log_prob(exponential.params, 0.0))
        0.6931472
    """

    log_prob: Callable[[Any, Any], jax.Array] = static_field(repr=False)
    sample: Callable[[Any, jax.Array], Any] = static_field(repr=False)
    params: Any

    def draw(self, key: jax.Array) -> Any:
        """One draw, with the derivative of `sample`. The key is consumed."""
        return self._call(self.sample, self.params, key)

    def stopped_draw(self, key: jax.Array) -> Any:
        """One draw without a derivative. The key is consumed."""
        return stop(self._call(self.sample, stop(self.params), key))

    def log_density(self, x: Any) -> jax.Array:
        """The log-density of one draw, checked to be one real number."""
        return one_number("log_prob", self._call(self.log_prob, self.params, x), x)

    def _call(self, fn: Callable[[Any, Any], Any], params: Any, x: Any) -> Any:
        try:
            return fn(params, x)
        except TypeError as error:
            # What JAX says of keys in the wrong place names no argument.
            if is_object(self) or not any(word in str(error) for word in ("key<", "PRNG")):
                raise
            raise TypeError(
                f"The arguments of Distribution are log_prob(params, x), sample(params, key) and "
                f"params, in this order, and both functions take params first. Calling "
                f"{getattr(fn, '__name__', repr(fn))} raised: {error}"
            ) from error

    def floats(self) -> list[Any]:
        """The float leaves of params, along which a score can be taken."""
        return [leaf for leaf in jax.tree.leaves(self.params) if is_float(leaf)]

    def with_floats(self, floats: list[Any]) -> Distribution:
        """The distribution with other values for `floats`."""
        leaves, structure = jax.tree.flatten(self.params)
        given = merged(leaves, map(is_float, leaves), floats)
        return replace(self, params=jax.tree.unflatten(structure, given))

    def score(self, x: Any) -> Any:
        """The derivative of the log-density of one draw along each of `floats`, a list."""
        # Inside shard_map the gradient along a parameter shared by devices is summed over them.
        return jax.grad(lambda floats: self.with_floats(floats).log_density(x))(
            as_local(self.floats(), x)
        )


def as_distribution(distribution: Any) -> Distribution:
    """The distribution, of any library, as a `Distribution`.

    Raises:
        TypeError: it lacks ``log_prob`` or ``sample`` methods, or it is a class.
    """
    if isinstance(distribution, Distribution):
        return distribution
    check_instance("distribution", distribution)
    log_prob, sample = (getattr(distribution, name, None) for name in ("log_prob", "sample"))
    if not (callable(log_prob) and callable(sample)):
        raise TypeError(
            f"distribution must be a scorefn.Distribution, or an object with the methods log_prob "
            f"and sample as those of distrax, TFP, numpyro and flowjax; got "
            f"{type(distribution).__name__}. Wrap two functions as "
            f"Distribution(log_prob, sample, params)."
        )
    drawn = _seeded_sample if _takes_seed(distribution, sample) else _keyed_sample
    return Distribution(_method_log_prob, drawn, _as_leaf_if_no_pytree(distribution))


def is_object(distribution: Distribution) -> bool:
    """Whether params is an object of another library, wrapped by `as_distribution`."""
    return distribution.log_prob is _method_log_prob


def _seeded_sample(distribution: Any, key: jax.Array) -> Any:
    return distribution.sample(seed=key)


def _keyed_sample(distribution: Any, key: jax.Array) -> Any:
    return distribution.sample(key)


def _takes_seed(distribution: Any, sample: Callable[..., Any]) -> bool:
    """Whether `sample` takes its key by the name seed; else it must take it alone, in position."""
    parameters = inspect.signature(sample).parameters
    if "seed" in parameters:
        return True
    required = [p for p in parameters.values() if p.default is p.empty]
    needed = [p for p in required if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    by_position = [p for p in parameters.values() if p.kind not in (p.VAR_KEYWORD, p.KEYWORD_ONLY)]
    if not by_position or needed[1:] or any(p.kind is p.KEYWORD_ONLY for p in needed):
        raise TypeError(
            f"distribution must draw by sample(key) or sample(seed=key), and that of "
            f"{type(distribution).__name__} is sample{inspect.signature(sample)}. Wrap it: "
            f"Distribution(log_prob, lambda params, key: ..., params)."
        )
    return False


class _Leaf:
    """An object whose class JAX takes for a pytree and cannot flatten, as a leaf."""

    def __init__(self, distribution: Any) -> None:
        self.log_prob, self.sample = distribution.log_prob, distribution.sample


def _as_leaf_if_no_pytree(distribution: Any) -> Any:
    try:
        jax.tree.flatten(distribution)
    except AttributeError:
        return _Leaf(distribution)
    return distribution


def _method_log_prob(distribution: Any, x: Any) -> jax.Array:
    distribution = without_wrong_slopes(distribution)
    # At probabilities of 0 and 1 the log-densities of libraries have nan as derivatives.
    log_probs = factor_log_probs(distribution, x)
    if log_probs is not None:
        return jnp.sum(log_probs)
    # Batch dimensions of one draw are independent factors; a joint may return one term per part.
    return reduce(jnp.add, map(jnp.sum, jax.tree.leaves(distribution.log_prob(x))))


def one_number(name: str, value: Any, x: Any) -> jax.Array:
    """The value of a log-density at one draw, checked to be one real float."""
    if not is_number(value) or jnp.shape(value) != ():
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(x)]
        got = f"shape {value.shape}" if hasattr(value, "shape") else repr(value)
        raise ValueError(
            f"{name} must return one number for one draw, got {got} for a draw of shape "
            f"{shapes[0] if len(shapes) == 1 else shapes}. Sum it over the event axes."
        )
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise TypeError(f"{name} must return a real float, got {jnp.result_type(value)}.")
    return jnp.asarray(value)
