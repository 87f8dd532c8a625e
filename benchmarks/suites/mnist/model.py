"""Autoencoders with a code of bits or of categories, and the networks of Shi et al. (2022)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

import scorefn as sf
from benchmarks._models import vae

from .data import PIXELS, average

Params = dict[str, Any]
Layers = list[dict[str, jax.Array]]

LEAK = 0.3


@dataclass(frozen=True)
class Network:
    """The sizes of an autoencoder.

    Attributes:
        hidden: the units of the hidden layers of the encoder, and of the decoder.
        code: the shape of a code: [bits], or [variables, categories].
    """

    hidden: tuple[int, ...]
    code: tuple[int, ...]

    def start(self, key: jax.Array) -> Params:
        """Random weights; the decoder begins with the average image. Consumes the key."""
        keys, size = jax.random.split(key), math.prod(self.code)
        decoder = layers(keys[1], size, *self.hidden, PIXELS)
        mean = np.clip(average(), 1e-3, 1 - 1e-3)
        decoder[-1]["bias"] = jnp.asarray(np.log(mean / (1 - mean)))
        return {"encoder": layers(keys[0], PIXELS, *self.hidden, size), "decoder": decoder}

    def encode(self, encoder: Layers, images: ArrayLike) -> jax.Array:
        """The logits of the posterior, [n, *code], of images [n, 784]."""
        logits = network(encoder, images - average())
        return logits.reshape(-1, *self.code)


NETWORKS: Mapping[str, Network] = {
    "linear": Network((), (200,)),
    "nonlinear": Network((200, 200), (200,)),
    "categorical": Network((200, 200), (12, 16)),
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


def posterior(logits: jax.Array) -> sf.Bernoulli | sf.OneHotCategorical:
    """The distribution of a code: bits, or one-hot rows in [variables, categories]."""
    return sf.Bernoulli(logits) if logits.ndim == 1 else sf.OneHotCategorical(logits)


def negative_bound(
    decoder: Layers, logits: jax.Array, image: ArrayLike, code: jax.Array
) -> jax.Array:
    """The f of the expectation, in nats: -log p(image, code) + log q(code).

    As in the paper, the divergence from fair bits is part of what is sampled. The posterior's
    logits are stopped here: the derivative of log q along them has mean 0 and is left out.
    """
    q = jax.lax.stop_gradient(logits)
    pixels = network(decoder, jnp.ravel(code))
    reconstruction = jnp.sum(jax.nn.softplus(pixels) - image * pixels)
    if logits.ndim == 1:
        return reconstruction + jnp.sum(code * q - jax.nn.softplus(q) + jnp.log(2.0))
    # The prior: each variable uniform over its categories.
    surplus = jax.nn.log_softmax(q) + math.log(logits.shape[1])
    return reconstruction + jnp.sum(code * surplus)
