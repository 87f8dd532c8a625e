"""Posteriors whose true means and deviations come with the package `inference_gym`."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import evidence


@dataclass(frozen=True)
class Target:
    """A posterior of an unconstrained vector z.

    Attributes:
        size: the number of components of z.
        log_joint: ``log_joint(z)``, in nats, with the Jacobian of the constraints.
        quantities: ``quantities(z)``, what the true moments are of, [k].
        mean: their true means, [k].
        deviation: their true standard deviations, [k].
        log_evidence: in nats; None where it is not known.
    """

    size: int
    log_joint: Callable[[jax.Array], jax.Array]
    quantities: Callable[[jax.Array], jax.Array]
    mean: np.ndarray
    deviation: np.ndarray
    log_evidence: float | None


EVIDENCE: Mapping[str, Callable[[], float] | None] = {
    "eight schools": evidence.eight_schools,
    "Brownian motion": evidence.brownian_motion,
    "Brownian motion, unknown scales": evidence.brownian_motion_unknown_scales,
    "stochastic volatility": None,
    "item response": None,
}
# The only one that is Gaussian.
GAUSSIAN = "Brownian motion"


@cache
def target(name: str) -> Target:
    """The posterior of that name."""
    # Arrays that are first made while tracing are kept, and must not be tracers.
    with jax.ensure_compile_time_eval():
        model = _model(name)
        constrain, transformation = (
            model.default_event_space_bijector,
            model.sample_transformations["identity"],
        )
        log_evidence = EVIDENCE[name]
        return Target(
            size=model.event_shape[0],
            log_joint=lambda z: (
                model.unnormalized_log_prob(constrain.forward(z))
                + constrain.forward_log_det_jacobian(z, event_ndims=1)
            ),
            quantities=lambda z: jnp.asarray(transformation(constrain.forward(z))),
            mean=np.asarray(transformation.ground_truth_mean),
            deviation=np.asarray(transformation.ground_truth_standard_deviation),
            log_evidence=None if log_evidence is None else log_evidence(),
        )


def _model(name: str) -> Any:
    """The model, as one of a vector."""
    # Imported only here: it takes a second, and `--list` needs none of it.
    from inference_gym.using_jax import targets

    model = {
        "eight schools": targets.EightSchools,
        "Brownian motion": lambda: targets.BrownianMotionMissingMiddleObservations(
            use_markov_chain=True
        ),
        "Brownian motion, unknown scales": lambda: (
            targets.BrownianMotionUnknownScalesMissingMiddleObservations(use_markov_chain=True)
        ),
        "stochastic volatility": targets.VectorizedStochasticVolatilitySP500Small,
        "item response": targets.SyntheticItemResponseTheory,
    }[name]()
    with warnings.catch_warnings():
        # The true moments are of double precision, and are made single.
        warnings.filterwarnings("ignore", "Explicitly requested dtype float64")
        return targets.VectorModel(model, flatten_sample_transformations=True)
