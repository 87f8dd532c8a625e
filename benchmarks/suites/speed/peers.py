"""The same gradients by other packages, where they are installed."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import scorefn as sf
from benchmarks._models import vae as model
from benchmarks._suite import Sizes

from . import vae
from .cases import Params, library, normal, sample_keys
from .many import quadratic
from .timing import Program

PLAIN = sf.ScoreFunction(sf.ConstantBaseline(0.0))


@dataclass(frozen=True)
class Peer:
    """The library's gradient and another package's, of the same estimator.

    Attributes:
        ours: by this library.
        theirs: by the other one.
        arguments: of both.
        samples: the number of terms.
    """

    ours: Program
    theirs: Program
    arguments: tuple[Any, ...]
    samples: int


def numpyro_vae(images: int, bits: int) -> Peer:
    """The step of an autoencoder with bits, one sample for each image: TraceGraph_ELBO."""
    numpyro: Any = importlib.import_module("numpyro")
    distributions: Any = importlib.import_module("numpyro.distributions")
    infer: Any = importlib.import_module("numpyro.infer")
    data = vae.images(images)

    def coins(logits: jax.Array) -> Any:
        return distributions.Bernoulli(logits=logits).to_event(1)

    def joint(params: Params) -> None:
        with numpyro.plate("images", images):
            code = numpyro.sample("code", coins(jnp.zeros((images, bits))))
            logits = model.decode(params["decoder"], code)
            numpyro.sample("image", coins(logits), obs=data)

    def guide(params: Params) -> None:
        with numpyro.plate("images", images):
            numpyro.sample("code", coins(model.encode(params, data)))

    def theirs(params: Params, key: jax.Array) -> jax.Array:
        return infer.TraceGraph_ELBO().loss(key, {}, joint, guide, params) / images

    arguments = vae.start(bits), jax.random.key(0)
    return Peer(vae.sampled(data, bits), jax.grad(theirs), arguments, 1)


def categories(values: int, samples: int, *, gradient: bool) -> Peer:
    """Categories of 20 factors: draws, or the gradient of a quadratic by the score function."""
    distrax: Any = importlib.import_module("distrax")

    def drawn(logits: jax.Array, key: jax.Array, sample: Program) -> jax.Array:
        return jax.vmap(lambda key: sample(logits, key))(sample_keys(key, samples))

    def our_draws(logits: jax.Array, key: jax.Array) -> jax.Array:
        return drawn(logits, key, lambda logits, key: sf.Categorical(logits).sample(key))

    def their_draws(logits: jax.Array, key: jax.Array) -> jax.Array:
        return drawn(logits, key, lambda x, key: distrax.Categorical(logits=x).sample(seed=key))

    def loss(logits: jax.Array, key: jax.Array, build: Program) -> jax.Array:
        options: Any = {"num_samples": samples, "chunk_size": None}
        return sf.expectation(quadratic, build(logits), key, PLAIN, **options)

    def ours(logits: jax.Array, key: jax.Array) -> jax.Array:
        return loss(logits, key, sf.Categorical)

    def theirs(logits: jax.Array, key: jax.Array) -> jax.Array:
        return loss(logits, key, lambda logits: distrax.Categorical(logits=logits))

    arguments = jax.random.normal(jax.random.key(1), (20, values)), jax.random.key(0)
    if gradient:
        return Peer(jax.grad(ours), jax.grad(theirs), arguments, samples)
    return Peer(our_draws, their_draws, arguments, samples)


def tfp(size: int, samples: int, *, by_path: bool) -> Peer:
    """A Gaussian and a quadratic: monte_carlo.expectation, all draws from one key."""
    substrate: Any = importlib.import_module("tensorflow_probability.substrates.jax")
    problem = normal(quadratic, size)

    def theirs(params: Params, key: jax.Array) -> jax.Array:
        normals = substrate.distributions.Normal(params["mean"], jnp.exp(params["log_scale"]))
        gaussian = substrate.distributions.Independent(normals, 1)
        draws = gaussian.sample(samples, seed=key)
        draws = draws if by_path else jax.lax.stop_gradient(draws)
        return substrate.monte_carlo.expectation(
            f=jax.vmap(quadratic),
            samples=draws,
            log_prob=gaussian.log_prob,
            use_reparameterization=by_path,
        )

    estimator = sf.Pathwise() if by_path else PLAIN
    ours = library(problem, estimator, samples, "auto")
    return Peer(ours, jax.grad(theirs), (problem.params, jax.random.key(0)), samples)


def optax_jacobians(size: int, samples: int, *, by_path: bool) -> Peer:
    """A Gaussian and a quadratic: optax.monte_carlo, which optax 0.2.6 was the last to have."""
    carlo: Any = importlib.import_module("optax.monte_carlo")
    problem = normal(quadratic, size)
    estimate = carlo.pathwise_jacobians if by_path else carlo.score_function_jacobians
    builder: Any = importlib.import_module("optax").multi_normal

    def theirs(params: Params, key: jax.Array) -> list[jax.Array]:
        both = [params["mean"], params["log_scale"]]
        found = estimate(quadratic, both, builder, key, samples)
        return [jnp.mean(jacobian, axis=0) for jacobian in found]

    estimator = sf.Pathwise() if by_path else PLAIN
    ours = library(problem, estimator, samples, "auto")
    return Peer(ours, theirs, (problem.params, jax.random.key(0)), samples)


def others(sizes: Sizes) -> dict[str, tuple[str, str, Callable[[], Peer]]]:
    """The module, the name and both programs of every comparison with another package."""
    images, (small, large) = sizes["images"], sizes["jacobians"]
    found: dict[str, tuple[str, str, Callable[[], Peer]]] = {
        f"ScoreFunction, VAE step, {images} images": (
            "numpyro",
            "numpyro TraceGraph_ELBO",
            partial(numpyro_vae, images, 20),
        )
    }
    for by_path, estimator in {True: "Pathwise", False: "ScoreFunction"}.items():
        make = partial(tfp, 100, sizes["samples"], by_path=by_path)
        library = "tensorflow_probability.substrates.jax"
        found[f"{estimator}, Normal, D = 100"] = (library, "TFP monte_carlo.expectation", make)
        for size, samples in (small, large):
            make = partial(optax_jacobians, size, samples, by_path=by_path)
            name = f"{estimator}, Normal, D = {size}, as Jacobians"
            found[name] = ("optax.monte_carlo", "optax.monte_carlo", make)
    return found


def draws(sizes: Sizes) -> dict[str, tuple[str, str, Callable[[], Peer]]]:
    """Categories as this library draws them, and as another does; likewise."""
    return {
        f"{what}, Categorical, 20 x {values}": (
            "distrax",
            "distrax.Categorical",
            partial(categories, values, sizes["samples"], gradient=gradient),
        )
        for values in sizes["values"]
        for gradient, what in {False: "draws alone", True: "ScoreFunction"}.items()
    }
