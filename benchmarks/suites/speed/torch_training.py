"""A short training run on a toy: one scan by this library, a Python loop by packages on PyTorch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import distrax
import jax
import jax.numpy as jnp

import scorefn as sf
from benchmarks._packages import pyro as packages_pyro
from benchmarks._packages import storchastic as packages_storchastic
from benchmarks._packages.call import SAMPLES, imported
from benchmarks._packages.torch import start
from benchmarks._packages.toys import MOVED, TOYS

from .peers import PLAIN

RATE = 0.02
TRAINED = ("gaussian", "bernoulli", "categorical", "joint")


@dataclass(frozen=True)
class Pair:
    """One task by this library and by another package, each in one call.

    Attributes:
        ours: by this library.
        theirs: by the other one; it returns when it is done.
        samples: of one gradient.
    """

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    samples: int


def trained(toy: str, estimator: sf.Estimator, steps: int) -> Callable[[jax.Array], jax.Array]:
    """The parameters after several steps of gradient descent, compiled as one scan."""
    gradient = jax.grad(partial(_loss, toy, estimator))

    @jax.jit
    def run(key: jax.Array) -> jax.Array:
        def step(params: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
            return params - RATE * gradient(params, key), None

        return jax.lax.scan(step, jnp.array(TOYS[toy].params), jax.random.split(key, steps))[0]

    return run


def _loss(toy: str, estimator: sf.Estimator, params: jax.Array, key: jax.Array) -> jax.Array:
    if toy == "joint":

        @sf.program
        def joint(params: jax.Array) -> Any:
            a = yield sf.sample(sf.Bernoulli(params[0]), estimator, num_samples=SAMPLES)
            x = yield sf.sample(distrax.Normal(params[1] + MOVED * a, 1.0), sf.Pathwise())
            return TOYS[toy].cost((a, x))

        return joint(params)(key)
    dist: Any = {
        "gaussian": lambda: distrax.Normal(params[0], jnp.exp(params[1])),
        "bernoulli": lambda: sf.Bernoulli(params[0]),
        "categorical": lambda: sf.Categorical(params),
    }[toy]()
    return sf.expectation(TOYS[toy].cost, dist, key, estimator, num_samples=SAMPLES)


def pyro_training(toy: str, steps: int, elbo: str) -> Pair:
    """Training by pyro's SVI: the score function without a baseline, or the path."""
    names = ("torch", "pyro", "pyro.infer", "pyro.optim")
    torch, pyro, infer, optim = (imported(name) for name in names)
    model, guide = packages_pyro.programs(toy)
    objective = packages_pyro.elbo(elbo, nesting=0)

    # A compiled objective takes the parameters that were there when it was first called.
    pyro.clear_param_store()
    params = pyro.param("params", start(toy))

    def theirs() -> Any:
        with torch.no_grad():
            params.copy_(start(toy))
        svi = infer.SVI(model, guide, optim.SGD({"lr": RATE}), objective)
        for _ in range(steps):
            svi.step()
        return params.detach().numpy()

    return _pair(toy, steps, PLAIN, theirs)


def storchastic_training(toy: str, steps: int) -> Pair:
    """Training by storchastic: the score function with the mean of the others, or the path."""
    torch, storch = imported("torch"), imported("storch")
    by_path = partial(packages_storchastic.reparameterized, SAMPLES)
    by_score = partial(packages_storchastic.scored, "a", baseline="batch_average")
    costs = packages_storchastic.costs(toy, by_path if toy == "gaussian" else by_score)

    def theirs() -> Any:
        storch.reset()
        params = start(toy)
        optimizer = torch.optim.SGD([params], lr=RATE)
        for _ in range(steps):
            optimizer.zero_grad()
            storch.add_cost(costs(params), "cost")
            storch.backward()
            optimizer.step()
        return params.detach().numpy()

    return _pair(toy, steps, sf.ScoreFunction(), theirs)


def _pair(toy: str, steps: int, score: sf.Estimator, theirs: Callable[[], Any]) -> Pair:
    run = trained(toy, sf.Pathwise() if toy == "gaussian" else score, steps)
    return Pair(partial(run, jax.random.key(0)), theirs, SAMPLES)
