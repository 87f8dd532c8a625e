"""A Bernoulli variational autoencoder on scikit-learn's digits."""

import itertools
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from sklearn.datasets import load_digits

import scorefn as sf

Params = dict[str, Any]

PIXELS, HIDDEN = 64, 64


@cache
def digits() -> np.ndarray:
    """The 1797 images of 8 x 8 pixels, [n, 64], each pixel 0 or 1: more than half black."""
    # NumPy arrays: what is first asked for while tracing is kept, and must not be a tracer.
    return (load_digits().data / 16 > 0.5).astype(np.float32)


def start(key: jax.Array, bits: int, *, pixels: int = PIXELS, hidden: int = HIDDEN) -> Params:
    """Random weights of an encoder and a decoder with one hidden layer each. Consumes the key."""
    sizes = {"encoder": (pixels, hidden, bits), "decoder": (bits, hidden, pixels)}
    keys = jax.random.split(key, len(sizes))
    return {
        name: layers(key, *widths, initial=jax.nn.initializers.glorot_normal())
        for key, (name, widths) in zip(keys, sizes.items(), strict=True)
    }


def layers(
    key: jax.Array, *widths: int, initial: jax.nn.initializers.Initializer
) -> list[dict[str, jax.Array]]:
    """Random weights of a network, and biases of 0. Consumes the key."""
    keys = jax.random.split(key, len(widths) - 1)
    return [
        {"weight": initial(k, shape), "bias": jnp.zeros(shape[1])}
        for k, shape in zip(keys, itertools.pairwise(widths), strict=True)
    ]


def _network(layers: list[dict[str, jax.Array]], x: ArrayLike) -> jax.Array:
    inner, outer = layers
    hidden = jnp.tanh(jnp.asarray(x) @ inner["weight"] + inner["bias"])
    return hidden @ outer["weight"] + outer["bias"]


def encode(params: Params, image: ArrayLike) -> jax.Array:
    """The logits of the posterior of the bits of an image in [..., 64]."""
    return _network(params["encoder"], image)


def decode(decoder: list[dict[str, jax.Array]], code: ArrayLike) -> jax.Array:
    """The logits of the pixels, [..., 64], given a code in [..., bits]."""
    return _network(decoder, code)


def cost(decoder: list[dict[str, jax.Array]], image: ArrayLike, code: ArrayLike) -> jax.Array:
    """The negative log-likelihood of an image under a code, in nats: the f of the expectation."""
    logits = decode(decoder, code)
    return jnp.sum(jax.nn.softplus(logits) - image * logits, axis=-1)


def divergence(logits: jax.Array) -> jax.Array:
    """KL(posterior || fair bits), in nats, of one code's logits, [bits]."""
    theta = jax.nn.sigmoid(logits)
    # Of each bit: log 2 minus its entropy.
    entropy = jax.nn.softplus(logits) - theta * logits
    return jnp.sum(jnp.log(2.0) - entropy)


def losses(
    params: Params, images: jax.Array, key: jax.Array, estimator: sf.Estimator, num_samples: int
) -> tuple[jax.Array, jax.Array]:
    """The negative ELBO of each image, [n], and the costs, [n, num_samples]. Consumes the key."""

    def one(image: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = encode(params, image)

        def f(code: jax.Array) -> tuple[jax.Array, jax.Array]:
            value = cost(params["decoder"], image, code)
            return value, value

        mean, costs = sf.expectation(
            f, sf.Bernoulli(logits), key, estimator, num_samples=num_samples, has_aux=True
        )
        return mean + divergence(logits), costs

    return jax.vmap(one)(images, jax.random.split(key, len(images)))


def codes(bits: int) -> np.ndarray:
    """All codes, [2^bits, bits]."""
    return np.array(list(itertools.product([0.0, 1.0], repeat=bits)), np.float32)
