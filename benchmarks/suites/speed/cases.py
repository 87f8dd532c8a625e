"""One gradient by the library and by hand: the same estimator in several hand-written spellings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import scorefn as sf

from .timing import Program

Params = Any
# A score function by hand that leaves out impossible draws, as the library does.
GUARDED = "guarded surrogate"
# The draws of the library itself.
OWN = "as the library"


@dataclass(frozen=True)
class Case:
    """One estimator on one problem. All programs take ``(params, key)`` and return a gradient.

    Attributes:
        library: by `scorefn.expectation`.
        hand: by hand, with a key for each sample, as the library has: by the name of the spelling.
            The first one does what the library does, guards included, on the same draws.
        bulk: by hand, all draws from one key.
        params: of the distribution.
        samples: the number of terms.
    """

    library: Program
    hand: Mapping[str, Program]
    bulk: Program | None
    params: Params
    samples: int

    @property
    def arguments(self) -> tuple[Params, jax.Array]:
        """The arguments of all programs."""
        return self.params, jax.random.key(0)


@dataclass(frozen=True)
class Problem:
    """A distribution and a cost, and what one would write by hand for them.

    Attributes:
        params: of the distribution.
        distribution: from params, as the library takes it.
        cost: of one draw.
        log_prob: ``log_prob(params, x)`` of one draw.
        draws: ways to draw one sample, ``draw(params, key)``; the first is the library's.
        bulk: ``bulk(params, key, n)``, n samples from one key.
        score: ``score(params, xs, weights)``, the sum of the weighted scores in closed form.
    """

    params: Params
    distribution: Callable[[Params], Any]
    cost: Callable[[Any], jax.Array]
    log_prob: Callable[[Params, Any], jax.Array]
    draws: Mapping[str, Callable[[Params, jax.Array], Any]]
    bulk: Callable[[Params, jax.Array, int], Any]
    score: Callable[[Params, Any, jax.Array], Params]


def library(problem: Problem, estimator: sf.Estimator, n: int, chunk_size: Any = None) -> Program:
    """The gradient by the library: all samples at once, unless a size of chunks is given."""

    def loss(params: Params, key: jax.Array) -> jax.Array:
        return sf.expectation(
            problem.cost,
            problem.distribution(params),
            key,
            estimator,
            num_samples=n,
            chunk_size=chunk_size,
        )

    return jax.grad(loss)


def sample_keys(key: jax.Array, n: int) -> jax.Array:
    """The key of each sample, [n]."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(n))


def score_function(problem: Problem, n: int) -> Case:
    """The score function with the mean cost of the other samples as its baseline."""

    def surrogate(params: Params, xs: Any) -> Params:
        costs = jax.vmap(problem.cost)(xs)
        baseline = (jnp.sum(costs) - costs) / (n - 1)

        def loss(params: Params) -> jax.Array:
            log_probs = jax.vmap(problem.log_prob, (None, 0))(params, xs)
            return jnp.mean((costs - baseline) * log_probs)

        return jax.grad(loss)(params)

    def guarded(params: Params, xs: Any) -> Params:
        costs = jax.vmap(problem.cost)(xs)
        baseline = (jnp.sum(costs) - costs) / (n - 1)

        def loss(params: Params) -> jax.Array:
            log_probs = jax.vmap(problem.log_prob, (None, 0))(params, xs)
            # A draw that the parameters make impossible has no score.
            return jnp.mean((costs - baseline) * jnp.where(jnp.isinf(log_probs), 0, log_probs))

        return jax.grad(loss)(params)

    def closed(params: Params, xs: Any) -> Params:
        costs = jax.vmap(problem.cost)(xs)
        return problem.score(params, xs, (costs - jnp.mean(costs)) / (n - 1))

    ways = {GUARDED: guarded, "surrogate": surrogate, "closed form": closed}
    spelled = {
        f"{name}, {draw}": _each(problem.draws[draw], way, n)
        for draw in problem.draws
        for name, way in ways.items()
    }
    bulk = lambda params, key: closed(params, problem.bulk(params, key, n))  # noqa: E731
    estimator = sf.ScoreFunction(sf.LeaveOneOut())
    return Case(library(problem, estimator, n), spelled, bulk, problem.params, n)


def _each(
    draw: Callable[[Params, jax.Array], Any], way: Callable[[Params, Any], Params], n: int
) -> Program:
    return lambda params, key: way(params, jax.vmap(draw, (None, 0))(params, sample_keys(key, n)))


# Gaussians: params {"mean": [d], "log_scale": [d]}.


def normal(cost: Callable[[jax.Array], jax.Array], size: int) -> Problem:
    """Independent normal variables, [size], at mean 0.5 and scale 1/2."""
    return Problem(
        {"mean": jnp.full(size, 0.5), "log_scale": jnp.full(size, -0.7)},
        lambda params: sf.Distribution(_normal_log_prob, _normal_sample, params),
        cost,
        _normal_log_prob,
        {OWN: _normal_sample},
        lambda params, key, n: (
            params["mean"] + jnp.exp(params["log_scale"]) * jax.random.normal(key, (n, size))
        ),
        _normal_score,
    )


def _normal_log_prob(params: Params, x: jax.Array) -> jax.Array:
    z = (x - params["mean"]) * jnp.exp(-params["log_scale"])
    return jnp.sum(-0.5 * z**2 - params["log_scale"] - 0.5 * jnp.log(2 * jnp.pi))


def _normal_sample(params: Params, key: jax.Array) -> jax.Array:
    noise = jax.random.normal(key, params["mean"].shape)
    return params["mean"] + jnp.exp(params["log_scale"]) * noise


def _normal_score(params: Params, xs: jax.Array, weights: jax.Array) -> Params:
    inverse = jnp.exp(-params["log_scale"])
    z = (xs - params["mean"]) * inverse
    return {"mean": weights @ z * inverse, "log_scale": weights @ (z**2 - 1)}


def pathwise(problem: Problem, n: int) -> Case:
    """The pathwise derivative of a Gaussian."""
    shape = problem.params["mean"].shape

    def noise_of(key: jax.Array) -> jax.Array:
        return jax.vmap(lambda key: jax.random.normal(key, shape))(sample_keys(key, n))

    def inside(params: Params, key: jax.Array) -> Params:
        def loss(params: Params) -> jax.Array:
            one = lambda key: problem.cost(_normal_sample(params, key))  # noqa: E731
            return jnp.mean(jax.vmap(one)(sample_keys(key, n)))

        return jax.grad(loss)(params)

    def outside(params: Params, noise: jax.Array) -> Params:
        def loss(params: Params) -> jax.Array:
            xs = params["mean"] + jnp.exp(params["log_scale"]) * noise
            return jnp.mean(jax.vmap(problem.cost)(xs))

        return jax.grad(loss)(params)

    def closed(params: Params, noise: jax.Array) -> Params:
        scale = jnp.exp(params["log_scale"])
        slopes = jax.vmap(jax.grad(problem.cost))(params["mean"] + scale * noise)
        return {"mean": jnp.mean(slopes, 0), "log_scale": scale * jnp.mean(slopes * noise, 0)}

    return Case(
        library(problem, sf.Pathwise(), n),
        {
            "noise inside": inside,
            "noise outside": lambda params, key: outside(params, noise_of(key)),
            "closed form": lambda params, key: closed(params, noise_of(key)),
        },
        lambda params, key: closed(params, jax.random.normal(key, (n, *shape))),
        problem.params,
        n,
    )


# Bits and categories: params are their logits.


def bits(cost: Callable[[jax.Array], jax.Array], size: int) -> Problem:
    """Independent bits, [size]."""

    def log_prob(logits: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sum(x * logits - jax.nn.softplus(logits))

    return Problem(
        jnp.linspace(-1.0, 1.0, size),
        sf.Bernoulli,
        cost,
        log_prob,
        {
            OWN: lambda logits, key: sf.Bernoulli(logits).sample(key),
            "jax.random.bernoulli": lambda logits, key: jax.random.bernoulli(
                key, jax.nn.sigmoid(logits)
            ).astype(logits.dtype),
        },
        lambda logits, key, n: jax.random.bernoulli(key, jax.nn.sigmoid(logits), (n, size)).astype(
            logits.dtype
        ),
        lambda logits, xs, weights: weights @ (xs - jax.nn.sigmoid(logits)),
    )


def categories(cost: Callable[[jax.Array], jax.Array], factors: int, values: int) -> Problem:
    """Independent categorical variables, [factors], each of so many values."""

    def log_prob(logits: jax.Array, x: jax.Array) -> jax.Array:
        taken = jnp.take_along_axis(jax.nn.log_softmax(logits), x[:, None], axis=-1)
        return jnp.sum(taken)

    def by_cdf(logits: jax.Array, key: jax.Array) -> jax.Array:
        cdf = jnp.cumsum(jax.nn.softmax(logits), axis=-1)
        uniform = jax.random.uniform(key, (factors, 1))
        return jnp.minimum(jnp.sum(uniform >= cdf, axis=-1), values - 1).astype(jnp.int32)

    def score(logits: jax.Array, xs: jax.Array, weights: jax.Array) -> jax.Array:
        counted = jnp.einsum("n,nfv->fv", weights, jax.nn.one_hot(xs, values))
        return counted - jnp.sum(weights) * jax.nn.softmax(logits)

    return Problem(
        jnp.sin(jnp.arange(factors * values, dtype=jnp.float32)).reshape(factors, values),
        sf.Categorical,
        cost,
        log_prob,
        {
            OWN: lambda logits, key: sf.Categorical(logits).sample(key),
            "jax.random.categorical": lambda logits, key: jax.random.categorical(key, logits),
            "inverse cdf": by_cdf,
        },
        lambda logits, key, n: jax.random.categorical(key, logits, shape=(n, factors)),
        score,
    )


def disarm(problem: Problem, n: int) -> Case:
    """DisARM for bits."""
    shape = problem.params.shape

    def integers(logits: jax.Array, words: jax.Array) -> jax.Array:
        bits = sf.Bernoulli(logits)
        return _gradient(logits, bits.draw_from(~words), bits.draw_from(words))

    def uniform(logits: jax.Array, u: jax.Array) -> jax.Array:
        p = jax.nn.sigmoid(logits)
        return _gradient(logits, (u > 1 - p).astype(logits.dtype), (u < p).astype(logits.dtype))

    def _gradient(logits: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
        change = (jax.vmap(problem.cost)(first) - jax.vmap(problem.cost)(second)) / (2 * n)
        return change @ (first - second) * jax.nn.sigmoid(jnp.abs(logits))

    def each(way: Program, noise: Program) -> Program:
        return lambda logits, key: way(
            logits, jax.vmap(lambda key: noise(key, shape))(sample_keys(key, n))
        )

    return Case(
        library(problem, sf.DisARM(), n),
        {
            OWN: each(integers, jax.random.bits),
            "uniform noise": each(uniform, jax.random.uniform),
        },
        lambda logits, key: uniform(logits, jax.random.uniform(key, (n, *shape))),
        problem.params,
        n,
    )


def rebar(problem: Problem, n: int) -> Case:
    """REBAR for bits at temperature 1/2, with one and two uniform numbers each."""
    shape, cost = problem.params.shape, problem.cost
    relaxed = lambda z: cost(jax.nn.sigmoid(z / 0.5))  # noqa: E731
    stop = jax.lax.stop_gradient

    def exact(logits: jax.Array, noise: jax.Array) -> jax.Array:
        z = logits - noise
        one = noise < logits
        size = jnp.maximum(jnp.abs(stop(z)), jnp.finfo(z.dtype).tiny)
        reach = jnp.where(one, jax.nn.softplus(logits), jax.nn.softplus(-logits))
        uniform = stop(size + jnp.log(-jnp.expm1(-size)) - reach)
        again = jnp.where(one, 1, -1) * jax.nn.softplus(uniform + reach)
        b = one.astype(logits.dtype)
        return _term(logits, b, z, stop(z - again) + again)

    def one(logits: jax.Array, u: jax.Array, v: jax.Array | None) -> jax.Array:
        p = jax.nn.sigmoid(stop(logits))
        b = (u > 1 - p).astype(logits.dtype)
        if v is None:
            v = jnp.where(b == 1, (u - 1 + p) / p, u / (1 - p))
            v = jnp.clip(v, 1e-6, 1 - 1e-6)
        theta = jax.nn.sigmoid(logits)
        w = jnp.where(b == 1, v * theta + (1 - theta), v * (1 - theta))
        return _term(logits, b, logits + _logit(u), logits + _logit(w))

    def _term(logits: jax.Array, b: jax.Array, z: jax.Array, again: jax.Array) -> jax.Array:
        free, tied = relaxed(z), relaxed(again)
        return stop(cost(b) - tied) * problem.log_prob(logits, b) + free - tied

    def gradient(noise: Callable[[jax.Array], tuple[jax.Array, jax.Array | None]]) -> Program:
        def loss(logits: jax.Array, key: jax.Array) -> jax.Array:
            u, v = noise(key)
            axes = (None, 0, None if v is None else 0)
            return jnp.mean(jax.vmap(one, axes)(logits, u, v))

        return jax.grad(loss)

    def as_the_library(logits: jax.Array, key: jax.Array) -> jax.Array:
        noise = jax.vmap(lambda key: jax.random.logistic(key, shape))(sample_keys(key, n))
        return jnp.mean(jax.vmap(exact, (None, 0))(logits, noise))

    def draw(key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, shape, minval=1e-6, maxval=1 - 1e-6)

    def two(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        first, second = jax.random.split(key)
        return draw(first), draw(second)

    return Case(
        library(problem, sf.REBAR(temperature=0.5), n),
        {
            OWN: jax.grad(as_the_library),
            "one uniform": gradient(lambda key: (jax.vmap(draw)(sample_keys(key, n)), None)),
            "two uniforms": gradient(lambda key: jax.vmap(two)(sample_keys(key, n))),
        },
        gradient(lambda key: (jax.random.uniform(key, (n, *shape), minval=1e-6), None)),
        problem.params,
        n,
    )


def _logit(u: jax.Array) -> jax.Array:
    return jnp.log(u) - jnp.log1p(-u)


def enumerated(problem: Problem, support: jax.Array) -> Case:
    """Over all values of a draw: nothing is drawn, so that there is nothing to draw in bulk."""

    def probabilities(logits: jax.Array, key: jax.Array) -> jax.Array:
        del key
        log_probs = jax.vmap(problem.log_prob, (None, 0))(logits, support)
        return jnp.exp(log_probs) @ jax.vmap(problem.cost)(support)

    def closed(logits: jax.Array, key: jax.Array) -> jax.Array:
        del key
        log_probs = jax.vmap(problem.log_prob, (None, 0))(logits, support)
        weights = jnp.exp(log_probs) * jax.vmap(problem.cost)(support)
        return problem.score(logits, support, weights)

    return Case(
        library(problem, sf.Enumerate(), 1),
        {"probabilities": jax.grad(probabilities), "closed form": closed},
        None,
        problem.params,
        1,
    )
