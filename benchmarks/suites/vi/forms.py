"""The ELBO in the forms that differ in noise: what is in closed form, and which derivative."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

import scorefn as sf
from benchmarks._models.logistic import Params, divergence, posterior
from scorefn import vi

from .targets import entropy, log_prior
from .techniques import Learned

LogDensity = Callable[[jax.Array], jax.Array]


@dataclass(frozen=True)
class Bound:
    """The parts of an estimate of the ELBO, before the form is chosen.

    Attributes:
        log_likelihood: of all data.
        params: of the posterior.
        key: one random key.
        estimator: with whatever is around it.
        num_samples: its terms.
        learned: the leaves that are learned.
    """

    log_likelihood: LogDensity
    params: Params
    key: jax.Array
    estimator: sf.Estimator
    num_samples: int
    learned: Learned

    def elbo(self, integrand: LogDensity, rest: jax.Array | None) -> jax.Array:
        """The expectation of the integrand, and what is known in closed form."""
        return vi.elbo(
            integrand,
            posterior(self.params),
            self.key,
            self.estimator,
            num_samples=self.num_samples,
            entropy=rest,
        )

    def log_joint(self, weights: jax.Array) -> jax.Array:
        return self.log_likelihood(weights) + log_prior(weights)


def _closed(bound: Bound) -> jax.Array:
    return bound.elbo(bound.log_likelihood, -divergence(bound.params))


def _sampled(bound: Bound) -> jax.Array:
    return bound.elbo(bound.log_joint, None)


def _sticking(bound: Bound, a: Any) -> jax.Array:
    # `vi.sticking_the_landing`, written out: it takes no estimator, and here there is one.
    q = posterior(bound.params)
    fixed = replace(q, params=jax.lax.stop_gradient(bound.params))

    def integrand(weights: jax.Array) -> jax.Array:
        return bound.log_joint(weights) - a * fixed.log_density(weights)

    return bound.elbo(integrand, (1 - a) * entropy(bound.params))


@dataclass(frozen=True)
class Form:
    """One way to write the ELBO and to differentiate it.

    Attributes:
        elbo: ``elbo(bound)``, an estimate of it.
        estimator: ``estimator(level)``, before any technique, where f is about so large.
        one_by_one: whether it serves single samples, and those that depend on one another.
        quadratic: ``quadratic(learned)``, the part of f beside the log-likelihood: how much of the
            negative log-prior and of log q.
        learned: its leaves before they are learned.
    """

    elbo: Callable[[Bound], jax.Array]
    estimator: Callable[[jax.Array], sf.Estimator] = lambda _: sf.Pathwise()
    one_by_one: bool = True
    quadratic: Callable[[Learned], tuple[Any, Any]] = lambda _: (0.0, 0.0)
    learned: Learned = field(default_factory=dict)


FORMS: Mapping[str, Form] = {
    "Pathwise": Form(_closed),
    # Along the path log q is constant but for its own scale: it has no noise.
    "Pathwise, KL sampled": Form(_sampled, quadratic=lambda _: (1.0, 0.0)),
    "sticking the landing": Form(
        lambda bound: _sticking(bound, 1.0), quadratic=lambda _: (1.0, 1.0)
    ),
    "sticking the landing, a learned": Form(
        lambda bound: _sticking(bound, bound.learned["a"]),
        quadratic=lambda learned: (1.0, learned["a"]),
        learned={"a": jnp.zeros(())},
    ),
    "LeaveOneOut": Form(_closed, lambda _: sf.ScoreFunction(), one_by_one=False),
    # Leave-one-out needs independent draws; a constant, the expected cost, serves them all.
    "ConstantBaseline": Form(_closed, lambda level: sf.ScoreFunction(sf.ConstantBaseline(level))),
}
