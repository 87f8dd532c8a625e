"""Bits and categories of any library, with probabilities 0 and 1 and infinite logits."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.arrays import as_float, stop, wide
from scorefn.distributions._discrete import (
    Bernoulli,
    Categorical,
    Factors,
    OfLogits,
    OneHotCategorical,
)

from .classes import class_of, unwrapped

_KINDS: dict[str, type[Factors]] = {
    "distrax.Bernoulli": Bernoulli,
    "distrax.Categorical": Categorical,
    "distrax.EpsilonGreedy": Categorical,
    "distrax.Greedy": Categorical,
    "distrax.OneHotCategorical": OneHotCategorical,
    "distrax.Softmax": Categorical,
    "numpyro.BernoulliLogits": Bernoulli,
    "numpyro.BernoulliProbs": Bernoulli,
    "numpyro.CategoricalLogits": Categorical,
    "numpyro.CategoricalProbs": Categorical,
    "tfp.Bernoulli": Bernoulli,
    "tfp.Categorical": Categorical,
    "tfp.OneHotCategorical": OneHotCategorical,
}


@dataclass(frozen=True)
class Discrete:
    """Independent discrete factors as they were given, by probabilities or by logits.

    Attributes:
        kind: the record of the same draws.
        given: [...] for bits, [..., C] for categories.
        by_probs: whether `given` holds probabilities; else logits.
    """

    kind: type[Factors]
    given: jax.Array
    by_probs: bool

    def to_logits(self) -> jax.Array:
        """Logits along which no derivative is infinite or nan; those of bits are finite."""
        if not self.by_probs:
            record: Any = self.kind(self.given)
            return finite_log_odds(record.plain()) if self.kind is Bernoulli else record.plain()
        probs = jnp.asarray(self.given)
        if self.kind is not Bernoulli:
            return _log(probs)
        ends = (probs <= 0) | (probs >= 1)
        inside = jnp.where(ends, 0.5, probs)
        # As for infinite logits: certain in value, and along which no derivative passes.
        certain = jnp.where(probs > 0, jnp.inf, -jnp.inf)
        log_odds = jnp.log(inside) - jnp.log1p(-inside)
        return finite_log_odds(jnp.where(ends, certain, log_odds).astype(probs.dtype))

    def table(self) -> jax.Array:
        """The probability of each value of each factor, [..., C], at least float32."""
        precision = wide(as_float(self.given).dtype)
        if self.by_probs:
            probs = jnp.asarray(self.given, precision)
            return jnp.stack([1 - probs, probs], -1) if self.kind is Bernoulli else probs
        logits = self.to_logits().astype(precision)
        if self.kind is Bernoulli:
            return jnp.stack([jax.nn.sigmoid(-logits), jax.nn.sigmoid(logits)], axis=-1)
        return jax.nn.softmax(logits)

    def index(self, x: Any) -> jax.Array:
        """The value of each factor of a draw, as an index of its table."""
        index = jnp.argmax(x, axis=-1) if self.kind is OneHotCategorical else jnp.asarray(x)
        return index.astype(jnp.int32)

    def log_probs(self, x: Any) -> jax.Array:
        """The log-probability of each factor of a draw, [...]."""
        if not self.by_probs:
            record: Any = self.kind(self.given)
            return record.log_probs(x)
        table = self.table()
        index = self.index(x).astype(jnp.uint32)
        index = jnp.broadcast_to(index, jnp.broadcast_shapes(index.shape, table.shape[:-1]))
        each = jnp.take_along_axis(
            _log(table), index[..., None], -1, mode="fill", fill_value=-jnp.inf
        )
        return each[..., 0] + _leaked(table)


def read_discrete(distribution: Any) -> Discrete | None:
    """The bits or categories that an object represents, or None."""
    inner = unwrapped(distribution)
    if isinstance(inner, Bernoulli | Categorical | OneHotCategorical):
        return Discrete(type(inner), inner.logits, by_probs=False)
    name = class_of(inner)
    kind = _KINDS.get(name)
    if kind is None:
        return None
    # Made from probabilities, numpyro and distrax offer logits all the same: log(0) among them.
    given = "_" if name.startswith("distrax.") else ""
    by_probs = name.endswith("Probs") or getattr(inner, f"{given}logits") is None
    return Discrete(kind, inner.probs if by_probs else inner.logits, by_probs)


def factor_log_probs(distribution: Any, x: Any) -> jax.Array | None:
    """The log-probability of each factor of a draw of discrete factors, [...]; else None."""
    if isinstance(distribution, OfLogits):
        return distribution.log_probs(x)
    read = read_discrete(distribution)
    return None if read is None else read.log_probs(x)


def finite_log_odds(logits: jax.Array) -> jax.Array:
    """Logits of bits with the infinite ones replaced: finite, and still certain in value."""
    # exp(-certain) is 0 in the precision that probabilities are computed in.
    certain = -2 * math.log(float(jnp.finfo(wide(logits.dtype)).tiny))
    ends = jnp.full_like(logits, certain)  # not a scalar: jet cannot broadcast it
    return jnp.clip(logits, -ends, ends)


def _log(probs: jax.Array) -> jax.Array:
    """The logarithm, of 0 too: minus infinity, along which no derivative passes."""
    possible = probs > 0
    return jnp.where(possible, jnp.log(jnp.where(possible, probs, 1)), -jnp.inf)


def _leaked(table: jax.Array) -> jax.Array:
    """0, with the derivative of the probability that moves to values that cannot be drawn.

    A score only sees draws of what is possible. If probabilities are normalized before they get
    here, a derivative along one that is 0 moves all the others; together with this it moves none.
    """
    impossible = jnp.where(table > 0, 0, table)
    return jnp.sum(impossible - stop(impossible), axis=-1)
