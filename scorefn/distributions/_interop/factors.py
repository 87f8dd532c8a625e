"""Independent discrete factors of objects of any library."""

from typing import Any

import jax
import jax.numpy as jnp

from scorefn.distributions._discrete import Bernoulli, Categorical, Factors, OneHotCategorical
from scorefn.distributions._distribution import Distribution


def read_factors(distribution: Distribution, key: jax.Array) -> Factors | None:
    """The distribution as a record of bits or categories, or None.

    Objects are recognized by the names of their classes and by `logits` or `probs`; Independent
    and expanded ones are unwrapped, since the factors of one draw are independent anyhow. The key
    is only an example: nothing is drawn with it.
    """
    inner = unwrapped(distribution.params)
    names = _names(inner)
    # One-hot first: in distrax it is a subclass of Categorical.
    kinds = {"OneHot": OneHotCategorical, "Categorical": Categorical, "Bernoulli": Bernoulli}
    kind: Any = next((kinds[k] for k in kinds if any(n.startswith(k) for n in names)), None)
    if kind is None:
        return None
    probs = getattr(inner, "probs", None)
    # Made from probabilities, numpyro and distrax offer logits all the same: log(0) among them.
    by_probs = any(n.endswith("Probs") for n in names) or getattr(inner, "_logits", 0) is None
    logits = None if by_probs else getattr(inner, "logits", None)
    if logits is None:
        if probs is None:
            return None
        probs = jnp.asarray(probs)
        logits = _log_odds(probs) if kind is Bernoulli else _log(probs)
    draw = jax.eval_shape(distribution.draw, key)
    shape = (*draw.shape, jnp.shape(logits)[-1]) if kind is Categorical else draw.shape
    return kind(jnp.broadcast_to(logits, shape), draw.dtype)


def require_factors(
    distribution: Distribution,
    key: jax.Array,
    kinds: tuple[type[Factors], ...],
    name: str,
    hint: str,
) -> Any:
    """The distribution as a record of one of these kinds; else ``TypeError``.

    Args:
        distribution: the distribution.
        key: an example of a key, as for `read_factors`.
        kinds: the records that the caller supports.
        name: the name of the calling estimator.
        hint: a sentence of the message on other estimators.
    """
    factors = read_factors(distribution, key)
    if isinstance(factors, kinds):
        return factors
    needs = " or ".join(_WORDS[kind] for kind in kinds)
    examples = ", ".join(f"scorefn.{kind.__name__}(logits)" for kind in kinds)
    raise TypeError(
        f"{name} needs independent {needs}, as {examples} or an object of a library; got "
        f"{type(distribution.params).__name__}. {hint} ScoreFunction fits every distribution."
    )


_WORDS: dict[type[Factors], str] = {
    Bernoulli: "bits",
    Categorical: "categories",
    OneHotCategorical: "one-hot categories",
}


def unwrapped(distribution: Any) -> Any:
    """What is inside of Independent and of numpyro's expanded distributions."""
    while _names(distribution) & {"Independent", "ExpandedDistribution"}:
        inner = getattr(distribution, "distribution", None)
        distribution = distribution.base_dist if inner is None else inner
    return distribution


def _log(probs: jax.Array) -> jax.Array:
    """The logarithm, of 0 too: minus infinity, along which no derivative passes."""
    possible = probs > 0
    return jnp.where(possible, jnp.log(jnp.where(possible, probs, 1)), -jnp.inf)


def _log_odds(probs: jax.Array) -> jax.Array:
    """Of probabilities from 0 to 1; those at the ends are as good as certain, and finite."""
    least = jnp.finfo(probs.dtype).tiny
    ends = (probs <= 0) | (probs >= 1)
    inside = jnp.where(ends, 0.5, probs)
    certain = jnp.where(probs > 0, -jnp.log(least), jnp.log(least))
    return jnp.where(ends, certain, jnp.log(inside) - jnp.log1p(-inside)).astype(probs.dtype)


def _names(distribution: Any) -> set[str]:
    return {cls.__name__ for cls in type(distribution).__mro__}
