"""One gradient of a discrete objective, ready to be measured: a toy, or an autoencoder's."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import scorefn as sf
from benchmarks._measuring import enumeration
from benchmarks._measuring.trajectory import descended
from benchmarks._models import vae
from scorefn._core.pytree import pytree_dataclass, static_field

from .bit_toys import BITS, QUADRATIC, SEPARABLE
from .category_toys import THOUSAND, WITHOUT_REPLACEMENT
from .toy import Entry, Toy

TOYS: dict[str, Toy] = {
    "separable": SEPARABLE,
    "quadratic": QUADRATIC,
    "without_replacement": WITHOUT_REPLACEMENT,
    "thousand": THOUSAND,
}
VAE_BITS = 10
VAE_ENTRIES: dict[str, Entry] = {
    **BITS,
    f"LocalExpectation ({VAE_BITS + 1})": Entry(sf.LocalExpectation(), 1, VAE_BITS + 1),
}
TUNING_STEPS, TUNING_RATE = 500, 0.01


@pytree_dataclass
class Problem:
    """Everything that one gradient depends on, besides its key.

    Attributes:
        estimator: the estimator.
        params: what is differentiated: of a toy, or the logits of each image, [images, bits].
        data: what else the cost depends on: of a toy, or a decoder and the images.
        objective: the name of a toy, or ``vae``.
        num_samples: the terms.
    """

    estimator: sf.Estimator
    params: Any
    data: Any
    objective: str = static_field()
    num_samples: int = static_field()


@dataclass(frozen=True)
class Task:
    """A problem, and what is known of it exactly.

    Attributes:
        problem: what one gradient is made of.
        entry: its estimator, as listed.
        gradient: the exact gradient.
        pair: the exact variance of leave-one-out with 2 samples.
        variance: the exact variance of this estimator, or None.
        magnitude: of the costs that are subtracted from each other.
        projected: whether the bias is looked for along a few directions; see `measure`.
    """

    problem: Problem
    entry: Entry
    gradient: np.ndarray
    pair: float
    variance: float | None
    magnitude: float
    projected: bool = False

    def tuned(self, key: jax.Array) -> Problem:
        """The problem, with the leaves of its estimator learned if the entry asks for that."""
        if not self.entry.tuned:
            return self.problem
        return replace(self.problem, estimator=_tuned(self.problem, key))


def loss(params: jax.Array, key: jax.Array, estimator: sf.Estimator, problem: Problem) -> jax.Array:
    """The estimated expectation; of all images, their sum."""
    if problem.objective != "vae":
        toy = TOYS[problem.objective]
        return sf.expectation(
            partial(toy.cost, problem.data),
            toy.distribution(params),
            key,
            estimator,
            num_samples=problem.num_samples,
        )
    decoder, images = problem.data

    def one(logits: jax.Array, image: jax.Array, key: jax.Array) -> jax.Array:
        return sf.expectation(
            partial(vae.cost, decoder, image),
            sf.Bernoulli(logits),
            key,
            estimator,
            num_samples=problem.num_samples,
        )

    return jnp.sum(jax.vmap(one)(params, images, jax.random.split(key, len(images))))


def gradient(problem: Problem, key: jax.Array) -> dict[str, jax.Array]:
    """One estimate of the gradient."""
    return {"params": jax.grad(loss)(problem.params, key, problem.estimator, problem)}


@jax.jit
def _tuned(problem: Problem, key: jax.Array) -> sf.Estimator:
    """The estimator with its leaves learned, by Adam on the squared gradient. Consumes the key."""

    def slope(estimator: sf.Estimator, key: jax.Array) -> Any:
        return jax.grad(sf.squared_gradient, argnums=3)(
            lambda params, key, estimator: loss(params, key, estimator, problem),
            problem.params,
            key,
            estimator,
        )

    first = jax.tree.map(jnp.asarray, problem.estimator)
    return descended(slope, first, key, optax.adam(TUNING_RATE), num_steps=TUNING_STEPS)


def toy_task(objective: str, at: float, name: str) -> Task:
    """A toy at one of its settings."""
    setting, entry = TOYS[objective].settings[at], TOYS[objective].entries[name]
    params, data = (np.asarray(x, np.float32) for x in (setting.params, setting.data))
    return Task(
        problem=Problem(entry.estimator, params, data, objective, entry.num_samples),
        entry=entry,
        gradient=setting.gradient,
        pair=setting.leave_one_out(2),
        variance=None if entry.variance is None else entry.variance(setting),
        magnitude=setting.magnitude,
        projected=TOYS[objective].projected,
    )


def vae_task(weights: vae.Params, images: np.ndarray, name: str) -> Task:
    """Some images with the weights of one stage of training, by enumeration."""
    entry, decoder = VAE_ENTRIES[name], weights["decoder"]
    logits = np.asarray(vae.encode(weights, images))
    codes = vae.codes(VAE_BITS)
    costs = jax.vmap(lambda image: vae.cost(decoder, image, codes))(images)
    gradients, variances = [], []
    for f, row in zip(np.asarray(costs, np.float64), logits.astype(np.float64), strict=True):
        theta = 1 / (1 + np.exp(-row))
        probs = np.prod(np.where(codes == 1, theta, 1 - theta), axis=1)
        gradients.append(enumeration.gradient(probs, f, codes - theta))
        variances.append([enumeration.leave_one_out(probs, f, codes - theta, n) for n in (2, 4)])
    pair, four = np.sum(variances, axis=0).tolist()
    return Task(
        problem=Problem(entry.estimator, logits, (decoder, images), "vae", entry.num_samples),
        entry=entry,
        gradient=np.array(gradients),
        pair=pair,
        variance={"LeaveOneOut (2)": pair, "LeaveOneOut (4)": four}.get(name),
        magnitude=float(np.max(costs)),
        projected=True,
    )
