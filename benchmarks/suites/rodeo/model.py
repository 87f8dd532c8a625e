"""An autoencoder of 200 bits on scikit-learn's digits, with the networks of Shi et al. (2022)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from benchmarks._models import vae
from benchmarks._models.vae import PIXELS

Params = dict[str, Any]
Layers = list[dict[str, jax.Array]]

BITS = 200
# The units of the hidden layers of the encoder, and of the decoder.
HIDDEN: Mapping[str, tuple[int, ...]] = {"linear": (), "nonlinear": (200, 200)}
LEAK = 0.3


def start(key: jax.Array, name: str) -> Params:
    """Random weights of the encoder and the decoder of that name. Consumes the key."""
    keys = jax.random.split(key)
    return {
        "encoder": layers(keys[0], PIXELS, *HIDDEN[name], BITS),
        "decoder": layers(keys[1], BITS, *HIDDEN[name], PIXELS),
    }


def layers(key: jax.Array, *widths: int) -> Layers:
    """Random weights of a network, as in the paper. Consumes the key."""
    return vae.layers(key, *widths, initial=jax.nn.initializers.glorot_uniform())


def network(layers: Layers, x: ArrayLike) -> jax.Array:
    """Leaky units between the layers, none at the end; [..., inputs] to [..., outputs]."""
    *hidden, last = layers
    for layer in hidden:
        x = jax.nn.leaky_relu(jnp.asarray(x) @ layer["weight"] + layer["bias"], LEAK)
    return jnp.asarray(x) @ last["weight"] + last["bias"]


def encode(params: Params, image: ArrayLike) -> jax.Array:
    """The logits of the posterior of the bits of an image in [..., 64]."""
    return network(params["encoder"], image)


def negative_bound(
    decoder: Layers, logits: jax.Array, image: ArrayLike, code: ArrayLike
) -> jax.Array:
    """The f of the expectation, in nats: -log p(image, code) + log q(code).

    As in the paper, the divergence from fair bits is part of what is sampled. The posterior's
    logits, [200], are stopped here: the derivative of log q along them has mean 0 and is left out.
    """
    q = jax.lax.stop_gradient(logits)
    pixels = network(decoder, code)
    reconstruction = jnp.sum(jax.nn.softplus(pixels) - image * pixels, axis=-1)
    return reconstruction + jnp.sum(code * q - jax.nn.softplus(q) + jnp.log(2.0), axis=-1)
