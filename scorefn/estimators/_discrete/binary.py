"""Estimators for independent bits: antithetic and coupled draws, and single flips."""

from dataclasses import replace
from typing import ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import abstract_key, finite_product, stop
from scorefn._core.derivatives import zero_along
from scorefn._core.pytree import pytree_dataclass
from scorefn._core.refusals import first_order_only
from scorefn._core.types import Cost, PyTree, Terms, Vmap
from scorefn._score import leave_one_out, sum_of_others
from scorefn.distributions._discrete import Bernoulli
from scorefn.distributions._distribution import Distribution
from scorefn.distributions._integer_icdf import bits_at, words
from scorefn.distributions._interop.factors import require_factors
from scorefn.estimators._base import Estimator


@pytree_dataclass
class ARM(Estimator):
    r"""Augment-REINFORCE-merge: a pair of antithetic draws, weighted by their common noise.

    .. code-block:: text

        u ~ U(0, 1)^D,  b = 1[u > 1 - p],  b' = 1[u < p],  p = sigmoid(logits)
        term        (f(b) + f(b')) / 2
        derivative  (f(b) - f(b')) (u - 1/2)  along the logits

    Unbiased, to first order; for independent bits and any f. Two evaluations of f for each term.
    `DisARM` integrates out the noise given the pair, and never has a larger variance.

    Raises:
        TypeError: the distribution is not one of independent bits; a second derivative is taken.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key):
        ...     bits, f = sf.Bernoulli(logits), lambda b: b.sum() ** 2
        ...     return sf.expectation(f, bits, key, sf.ARM())
        >>> gradient = jax.jit(jax.grad(loss))(jnp.zeros(3), jax.random.key(0))

    References:
        Yin and Zhou, ARM: augment-REINFORCE-merge gradient for stochastic binary networks (2019),
        equation 6.
    """

    order: ClassVar[float] = 1
    evaluations: ClassVar[str] = "2"
    when: ClassVar[str] = "to compare with the literature; DisARM is never worse"
    needs: ClassVar[str] = "independent bits; any f"

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        bits = _bits(self, distribution, abstract_key(keys))

        def one(key: jax.Array) -> tuple[PyTree, PyTree]:
            z = bits.noise(key)
            return _antithetic(f, bits, z, jax.nn.sigmoid(z) - 0.5)

        return vmap(one)(keys)


@pytree_dataclass
class DisARM(Estimator):
    r"""ARM with its noise integrated out, also known as U2G.

    .. code-block:: text

        u ~ U(0, 1)^D,  b = 1[u > 1 - p],  b' = 1[u < p],  p = sigmoid(logits)
        term        (f(b) + f(b')) / 2
        derivative  (f(b) - f(b')) / 2 * (b - b') max(p, 1 - p)  along the logits

    Unbiased, to first order; for independent bits and any f. Two evaluations of f for each term.
    For one bit its variance is ``(f1 - f0)^2 p (1 - p) (1 - q) (1/2 - q)``, q = min(p, 1 - p).

    Raises:
        TypeError: the distribution is not one of independent bits; a second derivative is taken.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key):
        ...     bits, f = sf.Bernoulli(logits), lambda b: b.sum() ** 2
        ...     return sf.expectation(f, bits, key, sf.DisARM())
        >>> gradient = jax.jit(jax.grad(loss))(jnp.zeros(3), jax.random.key(0))

    References:
        Dong, Mnih and Tucker, DisARM: an antithetic gradient estimator for binary latent variables
        (2020), equation 6; Yin et al., Probabilistic best subset selection via gradient-based
        optimization (2020).
    """

    order: ClassVar[float] = 1
    evaluations: ClassVar[str] = "2"
    when: ClassVar[str] = "black-box f, 2 evaluations"
    needs: ClassVar[str] = "independent bits; any f"

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        bits = _bits(self, distribution, abstract_key(keys))
        logits = stop(bits.logits)
        rates = jax.nn.sigmoid(jnp.abs(logits)) / 2
        # All samples share the rates, which therefore multiply the sum over samples.
        scaled = replace(bits, logits=bits.logits * rates)

        def one(key: jax.Array) -> tuple[PyTree, PyTree]:
            low = words(key, logits.shape, logits)
            pair = jax.vmap(bits_at, (0, None))(jnp.stack([~low, low]), logits)
            difference = pair[0].astype(rates.dtype) - pair[1].astype(rates.dtype)
            return _weighted(f, scaled, bits.cast(pair), difference)

        return vmap(one)(keys)


@pytree_dataclass
class ARMS(Estimator):
    r"""REINFORCE with K mutually antithetic draws and leave-one-out baselines.

    .. code-block:: text

        d ~ Dirichlet(1_K) for each bit,  u_k = (1 - d_k)^(K - 1),  b_k = 1[u_k < p]
        term k      f(b_k)
        derivative  (f(b_k) - mean of the other f) (b_k - p) p (1 - p) / (p - P(b_j = b_k = 1))

    (with b flipped where p > 1/2). Unbiased, to first order; for independent bits and any f. One
    evaluation of f for each term; all samples of a call are coupled, at least 2. With two samples
    it equals `DisARM`.

    Raises:
        TypeError: the distribution is not one of independent bits; a second derivative is taken.
        ValueError: fewer than 2 samples.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key):
        ...     bits, f = sf.Bernoulli(logits), lambda b: b.sum() ** 2
        ...     return sf.expectation(f, bits, key, sf.ARMS(), num_samples=4)
        >>> gradient = jax.jit(jax.grad(loss))(jnp.zeros(3), jax.random.key(0))

    References:
        Dimitriev and Zhou, ARMS: antithetic-REINFORCE-multi-sample gradient for binary variables
        (2021), equation 9 and section 4.1.
    """

    order: ClassVar[float] = 1
    coupled: ClassVar[bool] = True
    when: ClassVar[str] = "black-box f, 3 evaluations or more"
    needs: ClassVar[str] = "independent bits, 2 samples or more; any f"

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        n = len(keys)
        if n < 2:
            raise ValueError(
                f"num_samples must be at least 2 with ARMS, which pairs them; got {n}."
            )
        bits = _bits(self, distribution, abstract_key(keys))
        logits = stop(bits.logits)
        # Computed for the rarer value of each bit, q <= 1/2, in logarithms.
        log_q = jax.nn.log_sigmoid(-jnp.abs(logits))
        spread = jnp.maximum(2 * jnp.exp(log_q / (n - 1)) - 1, 0)
        both_given_one = jnp.where(
            spread > 0, jnp.exp((n - 1) * jnp.log(jnp.where(spread > 0, spread, 1)) - log_q), 0
        )
        debias = jax.nn.sigmoid(jnp.abs(logits)) / (1 - both_given_one)
        shares = vmap(lambda key: jax.random.exponential(key, logits.shape, logits.dtype))(keys)
        total = jnp.sum(shares, axis=0, keepdims=True)
        log_u = (n - 1) * (jnp.log(sum_of_others(shares)) - jnp.log(total))
        one = (log_u < log_q[None]) != (logits > 0)[None]

        def evaluate(one: jax.Array) -> tuple[PyTree, jax.Array, PyTree]:
            cost, aux = f(bits.cast(one))
            weight = (one.astype(logits.dtype) - jax.nn.sigmoid(logits)) * debias
            return cost, zero_along(bits.logits, weight), aux

        costs, zeros, aux = vmap(evaluate)(one)

        def attach(cost: jax.Array) -> jax.Array:
            zero = zeros.reshape((n,) + (1,) * (cost.ndim - 1)).astype(cost.dtype)
            return cost + (cost - leave_one_out(cost)) * zero

        return jax.tree.map(attach, costs), aux


@pytree_dataclass
class BitFlip(Estimator):
    r"""A pair of draws that differ in one bit, chosen uniformly.

    .. code-block:: text

        b ~ p,  i ~ uniform over the D bits
        term        f(b)
        derivative  D p_i (1 - p_i) (f(b, b_i = 1) - f(b, b_i = 0))  along logit i, 0 along others

    Unbiased, to first order; for independent bits and any f. Two evaluations of f for each term.
    Good for few bits; exact for one bit.

    Raises:
        TypeError: the distribution is not one of independent bits; a second derivative is taken.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key):
        ...     return sf.expectation(lambda b: 3 * b, sf.Bernoulli(logits), key, sf.BitFlip())
        >>> print(jax.grad(loss)(0.0, jax.random.key(0)))
        0.75

    References:
        Kunes et al., Gradient estimation for binary latent variables via gradient variance
        clipping (2023), section 4.
    """

    order: ClassVar[float] = 1
    evaluations: ClassVar[str] = "2"
    when: ClassVar[str] = "few bits, 2 evaluations"
    needs: ClassVar[str] = "independent bits; any f"

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        bits = _bits(self, distribution, abstract_key(keys))
        logits = stop(bits.logits)
        size = logits.size
        slope = size * jax.nn.sigmoid(logits) * jax.nn.sigmoid(-logits)

        def one(key: jax.Array) -> tuple[PyTree, PyTree]:
            choice, draw = jax.random.split(key)
            chosen = jnp.arange(size).reshape(logits.shape) == jax.random.randint(
                choice, (), 0, size
            )
            drawn = bits.noise(draw) < logits
            cost, aux = f(bits.cast(drawn))
            other, _ = f(bits.cast(drawn != chosen))
            # f(b_i = 1) - f(b_i = 0) is f(b) - f(flipped) if b_i = 1 was drawn.
            sign = jnp.where(drawn, 1, -1).astype(logits.dtype)
            zero = zero_along(bits.logits, jnp.where(chosen, sign * slope, 0))
            # A bit that is certain is flipped to what cannot be: that cost counts for nothing.
            possible = jnp.sum(jnp.where(chosen, slope, 0)) > 0

            def attach(a: jax.Array, b: jax.Array) -> jax.Array:
                difference = jnp.where(possible, a - b, 0)
                return a + finite_product(zero.astype(a.dtype), difference)

            return jax.tree.map(attach, cost, other), aux

        return vmap(one)(keys)


def _bits(estimator: Estimator, distribution: Distribution, key: jax.Array) -> Bernoulli:
    """The distribution as independent bits, right to first order only."""
    name = type(estimator).__name__
    bits: Bernoulli = require_factors(
        distribution, key, (Bernoulli,), name, "CoupledCategorical and UnorderedSet fit categories."
    )
    return replace(bits, logits=first_order_only(bits.logits, name))


def _antithetic(
    f: Cost, bits: Bernoulli, noise: jax.Array, weight: jax.Array
) -> tuple[PyTree, PyTree]:
    """The mean cost of the draws at -noise and noise, with the ARM derivative."""
    return _weighted(f, bits, jax.vmap(bits.draw_at)(jnp.stack([-noise, noise])), weight)


def _weighted(
    f: Cost, bits: Bernoulli, pair: jax.Array, weight: jax.Array
) -> tuple[PyTree, PyTree]:
    """The mean cost of two draws, whose derivative is their difference times the weight."""
    costs, aux = jax.vmap(f)(pair)
    zero = zero_along(bits.logits, weight)

    def attach(cost: jax.Array) -> jax.Array:
        mean, difference = (cost[0] + cost[1]) / 2, cost[0] - cost[1]
        return mean + finite_product(zero.astype(cost.dtype), difference)

    return jax.tree.map(attach, costs), aux
