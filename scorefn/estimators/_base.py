"""Base classes of estimators, and of estimators that wrap another one."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import is_number
from scorefn._core.checks import check_instance, check_pair
from scorefn._core.types import Cost, PyTree, Sample, Terms, Vmap
from scorefn.distributions._distribution import Distribution, as_distribution

from ._cost_guard import guarded_cost


class Estimator(ABC):
    """A method to estimate an expectation and its derivatives, called like a function.

    ``estimator(f, distribution, keys)`` returns one term for each key. The mean of the terms is an
    estimate of ``E[f(x)]`` whose derivatives, by any JAX transformation, estimate the derivatives
    of ``E[f(x)]``. Because the keys are an argument, a test can pass one key for every possible
    draw of a finite distribution and compare the mean with the exact expectation.

    An estimator is an immutable value: a `pytree_dataclass` with the method `terms` and the
    attributes below, from which the table in the documentation is generated.

    Attributes:
        unbiased: whether value and derivatives are right in expectation.
        order: the highest order of derivative that is right; a higher one raises.
        evaluations: evaluations of f for one term.
        coupled: whether a term depends on other samples of the call, as with a leave-one-out
            baseline. Such a term is right only if the draws are independent.
        when: the use it is good for.
        needs: the properties of the distribution and of f that it requires.
        differentiates_f: whether f must be differentiable in the draw.
    """

    unbiased: ClassVar[bool] = True
    order: ClassVar[float] = math.inf
    evaluations: ClassVar[str] = "1"
    coupled: ClassVar[bool] = False
    when: ClassVar[str]
    needs: ClassVar[str]
    differentiates_f: ClassVar[bool] = False

    def __call__(
        self,
        f: Callable[[Any], PyTree],
        distribution: Any,
        keys: jax.Array,
        *,
        has_aux: bool = False,
        vmap: Vmap = jax.vmap,
    ) -> PyTree:
        """One term for each key.

        Args:
            f: a function of one draw that returns a real scalar or a pytree of real arrays; with
                `has_aux`, a pair of that and any pytree.
            distribution: a `scorefn.Distribution`, or an object of distrax, TFP, numpyro, flowjax.
            keys: random keys, [n], typed or raw. All are consumed.
            has_aux: whether f returns a pair ``(cost, aux)``.
            vmap: the transformation that applies a function of one sample to many: ``jax.vmap``,
                or a form of it that uses less memory.

        Returns:
            The terms, [n, ...] for each leaf that f returns. With `has_aux`, a pair of the terms
            and the aux values, [n, ...].
        """
        cost = self._cost(f, has_aux=has_aux)
        terms, aux = self.terms(cost, as_distribution(distribution), keys, vmap)
        return (terms, aux) if has_aux else terms

    @property
    def streams(self) -> bool:
        """Whether `one_sample` can replace `terms`, one sample at a time."""
        return not self.coupled

    def one_sample(
        self, f: Callable[[Any], PyTree], distribution: Distribution, key: jax.Array
    ) -> Sample:
        """The term of one sample, or its cost and its log-density."""
        terms = self(f, distribution, key[None], vmap=_of_one)
        return Sample(jax.tree.map(lambda term: term.reshape(term.shape[1:]), terms))

    @abstractmethod
    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        """The terms and the aux, [n, ...] for each leaf; f returns ``(cost, aux)``."""

    def _cost(self, f: Callable[[Any], PyTree], *, has_aux: bool = False) -> Cost:
        def cost_and_aux(x: Any) -> tuple[PyTree, PyTree]:
            returned: Any = f(x) if has_aux else (f(x), None)
            cost, aux = check_pair("f with has_aux=True", "(cost, aux)", returned)
            if not jax.tree.leaves(cost):
                raise TypeError(f"f must return real numbers, got {cost!r}.")
            return jax.tree.map(self._checked, cost), aux

        return lambda x: guarded_cost(cost_and_aux, x, type(self).__name__, f)

    def _checked(self, cost: Any) -> jax.Array:
        name = type(self).__name__
        if not is_number(cost):
            raise TypeError(f"f must return real numbers, got {type(cost).__name__}: {cost!r}.")
        cost = jnp.asarray(cost)
        if jnp.issubdtype(cost.dtype, jnp.floating):
            return cost
        if not (jnp.issubdtype(cost.dtype, jnp.integer) or cost.dtype == jnp.bool_):
            raise TypeError(
                f"f must return real numbers, got {cost.dtype}. Return the real and the imaginary "
                f"part as two numbers."
            )
        if self.differentiates_f:
            raise TypeError(
                f"{name} differentiates f, but f returned {cost.dtype}, which has no derivative: "
                f"the gradient would silently be 0. Return a float, or use ScoreFunction."
            )
        return cost.astype(jnp.result_type(float))


def _of_one(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``vmap(fn)`` that evaluates a single sample without a sample axis."""

    def mapped(xs: Any) -> Any:
        if any(leaf.shape[0] != 1 for leaf in jax.tree.leaves(xs)):
            return jax.vmap(fn)(xs)  # over a support
        x = jax.tree.map(lambda x: x.reshape(x.shape[1:]), xs)
        return jax.tree.map(lambda y: jnp.asarray(y)[None], fn(x))

    return mapped


def check_estimator(estimator: Any) -> None:
    """Raises ``TypeError`` unless the argument is an instance of an estimator."""
    check_instance("estimator", estimator)
    if not isinstance(estimator, Estimator):
        raise TypeError(
            f"estimator must be an Estimator, such as ScoreFunction(), got {estimator!r}."
        )


class Transformation(Estimator):
    """An estimator that wraps another one and has its attributes.

    Attributes:
        estimator: the wrapped estimator.
    """

    estimator: Estimator

    def __post_init__(self) -> None:
        check_estimator(self.estimator)

    @property
    def unbiased(self) -> bool:  # type: ignore[override]
        """The value of the wrapped estimator."""
        return self.estimator.unbiased

    @property
    def order(self) -> float:  # type: ignore[override]
        """The value of the wrapped estimator."""
        return self.estimator.order

    @property
    def coupled(self) -> bool:  # type: ignore[override]
        """The value of the wrapped estimator."""
        return self.estimator.coupled

    @property
    def differentiates_f(self) -> bool:  # type: ignore[override]
        """The value of the wrapped estimator."""
        return self.estimator.differentiates_f


def nested(estimator: Estimator) -> Iterator[Estimator]:
    """The estimator and the estimators that it wraps, from the outside in."""
    yield estimator
    if isinstance(estimator, Transformation):
        yield from nested(estimator.estimator)
