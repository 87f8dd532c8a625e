"""Control variates: a function of known mean is subtracted, and its mean added."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from scorefn._core.arrays import abstract_key, as_float, as_local, reuse_key, spread_like, stop
from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn._core.types import Cost, PyTree, Terms, Vmap
from scorefn.distributions._distribution import Distribution, as_distribution, is_object
from scorefn.distributions._given import sources
from scorefn.estimators._base import Estimator, Transformation

from .regression import regression_coefficients


@pytree_dataclass
class WithKnownMean(Transformation):
    """An estimator with a function h of known mean."""

    estimator: Estimator
    h: Callable[[Any], ArrayLike] = static_field(repr=False)
    mean: Callable[[Any], ArrayLike] = static_field(repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        for argument in ("h", "mean"):
            given = getattr(self, argument)
            if not callable(given):
                raise TypeError(
                    f"{name} needs {argument} as a function, h(x) and mean(params) = E[h(x)], got "
                    f"{given!r}. If the mean of h is not known, use DeltaMethod or "
                    f"QuadraticSurrogate, which need only the mean and the covariance of x, or a "
                    f"baseline of ScoreFunction."
                )


@pytree_dataclass
class ControlVariate(WithKnownMean):
    r"""Any estimator, with functions of known mean as control variates.

    .. code-block:: text

        E[f(x)] = E[f(x) - c . h(x)] + c . mean
        term        the estimator's term for f - c . h, plus c . mean

    Unbiased at the orders of the wrapped estimator, in value and derivatives, for every coefficient
    c that does not depend on the draws. It lowers the variance if h is correlated with f; a bad h
    or c raises it. h is evaluated once for each evaluation of f.

    Attributes:
        estimator: the wrapped estimator.
        h: ``h(x)``, returning a number or an array [m]; differentiable if f must be.
        mean: ``mean(params) -> E[h(x)]``, shaped like h(x) and differentiable. params is the
            `params` of a `Distribution`, or the object of another library.
        coefficient: c, a number or an array shaped like h(x), shared by all outputs of f. It is a
            leaf: `squared_gradient` learns it, and `fit` returns an estimator with a fitted one.

    Raises:
        TypeError: the estimator is not an instance of one; h or mean is not a function.
        ValueError: mean and h differ in shape, or the coefficient fits neither.

    Example:
        >>> import distrax, jax, jax.numpy as jnp, scorefn as sf
        >>> estimator = sf.ControlVariate(sf.Pathwise(), h=jnp.square, mean=lambda normal: (
        ...     normal.mean() ** 2 + normal.variance()))
        >>> def loss(loc, key, estimator):
        ...     normal, f = distrax.Normal(loc, 1.0), lambda x: jnp.cosh(x)
        ...     return sf.expectation(f, normal, key, estimator, num_samples=64)
        >>> fitted = estimator.fit(
        ...     jnp.cosh, distrax.Normal(0.5, 1.0), jax.random.split(jax.random.key(1), 100))
        >>> gradient = jax.jit(jax.grad(loss))(0.5, jax.random.key(0), fitted)

    References:
        Mohamed et al., Monte Carlo Gradient Estimation in Machine Learning (2020), section 7.4.1;
        Geffner and Domke, Using large ensembles of control variates for variational inference
        (2018).
    """

    coefficient: float | jax.Array = 1.0

    evaluations: ClassVar[str] = "as the wrapped estimator"
    when: ClassVar[str] = "a function like f has a known mean"
    needs: ClassVar[str] = "a function of known mean"

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        mean = known_mean(self, distribution, keys)
        shape = jnp.shape(self.coefficient)
        if shape not in ((), mean.shape):
            raise ValueError(
                f"coefficient has shape {shape}; it must be a number or shaped like h(x), "
                f"{mean.shape}."
            )

        def combined(controls: ArrayLike) -> jax.Array:
            controls = _floats(controls)
            return jnp.sum(jnp.asarray(self.coefficient, controls.dtype) * controls)

        def controlled(x: Any) -> tuple[PyTree, PyTree]:
            cost, aux = f(x)
            control = combined(self.h(x))
            return jax.tree.map(lambda c: c - control.astype(c.dtype), cost), aux

        terms, aux = self.estimator.terms(controlled, distribution, keys, vmap)
        offset = combined(mean)
        return jax.tree.map(lambda term: term + offset.astype(term.dtype), terms), aux

    def fit(self, f: Callable[[Any], PyTree], distribution: Any, keys: jax.Array) -> ControlVariate:
        """An estimator with the coefficient of least variance, fitted by regression over the keys.

        The variance is that of the gradient of the sum of all outputs of f, summed over all
        parameters of the distribution; to fit for one parameter only, make the others constants.
        Use other keys afterwards: the result is unbiased because its coefficient does not depend on
        them. One gradient of f and one of h for each key.

        Args:
            f: a function of one draw.
            distribution: as for `expectation`.
            keys: [n], with n at least the number of controls + 2. All are consumed.
        """
        record = as_distribution(distribution)

        def cost(x: Any) -> tuple[PyTree, PyTree]:
            return jax.tree.map(jnp.asarray, f(x)), None

        gradients, controls = sample_gradients(self, cost, record, keys, jax.vmap)
        total = jnp.sum(gradients, axis=1, keepdims=True)
        whole = regression_coefficients(total, controls, leave_out=False)[0]
        return replace(self, coefficient=stop(whole.reshape(known_mean(self, record, keys).shape)))


@pytree_dataclass
class FittedControlVariate(WithKnownMean):
    r"""A `ControlVariate` whose coefficients are fitted to the other samples of a call.

    .. code-block:: text

        F_k, C_k    the estimator's terms for f and for h - mean, for key k alone
        c_k         regression of dF_j on dC_j over the other samples, j != k
        term k      F_k
        derivative  dF_k - c_k . dC_k  along the distribution's parameters

    Unbiased at the orders of the wrapped estimator, because c_k does not depend on sample k and
    dC_k has mean 0. The value has no control variate. Each output of f has its own c, shared by all
    parameters or one for each. All samples of a call are coupled, at least the number of controls
    + 2; the wrapped estimator must accept single samples. Each term takes two evaluations of f, and
    one gradient of f and of h along the distribution's parameters. Memory is proportional to
    samples times parameters, so use few parameters (mean and scale, not the network).

    With few samples the noise of the fitted coefficients can outweigh the gain, more so with many
    controls or one coefficient for each parameter.

    Attributes:
        estimator: the wrapped estimator.
        h: as for `ControlVariate`.
        mean: as for `ControlVariate`.
        per_parameter: whether each number in `params` has its own coefficient. ``mean`` must then
            be right when a single number changes. The objects of other libraries are refused,
            because they may hold one parameter twice.

    Raises:
        TypeError: the estimator is not an instance of one, or needs several samples for a term; h
            or mean is not a function.
        ValueError: there are too few samples; mean and h differ in shape; the distribution has no
            float parameters; per_parameter with the object of another library.

    Example:
        >>> import distrax, jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(loc, key):
        ...     normal = distrax.Normal(loc, 1.0)
        ...     estimator = sf.FittedControlVariate(
        ...         sf.Pathwise(), h=jnp.square, mean=lambda normal: normal.mean() ** 2 + 1.0)
        ...     return sf.expectation(jnp.cosh, normal, key, estimator, num_samples=64)
        >>> gradient = jax.jit(jax.grad(loss))(0.5, jax.random.key(0))

    References:
        Ranganath, Gerrish and Blei, Black box variational inference (2014), section 3.2; Geffner
        and Domke, Using large ensembles of control variates for variational inference (2018).
    """

    per_parameter: bool = static_field(default=False, kw_only=True)

    evaluations: ClassVar[str] = "2"
    coupled: ClassVar[bool] = True
    when: ClassVar[str] = "a function like f has a known mean; many samples, few parameters"
    needs: ClassVar[str] = "a function of known mean; an estimator that accepts single samples"

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        gradients, controls = sample_gradients(self, f, distribution, keys, vmap)
        if self.per_parameter:
            _check_parameters(distribution)
            # [n, P, O, 1] and [n, P, m, 1]: a regression for each parameter.
            by_parameter = (jnp.moveaxis(g, -1, 1)[..., None] for g in (gradients, controls))
            fit = jax.vmap(regression_coefficients, (1, 1), 3)
            coefficients = fit(*by_parameter)
        else:
            coefficients = regression_coefficients(gradients, controls)[..., None]
        flat, unflatten = flat_params(distribution)

        def one(sample: tuple[jax.Array, jax.Array]) -> tuple[PyTree, PyTree]:
            key, c = sample
            terms, aux = self.estimator.terms(f, distribution, reuse_key(key)[None], jax.vmap)
            leaves, structure = jax.tree.flatten(terms)
            borders = np.cumsum([leaf.size for leaf in leaves])[:-1]

            def control(c: jax.Array) -> jax.Array:
                # Multiplies the derivative along each parameter by its coefficient, for each h.
                def scaled(c: jax.Array, i: jax.Array) -> jax.Array:
                    moved = stop(flat) + c * (flat - stop(flat))
                    return _controls(self, unflatten(moved), key)[i]

                each = jax.vmap(scaled)(c, jnp.arange(len(c)))
                return jnp.sum(each - stop(each))

            offsets = jnp.split(jax.vmap(control)(c), borders)
            controlled = [
                leaf[0] - offset.reshape(leaf[0].shape).astype(leaf.dtype)
                for leaf, offset in zip(leaves, offsets, strict=True)
            ]
            return jax.tree.unflatten(structure, controlled), jax.tree.map(lambda a: a[0], aux)

        return vmap(one)((keys, spread_like(coefficients, gradients)))


def known_mean(estimator: WithKnownMean, distribution: Distribution, keys: jax.Array) -> jax.Array:
    """The mean of h, checked to be shaped like h."""
    plain, rows = sources(distribution, keys)
    shape = jax.eval_shape(lambda row: estimator.h(plain.draw(row)), abstract_key(rows)).shape
    mean = jnp.asarray(estimator.mean(distribution.params))
    if len(shape) > 1 or mean.shape != shape:
        raise ValueError(
            f"{type(estimator).__name__} needs h(x) and mean(params) of one shape, () or [m], got "
            f"{shape} and {mean.shape}."
        )
    return mean


def _check_parameters(distribution: Distribution) -> None:
    # distrax keeps a covariance and its square root. With a coefficient for each, the term of h
    # along one and the term of its mean along the other would not cancel in expectation.
    kind = type(distribution.params)
    if is_object(distribution) and not kind.__module__.startswith("scorefn."):
        raise ValueError(
            f"FittedControlVariate with per_parameter=True needs a Distribution or a record of "
            f"scorefn, got {kind.__name__}, which may hold one parameter twice. Give "
            f"Distribution(log_prob, sample, params), or per_parameter=False."
        )


def flat_params(
    distribution: Distribution,
) -> tuple[jax.Array, Callable[[jax.Array], Distribution]]:
    """The float parameters as one array, and a function that makes a distribution of it."""
    floats = distribution.floats()
    if not floats:
        raise ValueError(
            f"a control variate is fitted to gradients along the float arrays in "
            f"distribution.params, which holds none, got {distribution.params!r}. Give the "
            f"distribution as Distribution(log_prob, sample, params)."
        )
    flat, unravel = ravel_pytree(floats)
    return flat, lambda flat: distribution.with_floats(unravel(flat))


def _controls(estimator: WithKnownMean, distribution: Distribution, key: jax.Array) -> jax.Array:
    """The estimator's terms for h minus their means, for one key: [m]."""

    def h(x: Any) -> tuple[jax.Array, None]:
        return _floats(estimator.h(x)), None

    terms, _ = estimator.estimator.terms(h, distribution, reuse_key(key)[None], jax.vmap)
    return terms[0] - _floats(estimator.mean(distribution.params)).astype(terms.dtype)


def _floats(numbers: ArrayLike) -> jax.Array:
    """The number or array as a float array [m]."""
    return as_float(jnp.ravel(jnp.asarray(numbers)))


def sample_gradients(
    estimator: WithKnownMean,
    f: Cost,
    distribution: Distribution,
    keys: jax.Array,
    vmap: Vmap,
) -> tuple[jax.Array, jax.Array]:
    """Stopped gradients of f, [n, O, P], and of h, [n, m, P]."""
    flat, unflatten = flat_params(distribution)
    controls = max(1, known_mean(estimator, distribution, keys).size)
    if len(keys) < controls + 2:
        raise ValueError(
            f"num_samples must be at least {controls + 2} to fit {controls} control variates, got "
            f"{len(keys)}: a regression needs more samples than coefficients."
        )
    inner = estimator.estimator
    if inner.coupled:
        try:
            jax.eval_shape(lambda key: _controls(estimator, distribution, key), abstract_key(keys))
        except ValueError as error:
            raise TypeError(
                f"the control variate is fitted to terms of one sample each, and {inner!r} needs "
                f"more samples for a term. Use an estimator that accepts single samples, such as "
                f"Pathwise or ScoreFunction(ConstantBaseline(...))."
            ) from error

    def outputs(flat: jax.Array, key: jax.Array) -> jax.Array:
        terms, _ = inner.terms(f, unflatten(flat), reuse_key(key)[None], jax.vmap)
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(terms)])

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        def control(flat: jax.Array) -> jax.Array:
            return _controls(estimator, unflatten(flat), key)

        # Inside shard_map the gradient along shared parameters would be summed over devices.
        here = as_local(stop(flat), jax.random.key_data(key))
        return jax.jacrev(outputs)(here, key), jax.jacrev(control)(here)

    return stop(vmap(one)(keys))
