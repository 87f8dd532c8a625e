"""Statistical checks of gradient estimates and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scorefn._core.arrays import is_float, reuse_key
from scorefn._core.checks import check_count, check_key
from scorefn._core.types import PyTree
from scorefn.distributions._distribution import Distribution, as_distribution, is_object
from scorefn.distributions._interop.scores import inside_support
from scorefn.estimators._guard import describe
from scorefn.estimators._score_guard import lost_scores

from ._moments import moments


@dataclass(frozen=True)
class Report:
    """The result of a check; prints as a table.

    Attributes:
        estimate: the mean of the repeats, a pytree of arrays.
        exact: the exact values, a pytree like `estimate`.
        standard_error: the standard errors of `estimate`, including rounding, a pytree like it.
        z: (estimate - exact) / standard_error, a pytree like `estimate`.
        threshold: the largest |z| that passes.
        passed: whether every component passes and there are no faults. nan does not pass.
        faults: errors that do not depend on the statistics, one sentence each.
    """

    estimate: PyTree
    exact: PyTree
    standard_error: PyTree
    z: PyTree
    threshold: float
    passed: bool
    faults: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = [f"{'parameter':24s} {'estimate':>12s} {'exact':>12s} {'std. error':>12s} {'z':>8s}"]
        columns = (self.estimate, self.exact, self.standard_error, self.z)
        leaves = zip(*map(jax.tree.leaves, columns), strict=True)
        for (path, _), leaf in zip(jax.tree.leaves_with_path(self.z), leaves, strict=True):
            if not np.size(leaf[-1]):
                continue
            worst = np.argmax(np.nan_to_num(np.abs(leaf[-1]), nan=np.inf))
            estimate, exact, error, z = (np.ravel(column)[worst] for column in leaf)
            name = jax.tree_util.keystr(path) or "(params)"
            rows.append(f"{name:24s} {estimate:12.5g} {exact:12.5g} {error:12.5g} {z:8.2f}")
        verdict = "passed" if self.passed else "FAILED"
        rows.append(f"{verdict}: each |z| at most {self.threshold:.2f} (worst element shown)")
        return "\n".join([*rows, *self.faults])


def check_unbiased(
    loss: Callable[[PyTree, jax.Array], jax.Array],
    params: PyTree,
    key: jax.Array,
    *,
    exact: PyTree,
    num_repeats: int,
    alpha: float = 1e-6,
) -> Report:
    """A z-test of whether ``jax.grad(loss)`` has the exact gradient as its mean.

    A bias of d standard deviations of one gradient is detected almost surely if ``num_repeats`` is
    above ``((threshold + 3) / d)^2``. Evaluates the gradient `num_repeats` times, under jit.

    Args:
        loss: ``loss(params, key) -> scalar``, for example a call of `expectation`.
        params: a pytree of float arrays.
        key: one random key. It is consumed.
        exact: the exact gradient, a pytree like params.
        num_repeats: the number of independent gradients, at least 2.
        alpha: the probability that a right gradient fails, for all components together
            (Bonferroni); approximate for heavy-tailed gradients and few repeats. Rounding is
            counted as an error of 8 eps times the gradient and, since a gradient is a difference of
            costs, times the loss divided by its standard deviation. Where losses have no spread, as
            with `Enumerate`, it is 8 eps times the loss: in float32 a large loss hides errors of a
            very small gradient.

    Returns:
        A `Report`, whose fields are pytrees like params; ``report.passed`` is the result.

    Raises:
        ValueError: `exact` and `params` differ in structure or shapes; num_repeats is below 2.

    Example:
        >>> import distrax, jax, scorefn as sf
        >>> def loss(mean, key):
        ...     normal = distrax.Normal(mean, 1.0)
        ...     return sf.expectation(lambda x: x**2, normal, key, sf.Pathwise())
        >>> report = sf.check_unbiased(loss, 2.0, jax.random.key(0), exact=4.0, num_repeats=1000)
        >>> report.passed
        True
    """
    params = jax.tree.map(jnp.asarray, params)
    got, asked = (jax.tree.map(jnp.shape, tree) for tree in (exact, params))
    if got != asked:
        raise ValueError(f"exact must be a pytree of shapes {asked}, like params; got {got}.")

    def gradient_and_value(key: jax.Array) -> tuple[PyTree, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(params, key)
        return gradient, value

    units = jax.tree.map(jnp.ones_like, params)
    return _test(gradient_and_value, key, exact, "num_repeats", num_repeats, alpha, units)


def check_score(
    distribution: Any, key: jax.Array, *, num_samples: int, alpha: float = 1e-6
) -> Report:
    """A z-test of whether the score has mean 0 under the draws of its distribution.

    E[d log p(x)] = 0 for every normalized density with a fixed support. The test detects a sampler
    that does not match the log-density, a missing normalizer, or a rate used as a scale. It cannot
    detect errors that do not depend on a parameter. Takes `num_samples` draws, log-densities and
    their derivatives, twice, under jit.

    It also fails, with a sentence in ``report.faults``, where a mean of 0 says nothing: draws lie
    outside the support (their log_prob is -inf or nan, or numpyro's ``support`` excludes them); a
    score is the same for all draws although these differ; or `ScoreFunction` would refuse a
    parameter, because log_prob has no derivative along it or the support moves with it.

    All float leaves of a pytree are used as its parameters. An object that also stores normalized
    or cached arrays (distrax's Categorical, Beta, Dirichlet and mixtures) therefore fails: check it
    as ``Distribution(log_prob, sample, params)``, with functions that build it from its parameters.

    Args:
        distribution: a `Distribution`, or an object of distrax, TFP, numpyro, flowjax.
        key: one random key. It is consumed.
        num_samples: the number of draws, at least 2.
        alpha: the probability that a right distribution fails, for all parameters together;
            approximate for heavy-tailed scores and few samples.

    Returns:
        A `Report`, whose fields are dicts of arrays, keyed by the names of the parameters.

    Raises:
        ValueError: the distribution has no float parameters; num_samples is below 2.

    Example:
        >>> import distrax, jax, scorefn as sf
        >>> coin = distrax.Bernoulli(logits=jax.numpy.array(0.3))
        >>> sf.check_score(coin, jax.random.key(0), num_samples=1000).passed
        True
    """
    distribution = as_distribution(distribution)
    floats = distribution.floats()
    if not floats:
        raise ValueError(
            f"distribution must have float parameters to take a score, got "
            f"{distribution.params!r}. Give Distribution(log_prob, sample, params)."
        )
    names = _names(distribution.params)

    def score(key: jax.Array) -> dict[str, jax.Array]:
        return dict(zip(names, distribution.score(distribution.stopped_draw(key)), strict=True))

    exact = {name: jnp.zeros(jnp.shape(leaf)) for name, leaf in zip(names, floats, strict=True)}
    # A log-density is rounded to eps, for a relative change of a large parameter.
    units = {name: 1 / jnp.maximum(jnp.abs(x), 1) for name, x in zip(names, floats, strict=True)}
    scores = lambda key: (score(key), jnp.ones(()))  # noqa: E731
    report = _test(scores, key, exact, "num_samples", num_samples, alpha, units)
    faults = tuple(_faults(distribution, names, reuse_key(key), num_samples))
    return replace(report, passed=report.passed and not faults, faults=faults)


def _faults(
    distribution: Distribution, names: list[str], key: jax.Array, num_samples: int
) -> Iterator[str]:
    reasons, scored = lost_scores(distribution, key)
    yield from reasons

    def one(key: jax.Array) -> Any:
        x = distribution.stopped_draw(key)
        possible = distribution.log_density(x) > -jnp.inf
        if is_object(distribution):
            possible &= inside_support(distribution.params, x)
        return x, distribution.score(x), possible

    def differs(x: jax.Array) -> jax.Array:
        return jnp.any(x != x[:1])

    @jax.jit
    def summary(keys: jax.Array) -> Any:
        x, scores, possible = jax.vmap(one)(keys)
        draws = [differs(leaf) for leaf in jax.tree.leaves(x)]
        return draws, [differs(score) for score in scores], jnp.sum(~possible)

    draws, scores, outside = summary(jax.random.split(key, num_samples))
    if outside:
        yield (
            f"{outside} of {num_samples} draws lie outside of the support of log_prob: the sampler "
            f"and the density do not belong together, or the sampler is not accurate enough."
        )
    for name, varies, has_score in zip(names, scores, scored, strict=True):
        if has_score and any(draws) and not varies:
            yield (
                f"{name}: its score is the same for all draws, although they differ: log_prob "
                f"loses it, by rounding or beyond the range of its numbers."
            )


def _names(params: PyTree) -> list[str]:
    """A unique name for each float leaf."""
    leaves = [pair for pair in jax.tree.leaves_with_path(params) if is_float(pair[1])]
    names = [describe(leaf, params) for _, leaf in leaves]
    # Leaves that are one object, or that are not found, share a name: add their path.
    return [
        name if names.count(name) == 1 else f"{jax.tree_util.keystr(path)} {name}"
        for (path, _), name in zip(leaves, names, strict=True)
    ]


def _test(
    fn: Callable[[jax.Array], tuple[PyTree, jax.Array]],
    key: jax.Array,
    exact: PyTree,
    name: str,
    repeats: int,
    alpha: float,
    units: PyTree,
) -> Report:
    """A z-test of the first result of fn; the second, the costs, tells the size of rounding.

    Without any spread of the costs, their size in these units is what is rounded.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}.")
    keys = jax.random.split(check_key(key), check_count(name, repeats, at_least=2))
    (mean, cost), (variance, cost_variance), _ = jax.jit(lambda keys: moments(fn, keys))(keys)
    components = sum(leaf.size for leaf in jax.tree.leaves(mean))
    threshold = -float(jax.scipy.special.ndtri(alpha / (2 * max(components, 1))))
    # Costs are rounded before their differences make a gradient.
    spread = jnp.sqrt(cost_variance)
    offset = jnp.where(spread > 0, jnp.abs(cost) / jnp.where(spread > 0, spread, 1), 0)

    def error(variance: jax.Array, exact: jax.Array, unit: jax.Array) -> jax.Array:
        eps = jnp.finfo(variance.dtype).eps
        size = jnp.abs(exact) + jnp.sqrt(variance)
        rounding = 8 * eps * (jnp.abs(exact) + offset.astype(size.dtype) * size)
        rounding += jnp.where(spread > 0, 0, 8 * eps * jnp.abs(cost) * unit).astype(size.dtype)
        return jnp.sqrt(variance / repeats + rounding**2)

    def z(mean: jax.Array, exact: jax.Array, error: jax.Array) -> jax.Array:
        # Without variance only equality passes.
        return jnp.where(mean == exact, 0, (mean - exact) / error)

    exact = jax.tree.map(lambda e, m: jnp.asarray(e, m.dtype), exact, mean)
    errors = jax.tree.map(error, variance, exact, units)
    zs = jax.tree.map(z, mean, exact, errors)
    passed = all(bool(jnp.all(jnp.abs(leaf) <= threshold)) for leaf in jax.tree.leaves(zs))
    return Report(mean, exact, errors, zs, threshold, passed)
