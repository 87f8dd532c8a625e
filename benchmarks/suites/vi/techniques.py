"""Techniques that reduce the noise of the ELBO: sampling schemes and control variates."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import scorefn as sf
from benchmarks._models.logistic import Params
from scorefn._core.pytree import pytree_dataclass

from .targets import inverse_cdf, mean_and_scale, mirrored

Learned = dict[str, Any]


@pytree_dataclass
class Quadratic:
    """A quadratic function of the weights, slope . v + v' curvature v / 2, v = weights - center.

    Attributes:
        slope: [d].
        curvature: [d, d].
        center: [d].
    """

    slope: jax.Array
    curvature: jax.Array
    center: jax.Array

    def value(self, weights: jax.Array) -> jax.Array:
        """The value at a draw."""
        v = weights - self.center
        return self.slope @ v + v @ self.curvature @ v / 2

    def mean(self, params: Params) -> jax.Array:
        """Under the posterior."""
        mean, scale = mean_and_scale(params)
        return self.value(mean) + jnp.diagonal(self.curvature) @ scale**2 / 2


@dataclass(frozen=True)
class Around:
    """The information that a technique is built from.

    Attributes:
        taylor: the expansion of f to second order at the mean.
        learned: its leaves.
        unit: nats, in which the leaves of a surrogate are.
    """

    taylor: Quadratic
    learned: Learned
    unit: float


@dataclass(frozen=True)
class Technique:
    """A transformation of an estimator.

    Attributes:
        around: ``around(estimator, where)``, the estimator made from another one.
        per_term: evaluations of f for one term; the terms are as many as keep the draws equal.
        draws_per_term: draws of one term.
        once: evaluations of f for all terms together.
        serves_leave_one_out: whether its draws are independent and seen together.
        expands: whether it uses the expansion of f.
        learned: ``learned(d)``, its leaves before they are learned.
    """

    around: Callable[[sf.Estimator, Around], sf.Estimator]
    per_term: int = 1
    draws_per_term: int = 1
    once: int = 0
    serves_leave_one_out: bool = True
    expands: bool = False
    learned: Callable[[int], Learned] = field(default=lambda _: {})

    def terms(self, draws: int) -> int:
        """The terms that make so many draws."""
        return draws // self.draws_per_term

    def evaluations(self, draws: int) -> int:
        """The evaluations of f for so many draws."""
        return self.per_term * self.terms(draws) + self.once


def _fitted(estimator: sf.Estimator, where: Around, *, per_parameter: bool) -> sf.Estimator:
    # Closures, not bound methods: what is static in an estimator must be hashable.
    return sf.FittedControlVariate(
        estimator,
        h=lambda weights: where.taylor.value(weights),
        mean=lambda params: where.taylor.mean(params),
        per_parameter=per_parameter,
    )


def _delta(estimator: sf.Estimator, coefficient: Any) -> sf.Estimator:
    return sf.DeltaMethod(estimator, coefficient=coefficient, moments=mean_and_scale)


def _surrogate(estimator: sf.Estimator, where: Around) -> sf.Estimator:
    leaves = (where.unit * where.learned[name] for name in ("slope", "curvature"))
    return sf.QuadraticSurrogate(estimator, *leaves, moments=mean_and_scale)


def _surrogate_leaves(d: int) -> Learned:
    # A matrix of all pairs of a network's weights is more than some hundred steps can learn.
    return {"slope": jnp.zeros(d), "curvature": jnp.zeros((d, d) if d < FEW else d)}


PLAIN = "plain"
# Weights, of which a surrogate learns all pairs.
FEW = 64
TECHNIQUES: Mapping[str, Technique] = {
    PLAIN: Technique(lambda estimator, _: estimator),
    "Antithetic": Technique(
        lambda estimator, _: sf.Antithetic(estimator, mirrored), per_term=2, draws_per_term=2
    ),
    "Stratified": Technique(
        lambda estimator, _: sf.Stratified(estimator, inverse_cdf), serves_leave_one_out=False
    ),
    "QuasiMonteCarlo": Technique(
        lambda estimator, _: sf.QuasiMonteCarlo(estimator, inverse_cdf), serves_leave_one_out=False
    ),
    "DeltaMethod, c = 1": Technique(lambda estimator, _: _delta(estimator, 1.0), once=6),
    "DeltaMethod, c learned": Technique(
        lambda estimator, where: _delta(estimator, where.learned["delta"]),
        once=6,
        learned=lambda _: {"delta": jnp.zeros(())},
    ),
    "FittedControlVariate": Technique(
        partial(_fitted, per_parameter=False),
        per_term=2,
        serves_leave_one_out=False,
        expands=True,
    ),
    "FittedControlVariate, per parameter": Technique(
        partial(_fitted, per_parameter=True),
        per_term=2,
        serves_leave_one_out=False,
        expands=True,
    ),
    "QuadraticSurrogate, learned": Technique(_surrogate, learned=_surrogate_leaves),
    "QuasiMonteCarlo and DeltaMethod, c learned": Technique(
        lambda estimator, where: _delta(
            sf.QuasiMonteCarlo(estimator, inverse_cdf), where.learned["delta"]
        ),
        once=6,
        serves_leave_one_out=False,
        learned=lambda _: {"delta": jnp.zeros(())},
    ),
}
