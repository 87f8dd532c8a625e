"""Bayesian logistic regression: the data, the objective, and its exact value and gradient."""

from collections.abc import Callable
from functools import cache
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_breast_cancer

import scorefn as sf
from scorefn._core.pytree import pytree_dataclass

Params = dict[str, Any]

# Of a standard normal, for the trapezoid rule: a logit's standard deviation reaches 25 before
# training, where softplus looks like a kink to Gauss-Hermite; this is good to 1e-6 there.
NODES = np.linspace(-8.0, 8.0, 257)
WEIGHTS = np.exp(-(NODES**2) / 2) / np.sum(np.exp(-(NODES**2) / 2))


@pytree_dataclass
class Data:
    """Some or all of the data.

    Attributes:
        features: [n, d], standardised, the last column 1.
        labels: [n], -1 or 1.
        weight: how many of the data each of these stands for.
    """

    features: jax.Array | np.ndarray
    labels: jax.Array | np.ndarray
    weight: float | jax.Array = 1.0

    def minibatch(self, key: jax.Array, size: int) -> "Data":
        """Some data drawn with replacement. The key is consumed."""
        n = len(self.labels)
        chosen = jax.random.randint(key, (size,), 0, n)
        features, labels = jnp.asarray(self.features), jnp.asarray(self.labels)
        return Data(features[chosen], labels[chosen], n / size)


@cache
def breast_cancer() -> Data:
    """The UCI breast-cancer data that scikit-learn ships: 569 cases, 30 features and a bias."""
    features, targets = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(0)) / features.std(0)
    features = np.hstack([features, np.ones((len(features), 1))])
    # NumPy arrays: what is first asked for while tracing is kept, and must not be a tracer.
    return Data(features.astype(np.float32), (2 * targets - 1).astype(np.float32))


def cost(weights: jax.Array, data: Data) -> jax.Array:
    """The negative log-likelihood of the data, in nats: the f of the expectation."""
    return data.weight * jnp.sum(jax.nn.softplus(-data.labels * (data.features @ weights)))


def posterior(params: Params) -> sf.Distribution:
    """A diagonal Gaussian, N(mean, exp(log_scale)^2)."""
    return sf.Distribution(_log_prob, _sample, params)


def _log_prob(params: Params, weights: jax.Array) -> jax.Array:
    scale = jnp.exp(params["log_scale"])
    return jnp.sum(jax.scipy.stats.norm.logpdf(weights, params["mean"], scale))


def _sample(params: Params, key: jax.Array) -> jax.Array:
    noise = jax.random.normal(key, params["mean"].shape)
    return params["mean"] + jnp.exp(params["log_scale"]) * noise


def divergence(params: Params) -> jax.Array:
    """KL(posterior || N(0, I)), in nats."""
    squares = jnp.exp(2 * params["log_scale"]) + params["mean"] ** 2
    return jnp.sum((squares - 1) / 2 - params["log_scale"])


def readable(params: Params) -> Any:
    """The same as an object of a library, whose factors `MeasureValued` can read."""
    return distrax.MultivariateNormalDiag(params["mean"], jnp.exp(params["log_scale"]))


def loss(
    params: Params,
    data: Data,
    key: jax.Array,
    estimator: sf.Estimator,
    num_samples: int,
    posterior: Callable[[Params], Any] = posterior,
) -> tuple[jax.Array, jax.Array]:
    """An estimate of the negative ELBO, in nats, and the cost of each sample. Consumes the key."""

    def f(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
        value = cost(weights, data)
        return value, value

    mean, costs = sf.expectation(
        f, posterior(params), key, estimator, num_samples=num_samples, has_aux=True
    )
    return mean + divergence(params), costs


def exact_loss(params: Params, data: Data) -> jax.Array:
    """The negative ELBO by quadrature: under a diagonal Gaussian each logit is Gaussian itself."""
    center = data.features @ params["mean"]
    spread = jnp.sqrt(data.features**2 @ jnp.exp(2 * params["log_scale"]))
    logits = center[:, None] + spread[:, None] * jnp.asarray(NODES, jnp.float32)
    expected = jax.nn.softplus(-data.labels[:, None] * logits) @ jnp.asarray(WEIGHTS, jnp.float32)
    return data.weight * jnp.sum(expected) + divergence(params)


@jax.jit
def exact_gradient(params: Params, data: Data) -> jax.Array:
    """The exact gradient of the negative ELBO, [2 d]."""
    return flat(jax.grad(exact_loss)(params, data))


def flat(gradient: Params) -> jax.Array:
    """Along the means, then along the scales, [2 d]."""
    return jnp.concatenate([gradient["mean"], gradient["log_scale"]])


def accuracy(params: Params, data: Data) -> jax.Array:
    """The fraction of data that the posterior mean classifies rightly."""
    return jnp.mean(data.labels * (data.features @ params["mean"]) > 0)
