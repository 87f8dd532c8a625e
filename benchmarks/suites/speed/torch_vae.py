"""The step of an autoencoder with bits by packages on PyTorch: the networks are large, or small."""

import math
from typing import Any

import jax
import numpy as np

import scorefn as sf
from benchmarks._packages import pyro as packages_pyro
from benchmarks._packages.call import imported
from benchmarks._packages.torch import torch_module

from . import vae
from .torch_training import Pair


def pyro_step(images: int, pixels: int, hidden: int, bits: int, elbo: str) -> Pair:
    """A code for each image, by the score function without a baseline; the divergence sampled.

    Theirs is the gradient of the sum over the images, ours of the mean.
    """
    torch, pyro, d = torch_module(), imported("pyro"), imported("pyro.distributions")
    data, params = vae.images(images, pixels=pixels), vae.start(bits, pixels=pixels, hidden=hidden)
    encoder, decoder = (_network(params[name]) for name in ("encoder", "decoder"))
    seen, fair = torch.tensor(np.asarray(data)), torch.zeros(images, bits)

    def model() -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("images", images):
            code = pyro.sample("code", d.Bernoulli(logits=fair).to_event(1))
            pyro.sample("image", d.Bernoulli(logits=decoder(code)).to_event(1), obs=seen)

    def guide() -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("images", images):
            pyro.sample("code", d.Bernoulli(logits=encoder(seen)).to_event(1))

    pyro.clear_param_store()
    objective = packages_pyro.elbo(elbo, nesting=1, samples=1)

    def theirs() -> Any:
        _forget(encoder, decoder)
        objective.loss_and_grads(model, guide)
        return _gradients(encoder, decoder)

    gradient, key = jax.jit(vae.sampled(data, bits)), jax.random.key(0)
    return Pair(lambda: gradient(params, key), theirs, 1)


def storchastic_step(images: int, pixels: int, hidden: int, bits: int) -> Pair:
    """A step with two codes for each image, each the baseline of the other."""
    torch, storch = torch_module(), imported("storch")
    data, params = vae.images(images, pixels=pixels), vae.start(bits, pixels=pixels, hidden=hidden)
    encoder, decoder = (_network(params[name]) for name in ("encoder", "decoder"))
    seen, softplus = torch.tensor(np.asarray(data)), torch.nn.functional.softplus
    options = {"n_samples": 2, "baseline_factory": "batch_average"}
    method = storch.method.ScoreFunction("code", **options)

    def theirs() -> Any:
        storch.reset()
        _forget(encoder, decoder)
        image = storch.denote_independent(seen, 0, "images")
        logits = encoder(image)
        code = method(torch.distributions.Bernoulli(logits=logits))
        pixel = decoder(code)
        storch.add_cost((softplus(pixel) - image * pixel).sum(-1), "cost")
        entropy = softplus(logits) - torch.sigmoid(logits) * logits
        storch.add_cost((math.log(2.0) - entropy).sum(-1), "divergence")
        storch.backward()
        return _gradients(encoder, decoder)

    by_score = sf.ScoreFunction(sf.LeaveOneOut())
    gradient, key = jax.jit(vae.library(data, by_score, 2)), jax.random.key(0)
    return Pair(lambda: gradient(params, key), theirs, 2)


def _network(layers: list[dict[str, jax.Array]]) -> Any:
    """The same weights in modules of torch."""
    torch = torch_module()
    first, second = (torch.nn.Linear(*layer["weight"].shape) for layer in layers)
    for module, layer in zip((first, second), layers, strict=True):
        with torch.no_grad():
            module.weight.copy_(torch.tensor(np.asarray(layer["weight"])).T)
            module.bias.copy_(torch.tensor(np.asarray(layer["bias"])))
    return torch.nn.Sequential(first, torch.nn.Tanh(), second)


def _forget(*networks: Any) -> None:
    for network in networks:
        network.zero_grad()


def _gradients(*networks: Any) -> list[np.ndarray]:
    return [p.grad.numpy() for network in networks for p in network.parameters()]
