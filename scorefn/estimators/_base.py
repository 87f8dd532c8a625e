"""The contract of an estimator, and of an estimator around another one."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import is_number
from scorefn._core.types import Cost, PyTree, Vmap
from scorefn.distributions._distribution import Distribution, as_distribution


class Estimator(ABC):
    """How the derivative of an expectation is estimated: an immutable value called like a function.

    ``estimator(f, distribution, keys)`` returns one term for each key. The mean of the terms is an
    estimate of ``E[f(x)]`` whose derivatives, taken by any of JAX's transformations, estimate the
    derivatives of ``E[f(x)]``. Because the keys are an argument, handing in every possible draw of
    a finite distribution proves an estimator unbiased exactly.

    A new estimator is a `record` (a frozen dataclass and a pytree) with the one method `terms` and
    the facts below, from which the table in the documentation is made.

    Attributes:
        unbiased: whether value and derivatives are right in expectation.
        order: the highest order of derivative that is right; a higher one raises.
        evaluations: evaluations of f for one term.
        coupled: whether the samples of a call are used for one another, as in a leave-one-out
            baseline: right if their draws are independent, and only then.
        when: what it is good for.
        needs: what the distribution and f must supply.
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
            f: a function of one draw, to a real scalar or a pytree of real arrays; with `has_aux`,
                to a pair of that and any pytree.
            distribution: a `scorefn.Distribution`, or an object of distrax, TFP, numpyro, flowjax.
            keys: random keys, [n], typed or raw. All are consumed.
            has_aux: whether f returns a pair ``(cost, aux)``.
            vmap: how a function of one sample is applied to many: ``jax.vmap``, or a form of it
                that uses less memory.

        Returns:
            The terms, [n, ...] for each leaf that f returns; with `has_aux`, a pair of that and aux
            stacked likewise.
        """
        cost = self._cost(f, has_aux=has_aux)
        terms, aux = self.terms(cost, as_distribution(distribution), keys, vmap)
        return (terms, aux) if has_aux else terms

    @property
    def streams(self) -> bool:
        """Whether one sample at a time will do, as `one_sample` gives it."""
        return not self.coupled

    def one_sample(
        self, f: Callable[[Any], PyTree], distribution: Distribution, key: jax.Array
    ) -> tuple[PyTree, ...]:
        """The term of one sample; or its cost and its log-density.

        The latter where ``attach_score`` is to make the term, the mean cost of the others being
        its baseline.
        """
        terms = self(f, distribution, key[None], vmap=_of_one)
        return (jax.tree.map(lambda term: term.reshape(term.shape[1:]), terms),)

    @abstractmethod
    def terms(
        self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap
    ) -> tuple[PyTree, PyTree]:
        """The terms and the aux, [n, ...] for each leaf; f returns ``(cost, aux)``."""

    def _cost(self, f: Callable[[Any], PyTree], *, has_aux: bool = False) -> Cost:
        def cost_and_aux(x: Any) -> tuple[PyTree, PyTree]:
            cost, aux = f(x) if has_aux else (f(x), None)
            return jax.tree.map(self._checked, cost), aux

        return cost_and_aux

    def _checked(self, cost: Any) -> jax.Array:
        name = type(self).__name__
        if not is_number(cost):
            raise TypeError(f"f must return real numbers, got {type(cost).__name__}: {cost!r}.")
        cost = jnp.asarray(cost)
        if jnp.issubdtype(cost.dtype, jnp.floating):
            return cost
        if not (jnp.issubdtype(cost.dtype, jnp.integer) or cost.dtype == jnp.bool_):
            raise TypeError(
                f"f must return real numbers, got {cost.dtype}; the gradient of a complex "
                f"expectation is that of its real and its imaginary part, taken apart."
            )
        if self.differentiates_f:
            raise TypeError(
                f"{name} differentiates f, but f returned {cost.dtype}, which has no derivative: "
                f"the gradient would silently be 0. Use ScoreFunction, or return a float."
            )
        return cost.astype(jnp.result_type(float))


def _of_one(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``vmap(fn)`` that has no axis where there is one sample only."""

    def mapped(xs: Any) -> Any:
        if any(leaf.shape[0] != 1 for leaf in jax.tree.leaves(xs)):
            return jax.vmap(fn)(xs)  # over a support
        x = jax.tree.map(lambda x: x.reshape(x.shape[1:]), xs)
        return jax.tree.map(lambda y: jnp.asarray(y)[None], fn(x))

    return mapped


def check_estimator(estimator: Any) -> None:
    """Raises ``TypeError`` unless it is an instance of an estimator."""
    if isinstance(estimator, type):
        raise TypeError(
            f"estimator must be an instance, got the class {estimator.__name__}; "
            f"write {estimator.__name__}()."
        )
    if not isinstance(estimator, Estimator):
        raise TypeError(f"estimator must be an Estimator, as ScoreFunction(), got {estimator!r}.")


class Transformation(Estimator):
    """An estimator around another one, whose facts are those of the one inside.

    Attributes:
        estimator: the one inside.
    """

    estimator: Estimator

    @property
    def unbiased(self) -> bool:  # type: ignore[override]
        """As the estimator inside."""
        return self.estimator.unbiased

    @property
    def order(self) -> float:  # type: ignore[override]
        """As the estimator inside."""
        return self.estimator.order

    @property
    def coupled(self) -> bool:  # type: ignore[override]
        """As the estimator inside."""
        return self.estimator.coupled

    @property
    def differentiates_f(self) -> bool:  # type: ignore[override]
        """As the estimator inside."""
        return self.estimator.differentiates_f


def nested(estimator: Estimator) -> Iterator[Estimator]:
    """The estimator and those inside it, one in the other."""
    yield estimator
    if isinstance(estimator, Transformation):
        yield from nested(estimator.estimator)
