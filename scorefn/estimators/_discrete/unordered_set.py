"""An estimator for one categorical factor from an unordered set of distinct categories."""

import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from scorefn._core.arrays import abstract_key, stop
from scorefn._core.pytree import pytree_dataclass
from scorefn._core.types import Cost, Terms, Vmap
from scorefn._score import attach_score
from scorefn.distributions._distribution import Distribution
from scorefn.estimators._base import Estimator

from .one_factor import one_factor

# The weights are sums over all subsets of the set, at most 2^12.
_MOST = 12


@pytree_dataclass
class UnorderedSet(Estimator):
    r"""Distinct categories, drawn without replacement and weighted as a set.

    .. code-block:: text

        S           K categories without replacement, K = num_samples
        R(S, s)     P(the first K - 1 draws without s are S - s) / P(the first K draws are S)
        mean term   sum_s p(s) R(S, s) f(s)
        derivative  sum_s p(s) R(S, s) (df(s) + (f(s) - b(s)) dlog p(s))
        b(s)        p(s) f(s) + sum_{t != s} p(t) R'(S - s, t) f(t),  R' as R without category s

    Unbiased at every order; for one categorical factor and any f. One evaluation of f for each
    term; all samples of a call are coupled and use only the first key. Good if few categories hold
    most of the probability: if S contains all of it, as with K = C, the result is the exact sum.
    With K = 1 it equals `ScoreFunction` without a baseline.

    Raises:
        TypeError: the distribution is not one categorical factor.
        ValueError: there are more samples than categories, or more than 12.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key):
        ...     die, f = sf.Categorical(logits), lambda x: x**2
        ...     return sf.expectation(f, die, key, sf.UnorderedSet(), num_samples=4)
        >>> gradient = jax.jit(jax.grad(loss))(jnp.zeros(6), jax.random.key(0))

    References:
        Kool, van Hoof and Welling, Estimating gradients for discrete random variables by sampling
        without replacement (2020), section 3.
    """

    coupled: ClassVar[bool] = True
    when: ClassVar[str] = "most probability on few categories"
    needs: ClassVar[str] = "one categorical factor, at most 12 samples; any f"

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        k = len(keys)
        factor = one_factor(self, distribution, abstract_key(keys))
        _check_size(k, len(factor.log_probs))
        chosen = factor.without_replacement(keys[0], k)
        costs, aux = vmap(f)(factor.draws(chosen))
        log_probs = factor.log_probs[chosen]
        weights, mixing = _weights(stop(factor.log_probs), chosen)

        def attach(cost: jax.Array) -> jax.Array:
            weight = weights.reshape((k,) + (1,) * (cost.ndim - 1))
            # Impossible categories have no weight, even if f is infinite.
            cost = jnp.where(weight > 0, cost, 0)
            baseline = jnp.tensordot(mixing.astype(cost.dtype), stop(cost), 1)
            return k * weight.astype(cost.dtype) * attach_score(cost, log_probs, baseline)

        return jax.tree.map(attach, costs), aux


def _check_size(k: int, categories: int) -> None:
    if k > categories:
        raise ValueError(
            f"num_samples must be at most the number of categories with UnorderedSet, which draws "
            f"without replacement; got {k} samples of {categories} categories. Enumerate is exact."
        )
    if k > _MOST:
        raise ValueError(
            f"num_samples must be at most {_MOST} with UnorderedSet, whose weights are sums over "
            f"all subsets of the samples; got {k}. For more, average several keys (vmap), or use "
            f"SumAndSample."
        )


def _weights(log_probs: jax.Array, chosen: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The weights p(s) R(S, s), [K], and the weights of f(t) in b(s), [K, K].

    Let V(T) be the probability that the next draws complete S, given that T in S has been drawn:

        V(S) = 1,  V(T) = sum_{t in S - T} p(t) / (1 - p(T)) V(T + t).

    Draws without category s behave as if s had been drawn already. So the probability of S is
    V({}), that of S - s without s is V({s}), and that of S - s - t without both is V({s, t}):

        R(S, s) = V({s}) / V({}),  R'(S - s, t) = V({s, t}) / V({s}).

    All terms are positive, and 1 - p(T) is a sum of probabilities, so no digits cancel, even if S
    contains all of the probability.
    """
    k = len(chosen)
    inside = log_probs[chosen]
    outside = jax.nn.logsumexp(log_probs.at[chosen].set(-jnp.inf))
    levels = [jnp.zeros(1, log_probs.dtype)]
    for size in reversed(range(k)):
        sets = list(itertools.combinations(range(k), size))
        place = {s: i for i, s in enumerate(itertools.combinations(range(k), size + 1))}
        rest = np.array([[t for t in range(k) if t not in s] for s in sets])
        after = np.array(
            [
                [place[tuple(sorted((*s, t)))] for t in row]
                for s, row in zip(sets, rest, strict=True)
            ]
        )
        held = jnp.logaddexp(jax.nn.logsumexp(inside[rest], axis=-1), outside)
        paths = jax.nn.logsumexp(inside[rest] + levels[0][after], axis=-1)
        # If all possible categories have been drawn, only impossible ones can complete S.
        done = jnp.isneginf(held)
        levels.insert(0, jnp.where(done, 0, paths - jnp.where(done, 0, held)))
    weights = jnp.exp(inside + levels[1] - levels[0])
    if k == 1:
        # A single draw has no baseline.
        return weights, jnp.zeros((1, 1), log_probs.dtype)
    i, j = np.triu_indices(k, 1)
    pairs = jnp.zeros((k, k), log_probs.dtype).at[i, j].set(levels[2]).at[j, i].set(levels[2])
    ratios = pairs - jnp.where(np.eye(k, dtype=bool), 0, levels[1][:, None])
    return weights, jnp.exp(inside[None] + ratios)
