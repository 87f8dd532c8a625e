"""One training gradient of a small autoencoder, by the library and by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np

import scorefn as sf
from benchmarks._models import vae as model

from .cases import Case, Params, sample_keys
from .timing import Program


def start(bits: int, *, pixels: int = model.PIXELS, hidden: int = model.HIDDEN) -> Params:
    """Random weights."""
    return model.start(jax.random.key(0), bits, pixels=pixels, hidden=hidden)


def images(n: int, *, pixels: int = model.PIXELS) -> jax.Array:
    """The first digits, [n, pixels], each pixel of theirs a square of a few."""
    few = math.isqrt(pixels // model.PIXELS)
    side = math.isqrt(model.PIXELS)
    square = np.kron(model.digits()[:n].reshape(-1, side, side), np.ones((few, few)))
    return jnp.asarray(square.reshape(-1, pixels), jnp.float32)


def leave_one_out(n: int, bits: int, samples: int) -> Case:
    """The score function for n images, with leave-one-out baselines."""
    data = images(n)

    def of_draws(params: Params, logits: jax.Array, codes: jax.Array) -> jax.Array:
        """The surrogate loss of codes [n, samples, bits], whose gradient is the estimate."""
        costs = model.cost(params["decoder"], data[:, None], codes)
        stopped = jax.lax.stop_gradient(costs)
        others = (jnp.sum(stopped, 1, keepdims=True) - stopped) / (samples - 1)
        log_probs = _log_prob(logits[:, None], codes)
        return jnp.mean(costs + (stopped - others) * log_probs)

    def batched(params: Params, key: jax.Array) -> jax.Array:
        logits = model.encode(params, data)
        codes = jax.vmap(_codes, (0, 0, None))(logits, jax.random.split(key, n), samples)
        return of_draws(params, logits, codes) + _divergence(logits)

    def by_image(params: Params, key: jax.Array) -> jax.Array:
        def one(image: jax.Array, key: jax.Array) -> jax.Array:
            logits = model.encode(params, image)
            codes = _codes(logits, key, samples)
            costs = jax.vmap(lambda code: model.cost(params["decoder"], image, code))(codes)
            stopped = jax.lax.stop_gradient(costs)
            others = (jnp.sum(stopped) - stopped) / (samples - 1)
            log_probs = _log_prob(logits, codes)
            surrogate = jnp.mean(costs + (stopped - others) * log_probs)
            return surrogate + model.divergence(logits)

        return jnp.mean(jax.vmap(one)(data, jax.random.split(key, n)))

    def bulk(params: Params, key: jax.Array) -> jax.Array:
        logits = model.encode(params, data)
        p = jax.nn.sigmoid(jax.lax.stop_gradient(logits))[:, None]
        codes = jax.random.bernoulli(key, p, (n, samples, bits)).astype(logits.dtype)
        return of_draws(params, logits, codes) + _divergence(logits)

    hand = {"batched": jax.grad(batched), "by image": jax.grad(by_image)}
    gradient = library(data, sf.ScoreFunction(sf.LeaveOneOut()), samples)
    return Case(gradient, hand, jax.grad(bulk), start(bits), samples)


def disarm(n: int, bits: int) -> Case:
    """DisARM for n images, with a pair of codes each."""
    data = images(n)

    def of_words(params: Params, logits: jax.Array, words: jax.Array) -> jax.Array:
        fixed = jax.lax.stop_gradient(logits)
        codes = sf.Bernoulli(fixed).draw_from(jnp.stack([~words, words]))
        costs = model.cost(params["decoder"], data, codes)
        change = jax.lax.stop_gradient(costs[0] - costs[1]) / 2
        weight = change[:, None] * (codes[0] - codes[1]) * jax.nn.sigmoid(jnp.abs(fixed))
        return (jnp.sum(costs) / 2 + jnp.sum(weight * logits)) / n

    def batched(params: Params, key: jax.Array) -> jax.Array:
        logits = model.encode(params, data)
        keys = jax.vmap(lambda key: sample_keys(key, 1)[0])(jax.random.split(key, n))
        words = jax.vmap(lambda key: jax.random.bits(key, (bits,)))(keys)
        return of_words(params, logits, words) + _divergence(logits)

    def bulk(params: Params, key: jax.Array) -> jax.Array:
        logits = model.encode(params, data)
        return of_words(params, logits, jax.random.bits(key, (n, bits))) + _divergence(logits)

    gradient = library(data, sf.DisARM(), 1)
    return Case(gradient, {"batched": jax.grad(batched)}, jax.grad(bulk), start(bits), 1)


def library(data: jax.Array, estimator: sf.Estimator, samples: int) -> Program:
    """The gradient by an estimator, an image at a time; the divergence in closed form."""

    def loss(params: Params, key: jax.Array) -> jax.Array:
        def one(image: jax.Array, key: jax.Array) -> jax.Array:
            logits = model.encode(params, image)
            cost = lambda code: model.cost(params["decoder"], image, code)  # noqa: E731
            mean = sf.expectation(cost, sf.Bernoulli(logits), key, estimator, num_samples=samples)
            return mean + model.divergence(logits)

        return jnp.mean(jax.vmap(one)(data, jax.random.split(key, len(data))))

    return jax.grad(loss)


def sampled(data: jax.Array, bits: int) -> Program:
    """The score function of one code an image, without a baseline; the divergence is sampled."""
    by_image = sf.ScoreFunction(sf.ConstantBaseline(0.0), factor_ndim=1)

    def loss(params: Params, key: jax.Array) -> jax.Array:
        posterior, prior = sf.Bernoulli(model.encode(params, data)), sf.Bernoulli(jnp.zeros(bits))

        def f(codes: jax.Array) -> jax.Array:
            against = jnp.sum(posterior.log_probs(codes) - prior.log_probs(codes), axis=-1)
            return model.cost(params["decoder"], data, codes) + against

        return jnp.mean(sf.expectation(f, posterior, key, by_image))

    return jax.grad(loss)


def _codes(logits: jax.Array, key: jax.Array, samples: int) -> jax.Array:
    """The codes of one image, [samples, bits], as the library draws them."""
    bits = sf.Bernoulli(jax.lax.stop_gradient(logits))
    return jax.vmap(bits.sample)(sample_keys(key, samples))


def _log_prob(logits: jax.Array, codes: jax.Array) -> jax.Array:
    return jnp.sum(codes * logits - jax.nn.softplus(logits), axis=-1)


def _divergence(logits: jax.Array) -> jax.Array:
    return jnp.mean(jax.vmap(model.divergence)(logits))
