"""The gradient of each toy as a user of each package would write it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import scorefn as sf
from benchmarks._packages import pyro, storchastic
from benchmarks._packages.call import SAMPLES, TFP, Call, Gradient, imported
from benchmarks._packages.toys import MEANS, MOVED, TOYS


def _distribution(toy: str, d: Any, params: jax.Array, **options: Any) -> Any:
    """The mixture by distrax or TFP, which share these names; the joint distribution is TFP's."""
    if toy == "gaussian":
        return d.Normal(params[0], jnp.exp(params[1]))
    if toy == "bernoulli":
        return d.Bernoulli(logits=params[0])
    if toy == "categorical":
        return d.Categorical(logits=params)
    if toy == "mixture":
        which = d.Categorical(logits=jnp.stack([jnp.zeros(()), params[0]]))
        return d.MixtureSameFamily(which, d.Normal(jnp.array(MEANS), jnp.ones(2)), **options)

    def moved(a: jax.Array) -> Any:
        return d.Normal(params[1] + MOVED * a, 1.0)

    coin = d.Bernoulli(logits=params[0], dtype=jnp.float32)
    return d.JointDistributionSequential([coin, moved])


def _ours(toy: str, estimator: sf.Estimator, *, implicit: bool = False) -> Gradient:
    def loss(params: jax.Array, key: jax.Array) -> jax.Array:
        d = imported(TFP if toy == "joint" else "distrax")
        dist = _distribution(toy, d.distributions if toy == "joint" else d, params)
        if implicit:
            logits = jnp.stack([jnp.zeros(()), params[0]])
            dist = sf.NormalMixture(logits, jnp.array(MEANS), jnp.ones(2))
        return sf.expectation(TOYS[toy].cost, dist, key, estimator, num_samples=SAMPLES)

    return jax.grad(loss)


def _program() -> Gradient:
    """The joint, each draw by the estimator that fits it."""
    distrax = imported("distrax")

    @sf.program
    def joint(params: jax.Array) -> Any:
        coin = distrax.Bernoulli(logits=params[0])
        a = yield sf.sample(coin, sf.ScoreFunction(), num_samples=SAMPLES)
        x = yield sf.sample(distrax.Normal(params[1] + MOVED * a, 1.0), sf.Pathwise())
        return x**2

    return jax.grad(lambda params, key: joint(params)(key))


def _by_sampling(toy: str, name: str, **options: Any) -> Gradient:
    """The mean of f over draws, differentiated as it stands."""
    d = imported(name)
    d = d if name == "distrax" else d.distributions

    def loss(params: jax.Array, key: jax.Array) -> jax.Array:
        dist = _distribution(toy, d, params, **options)
        draws = dist.sample(seed=key, sample_shape=(SAMPLES,))
        return jnp.mean(jax.vmap(TOYS[toy].cost)(draws))

    return jax.grad(loss)


def _sample_and_log_prob() -> Gradient:
    """The score function with both from one call: its log-density moves with the draw."""
    distrax = imported("distrax")

    def loss(params: jax.Array, key: jax.Array) -> jax.Array:
        dist = distrax.Normal(params[0], jnp.exp(params[1]))
        draws, log_probs = dist.sample_and_log_prob(seed=key, sample_shape=(SAMPLES,))
        return jnp.mean(jax.lax.stop_gradient(TOYS["gaussian"].cost(draws)) * log_probs)

    return jax.grad(loss)


def _tfp(toy: str, *, by_path: bool, **options: Any) -> Gradient:
    tfp = imported(TFP)

    def loss(params: jax.Array, key: jax.Array) -> jax.Array:
        dist = _distribution(toy, tfp.distributions, params, **options)
        return tfp.monte_carlo.expectation(
            f=jax.vmap(TOYS[toy].cost),
            samples=dist.sample(SAMPLES, seed=key),
            log_prob=dist.log_prob,
            use_reparameterization=by_path,
        )

    return jax.grad(loss)


def _numpyro(toy: str, elbo: str) -> Gradient:
    """The toys in numpyro; the model draws like the guide, so the ELBO is E[-f]."""
    numpyro, d, infer = (imported(f"numpyro{end}") for end in ("", ".distributions", ".infer"))

    def draw(params: jax.Array, discrete: jax.Array) -> Any:
        if toy == "joint":
            a = numpyro.sample("a", d.Bernoulli(logits=discrete[0]))
            return a, numpyro.sample("x", d.Normal(params[1] + MOVED * a, 1.0))
        chosen = params if toy == "gaussian" else discrete
        return numpyro.sample("x", _numpyro_distribution(toy, d, chosen))

    def model(params: jax.Array) -> None:
        # TraceGraph_ELBO leaves the score of the guide's discrete draws out, as its mean is 0: that
        # of the model's must not come back as noise. Elsewhere the two cancel.
        left_out = elbo == "TraceGraph_ELBO"
        discrete = jax.lax.stop_gradient(params) if left_out else params
        numpyro.factor("cost", -TOYS[toy].cost(draw(params, discrete)))

    def guide(params: jax.Array) -> None:
        draw(params, params)

    def loss(params: jax.Array, key: jax.Array) -> jax.Array:
        objective = getattr(infer, elbo)(num_particles=SAMPLES)
        return objective.loss(key, {}, model, guide, params)

    return jax.grad(loss)


def _numpyro_distribution(toy: str, d: Any, params: jax.Array) -> Any:
    if toy == "mixture":
        which = d.Categorical(logits=jnp.stack([jnp.zeros(()), params[0]]))
        return d.MixtureSameFamily(which, d.Normal(jnp.array(MEANS), jnp.ones(2)))
    return _distribution(toy, d, params)


def _optax(name: str) -> Gradient:
    estimate = getattr(imported("optax.monte_carlo"), name)
    builder = imported("optax").multi_normal

    def gradient(params: jax.Array, key: jax.Array) -> jax.Array:
        def f(x: jax.Array) -> jax.Array:
            return jnp.sum(TOYS["gaussian"].cost(x))

        found = estimate(f, [params[:1], params[1:]], builder, key, SAMPLES)
        return jnp.concatenate([jnp.mean(jacobian, axis=0) for jacobian in found])

    return gradient


def _rlax() -> Gradient:
    rlax = imported("rlax")

    def loss(params: jax.Array, key: jax.Array) -> jax.Array:
        actions = jax.random.categorical(key, params, shape=(SAMPLES,))
        logits = jnp.broadcast_to(params, (SAMPLES, params.size))
        advantages = -TOYS["categorical"].cost(actions)
        return rlax.policy_gradient_loss(logits, actions, advantages, jnp.ones(SAMPLES))

    return jax.grad(loss)


def _scorefn() -> list[Call]:
    """Every toy by both; distributions of distrax and TFP serve as they are."""
    named = partial(Call, package="scorefn", module="scorefn")
    found = []
    for toy in TOYS:
        for estimator in (sf.ScoreFunction(), sf.Pathwise()):
            make = partial(_ours, toy, estimator)
            found.append(named(toy, call=type(estimator).__name__, make=make))
    make = partial(_ours, "mixture", sf.Pathwise(), implicit=True)
    found.append(named("mixture", call="Pathwise, NormalMixture", make=make))
    call = "program, ScoreFunction then Pathwise"
    return [*found, named("joint", call=call, make=_program)]


def _others() -> list[Call]:
    found = []
    for toy in TOYS:
        right = toy == "gaussian"
        for package, name in (("distrax", "distrax"), ("tfp", TFP)):
            # What there is of joints in distrax are independent parts.
            if (toy, package) != ("joint", "distrax"):
                make = partial(_by_sampling, toy, name)
                found.append(Call(toy, package, name, "jax.grad of sample", make, unbiased=right))
        make = partial(_tfp, toy, by_path=False)
        found.append(Call(toy, "tfp", TFP, "monte_carlo.expectation, score", make))
        for elbo in ("TraceGraph_ELBO", "Trace_ELBO"):
            make = partial(_numpyro, toy, elbo)
            right = toy == "gaussian" or elbo == "TraceGraph_ELBO"
            found.append(Call(toy, "numpyro", "numpyro", elbo, make, unbiased=right))
    by_path = partial(_tfp, "gaussian", by_path=True)
    found.append(Call("gaussian", "tfp", TFP, "monte_carlo.expectation, path", by_path))
    make = partial(_by_sampling, "mixture", TFP, reparameterize=True)
    found.append(Call("mixture", "tfp", TFP, "sample, reparameterize=True", make))
    name = "sample_and_log_prob"
    found.append(Call("gaussian", "distrax", "distrax", name, _sample_and_log_prob, unbiased=False))
    for name in ("score_function", "pathwise", "measure_valued"):
        make = partial(_optax, f"{name}_jacobians")
        found.append(Call("gaussian", "optax", "optax.monte_carlo", name, make))
    found.append(Call("categorical", "rlax", "rlax", "policy_gradient_loss", _rlax))
    return found


# By the name of the step and of the time; those of a toy together.
CALLS: Mapping[str, Call] = {
    f"{call.toy}: {call.package} {call.call}": call
    for call in sorted(
        [*_scorefn(), *_others(), *pyro.calls(), *storchastic.calls()],
        key=lambda call: list(TOYS).index(call.toy),
    )
}
