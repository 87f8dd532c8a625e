"""A score that a density does not have, and a support that moves, raise for whoever needs them."""

from collections.abc import Callable
from typing import Any

import distrax
import flowjax.distributions as fjd
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
import tensorflow_probability.substrates.jax as tfp
from support.families import FAMILIES, Family

import scorefn as sf
from scorefn import vi
from scorefn.estimators import _lost_elements

tfd = tfp.distributions

# TFP's own samplers warn: of float64 that is not there, of arrays taken for integers.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

KEY = jax.random.key(0)
Build = Callable[[jax.Array, jax.Array], Any]


def cost(x: Any) -> jax.Array:
    return sum(jnp.sum(jnp.square(leaf - 2.0)) for leaf in jax.tree.leaves(x))


def normal(mean: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sum(-0.5 * (x - mean) ** 2)


# -------------------------------------------------- a part of the draw along which no score exists


class Forgetful:
    """A class that is no pytree, and whose density forgets the scale."""

    def __init__(self, scale: jax.Array, loc: jax.Array) -> None:
        self.scale, self.loc = scale, loc

    def log_prob(self, x: jax.Array) -> jax.Array:
        return normal(self.loc, x)

    def sample(self, key: jax.Array) -> jax.Array:
        return self.loc + self.scale * jax.random.normal(key)


class Half(distrax.Normal):
    """A density that stops the scale: it reaches log_prob by value."""

    def log_prob(self, value: jax.Array) -> jax.Array:
        return distrax.Normal(self.loc, jax.lax.stop_gradient(self.scale)).log_prob(value)


def forgetful(params: Any, key: jax.Array) -> jax.Array:
    return params[0] + params[1] * jax.random.normal(key)


def walked(params: Any, key: jax.Array) -> jax.Array:
    def step(x: jax.Array, key: jax.Array) -> Any:
        x = x + params[1] * jax.random.normal(key)
        return x, x + params[0]

    return jax.lax.scan(step, jnp.zeros(()), jax.random.split(key, 3))[1]


def chosen(params: Any, key: jax.Array) -> jax.Array:
    noise = jax.random.normal(key)
    return params[0] + jax.lax.cond(params[1] > 1, lambda: noise, lambda: 2 * noise)


def record(sample: Any, log_prob: Any = lambda p, x: normal(p[0], x)) -> Build:
    return lambda w, m: sf.Distribution(log_prob, sample, (m, w))


# From (w, m): the draw depends on w, the density on m alone.
BLIND: dict[str, Build] = {
    "record": record(forgetful),
    "closures": lambda w, m: sf.Distribution(
        lambda _, x: normal(m, x), lambda _, key: forgetful((m, w), key), None
    ),
    "plain class": Forgetful,
    "density that stops": lambda w, m: Half(m, w),
    "density that compares": record(
        forgetful, lambda p, x: normal(p[0], x) + jnp.where(p[1] > 0, 0.0, 1.0)
    ),
    "the scale in the normalizer alone": record(
        forgetful, lambda p, x: normal(p[0], x) - jnp.log(p[1])
    ),
    "the scale times 0": record(forgetful, lambda p, x: normal(p[0], x) + 0.0 * p[1] * x),
    "a support that no comparison tells": lambda w, _: sf.Distribution(
        lambda w, _: -jnp.log(w), lambda w, key: w * jax.random.uniform(key), w
    ),
    "a shift of TFP": lambda w, m: tfd.TransformedDistribution(
        tfd.Exponential(jnp.exp(m)), tfp.bijectors.Shift(w)
    ),
    "scanned": record(walked),
    "chosen": record(chosen),
    "TFP joint": lambda w, m: tfd.JointDistributionSequential(
        [tfd.Deterministic(w), tfd.Normal(m, 1.0)]
    ),
    "TFP joint of closures": lambda w, m: tfd.JointDistributionSequential(
        [lambda: tfd.Deterministic(w), lambda d: tfd.Normal(m + 0 * d, 1.0)]
    ),
    "distrax joint": lambda w, m: distrax.Joint(
        {"a": distrax.Deterministic(w), "b": distrax.Normal(m, 1.0)}
    ),
    "beside a copy": lambda w, m: tfd.JointDistributionSequential(
        [tfd.Deterministic(w), distrax_mixture(m)]
    ),
    "numpyro delta": lambda w, _: npd.Delta(w),
    "a parameter in the draw": lambda w, m: sf.Distribution(
        lambda p, x: normal(p[0] * p[1], x["x"]),
        lambda p, key: {"x": p[0] * p[1] + jax.random.normal(key), "w": p[1]},
        (m, w),
    ),
    "one array in both parts": lambda w, m: tfd.JointDistributionSequential(
        [tfd.Deterministic(w), tfd.Normal(m * w, 1.0)]
    ),
}


def distrax_mixture(m: jax.Array) -> Any:
    return tfd.MixtureSameFamily(
        tfd.Categorical(logits=jnp.stack([m, 0.0])), tfd.Normal(jnp.array([-1.0, 1.0]), 1.0)
    )


def expected(estimator: sf.Estimator, **options: Any) -> Callable[..., jax.Array]:
    options = {"num_samples": 4} | options
    return lambda q, _: sf.expectation(cost, q, KEY, estimator, **options)


def weighted(estimator: Callable[[Any], sf.Estimator]) -> Callable[..., jax.Array]:
    return lambda q, fixed: sf.expectation(cost, q, KEY, estimator(fixed), num_samples=4)


def program(q: Any, _: Any) -> jax.Array:
    @sf.program
    def model() -> Any:
        x = yield sf.sample(q, sf.ScoreFunction(sf.ConstantBaseline(0.0)))
        return cost(x)

    return model()(KEY)


def rollout(q: Any, _: Any) -> jax.Array:
    def step(carry: Any, _: Any) -> Any:
        x = yield sf.sample(q, sf.ScoreFunction(sf.ConstantBaseline(0.0)))
        return carry, cost(x)

    return jnp.sum(sf.rollout(step, jnp.zeros(()), length=3)(KEY)[1])


# From a distribution, and one like it whose parameters are numbers.
LOSSES: dict[str, Callable[[Any, Any], jax.Array]] = {
    "ScoreFunction": expected(sf.ScoreFunction()),
    "no baseline": expected(sf.ScoreFunction(sf.ConstantBaseline(0.0))),
    "chunks": expected(sf.ScoreFunction(), num_samples=5, chunk_size=2),
    "ImportanceWeighted": weighted(sf.ImportanceWeighted),
    "SelfNormalized": weighted(sf.SelfNormalized),
    "LAX": expected(sf.LAX(lambda p, x: p * cost(x), 1.0)),
    "vimco": lambda q, _: vi.vimco(lambda x: -cost(x), q, KEY, num_samples=3),
    "program": program,
    "rollout": rollout,
}


def pairs(rows: Any, few: tuple[str, ...]) -> Any:
    """Each row with the score function, and a few rows with everything else."""
    others = [(name, loss) for name in few for loss in LOSSES if loss != "ScoreFunction"]
    return pytest.mark.parametrize(
        ("name", "loss"), [*((name, "ScoreFunction") for name in rows), *others]
    )


W, M = jnp.array(0.7), jnp.array(0.3)
REFUSED = "(ScoreFunction|ImportanceWeighted|SelfNormalized|LAX|vimco) cannot differentiate"


def objective(loss: str, build: Build) -> Callable[[jax.Array, jax.Array], jax.Array]:
    return lambda w, m: LOSSES[loss](build(w, m), build(W, M))


def traces(fn: Callable[..., Any], *args: Any) -> None:
    """It traces, which is when the guard speaks; nothing is compiled or computed."""
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(jax.eval_shape(fn, *args)))


def assert_refused(fn: Callable[..., Any], *args: Any, match: str = REFUSED) -> None:
    with pytest.raises(TypeError, match=match):
        jax.eval_shape(fn, *args)


@pairs(BLIND, ("record", "plain class", "TFP joint"))
def test_what_the_density_does_not_know_is_refused(name: str, loss: str) -> None:
    fn = objective(loss, BLIND[name])
    for argnums in (0, (0, 1)):
        assert_refused(jax.grad(fn, argnums), W, M)
    assert_refused(jax.grad(jax.jit(fn)), W, M)
    assert_refused(jax.grad(lambda both: fn(both[0], both[1])), jnp.stack([W, M]))
    traces(fn, W, M)
    traces(jax.grad(lambda w: fn(jax.lax.stop_gradient(w), M)), W)
    traces(jax.grad(fn, 1), W, M)


TRANSFORMED = {
    "grad": jax.grad,
    "jit of grad": lambda fn: jax.jit(jax.grad(fn)),
    "jvp": lambda fn: lambda w: jax.jvp(fn, (w,), (jnp.ones_like(w),))[1],
    "hessian": jax.hessian,
    "vmap of grad": lambda fn: lambda w: jax.vmap(jax.grad(fn))(jnp.stack([w, w])),
    "vmap of grad of jit": lambda fn: lambda w: jax.vmap(jax.grad(jax.jit(fn)))(jnp.stack([w, w])),
    "grad of vmap": lambda fn: jax.grad(lambda w: jnp.sum(jax.vmap(fn)(jnp.stack([w, w])))),
    "grad of scan": lambda fn: jax.grad(
        lambda w: jax.lax.scan(lambda c, _: (c + fn(w), None), 0.0, length=2)[0]
    ),
    "grad in scan": lambda fn: (
        lambda w: jax.lax.scan(lambda w, _: (w - jax.grad(fn)(w), None), w, length=2)[0]
    ),
    "grad of checkpoint": lambda fn: jax.grad(jax.checkpoint(fn)),
    "grad of cond": lambda fn: jax.grad(lambda w: jax.lax.cond(w < 9, fn, lambda w: w, w)),
}
every_transformation = pytest.mark.parametrize("transformation", list(TRANSFORMED))


@every_transformation
@pytest.mark.parametrize("name", ["record", "closures", "TFP joint", "two copies"])
def test_no_transformation_loses_the_error(name: str, transformation: str) -> None:
    transform = TRANSFORMED[transformation]
    if name == "two copies":
        probs = jnp.array([0.2, 0.8])

        def fn(w: jax.Array) -> jax.Array:
            return LOSSES["ScoreFunction"](two_copies(probs * w, jnp.log(probs)), None)
    else:

        def fn(w: jax.Array) -> jax.Array:
            return objective("ScoreFunction", BLIND[name])(w, M)

    with pytest.raises(TypeError, match="ScoreFunction cannot differentiate.*silently be 0"):
        transform(fn)(W)


def test_the_error_names_the_parameter() -> None:
    for build, name in [
        (BLIND["plain class"], r"scale \(float32\[\]\)"),
        (BLIND["density that stops"], r"scale \(float32\[\]\)"),
        (BLIND["record"], r"\[1\] \(float32\[\]\)"),
        (BLIND["TFP joint"], r"loc \(float32\[\]\): a part of the draw is computed from it"),
    ]:
        assert_refused(jax.grad(objective("ScoreFunction", build)), W, M, match=name)


def test_a_mask_that_hides_the_draws_hides_their_score() -> None:
    def fn(w: jax.Array, m: jax.Array) -> jax.Array:
        return LOSSES["ScoreFunction"](npd.Normal(m, w).mask(mask=False), None)

    for argnum in (0, 1):
        assert_refused(jax.grad(fn, argnum), W, M)


# ---------------------------------------------------------------------------------- no false alarms


def two_copies(probs: jax.Array, logits: jax.Array) -> sf.Distribution:
    """Samples by one copy of its parameter, and has another for the density."""
    return sf.Distribution(
        lambda p, x: p["logits"][x],
        lambda p, key: jax.random.categorical(key, jnp.log(p["probs"])),
        {"probs": probs, "logits": logits},
    )


def copied(logits: jax.Array) -> sf.Distribution:
    return two_copies(jax.nn.softmax(logits), jax.nn.log_softmax(logits))


SOUND: dict[str, Callable[[jax.Array], Any]] = {
    "two copies": copied,
    "two copies in a joint": lambda t: tfd.JointDistributionSequential(
        [tfd.Normal(t[0], 1.0), tfd.Categorical(probs=jax.nn.softmax(t))]
    ),
    "a chain of copies": lambda t: distrax.Joint(
        [
            distrax.MixtureSameFamily(
                distrax.Categorical(logits=t), distrax.Normal(jnp.arange(3.0), jnp.ones(3))
            )
            for _ in range(2)
        ]
    ),
    "an unused leaf": lambda t: sf.Distribution(
        lambda p, x: normal(p["m"], x),
        lambda p, key: p["m"] + jax.random.normal(key),
        {"m": t[0], "unused": t[1:]},
    ),
    "a cache for the density": lambda t: sf.Distribution(
        lambda p, x: p["logits"][x] - p["log_normalizer"],
        lambda p, key: jax.random.categorical(key, p["logits"]),
        {"logits": t, "log_normalizer": jax.nn.logsumexp(t)},
    ),
    "data": lambda t: sf.Distribution(
        lambda _, x: jax.nn.log_softmax(t)[x[0]],
        lambda p, key: (jax.random.categorical(key, t), p["n"], p["y"]),
        {"n": jnp.arange(3), "y": jnp.ones(2)},
    ),
    "what follows from a draw": lambda t: sf.Distribution(
        lambda p, x: normal(p, x[0]),
        lambda p, key: (lambda z: (z, z**2))(p + jax.random.normal(key)),
        t[0],
    ),
    "a vector used as a whole": lambda t: sf.Distribution(
        lambda p, x: jnp.sum(jax.scipy.stats.norm.logpdf(x, p[:2], jnp.exp(p[2:]))),
        lambda p, key: p[:2] + jnp.exp(p[2:]) * jax.random.normal(key, (2,)),
        t,
    ),
    "StudentT keeps a chi2": lambda t: npd.StudentT(jnp.exp(t[0]) + 2, t[1], jnp.exp(t[2])),
    "StudentT inside": lambda t: npd.StudentT(jnp.exp(t) + 2, 0.0, 1.0).to_event(1),
    "flow": lambda t: distrax.Transformed(
        distrax.Normal(0.0, 1.0), distrax.Block(distrax.ScalarAffine(t[0], jnp.exp(t[1])), 0)
    ),
    "flowjax": lambda t: fjd.StudentT(jnp.exp(t[0]) + 2, t[1], jnp.exp(t[2])),
}
LOGITS = jnp.array([0.3, -0.2, 0.5])


@pairs(SOUND, ("two copies",))
def test_what_has_a_score_passes(name: str, loss: str) -> None:
    if loss == "LAX":
        pytest.skip("LAX is for continuous draws")
    build = SOUND[name]
    traces(jax.grad(lambda t: LOSSES[loss](build(t), build(LOGITS))), LOGITS)
    traces(jax.grad(jax.jit(lambda t: LOSSES[loss](build(t), build(LOGITS)))), LOGITS)


def test_two_copies_have_the_gradient_of_one() -> None:
    def loss(build: Any, logits: jax.Array) -> jax.Array:
        values = jnp.array([1.0, 3.0, -2.0])
        estimator = sf.ScoreFunction()
        return sf.expectation(lambda x: values[x], build(logits), KEY, estimator, num_samples=8)

    one = lambda t: two_copies(jax.lax.stop_gradient(jax.nn.softmax(t)), jax.nn.log_softmax(t))  # noqa: E731
    gradients = [jax.jit(jax.grad(loss, 1), static_argnums=0)(b, LOGITS) for b in (copied, one)]
    np.testing.assert_array_equal(*gradients)
    assert np.all(gradients[0] != 0)


def test_a_sampling_copy_alone_raises() -> None:
    def loss(probs: jax.Array) -> jax.Array:
        return LOSSES["ScoreFunction"](two_copies(probs, jnp.log(probs + 0.0)), None)

    fixed = jnp.array([0.2, 0.8])
    traces(jax.grad(loss), fixed)
    assert_refused(
        jax.grad(lambda p: LOSSES["ScoreFunction"](two_copies(p, jnp.log(fixed)), None)),
        fixed,
        match=r"\['probs'\] \(float32\[2\]\): the sampler depends on it and log_prob does not",
    )


def test_a_density_without_a_sampler_of_its_own_may_borrow_that_of_the_proposal() -> None:
    def loss(mean: jax.Array, scale: jax.Array) -> jax.Array:
        q = distrax.Normal(0.0, scale)
        p = sf.Distribution(normal, lambda _, key: q.sample(seed=key), mean)
        return sf.expectation(abs, p, KEY, sf.SelfNormalized(q), num_samples=4)

    traces(jax.grad(loss, (0, 1)), M, W)


# ------------------------------------------------------------------------------ supports that move


def where_shifted(p: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.where(x > p, p - x, -jnp.inf)


def shifted(log_prob: Any) -> Callable[[jax.Array], Any]:
    return lambda t: sf.Distribution(log_prob, lambda p, key: p + jax.random.exponential(key), t)


def stretched(log_prob: Any) -> Callable[[jax.Array], Any]:
    return lambda t: sf.Distribution(log_prob, lambda p, key: p * jax.random.uniform(key), t)


MOVING: dict[str, Callable[[jax.Array], Any]] = {
    "distrax.Uniform": lambda t: distrax.Uniform(0.0, t),
    "distrax.Uniform inside": lambda t: distrax.Independent(distrax.Uniform(-t * jnp.ones(2), 3.0)),
    "distrax.Transformed": lambda t: distrax.Transformed(
        distrax.Uniform(0.0, 1.0), distrax.ScalarAffine(0.0, t)
    ),
    "tfd.Pareto": lambda t: tfd.Pareto(6.0, t),
    "tfd.TruncatedNormal": lambda t: tfd.TruncatedNormal(0.0, 1.0, -1.0, t),
    "tfd.GeneralizedPareto": lambda t: tfd.GeneralizedPareto(t, 1.0, 0.1),
    "tfd.PERT": lambda t: tfd.PERT(0.0, 0.5, 1.0 + t),
    "tfd joint": lambda t: tfd.JointDistributionSequential(
        [tfd.Normal(t, 1.0), lambda _: tfd.Uniform(0.0, t)]
    ),
    "numpyro.Pareto": lambda t: npd.Pareto(t, 6.0),
    "numpyro.TruncatedNormal": lambda t: npd.TruncatedNormal(0.0, 1.0, high=t),
    "numpyro.LogUniform": lambda t: npd.LogUniform(1.0, 2.0 + t),
    "numpyro.Levy": lambda t: npd.Levy(t, 1.0),
    "numpyro, an affine map": lambda t: npd.TransformedDistribution(
        npd.Uniform(0.0, 1.0), npd.transforms.AffineTransform(0.0, t)
    ),
    "numpyro, a shift": lambda t: npd.TransformedDistribution(
        npd.Exponential(1.0), npd.transforms.AffineTransform(t, 1.0)
    ).to_event(),
    "numpyro.Uniform inside": lambda t: npd.Uniform(-t, jnp.ones(2)).to_event(1).mask(mask=True),
    "flowjax.Uniform": lambda t: fjd.Uniform(0.0, t),
    "own": shifted(where_shifted),
    "own, jitted": shifted(jax.jit(where_shifted)),
    "own, closed over": lambda t: sf.Distribution(
        lambda _, x: where_shifted(t, x), lambda _, key: t + jax.random.exponential(key), None
    ),
    "own, by a difference": shifted(lambda p, x: jnp.where((x - p) / 2 >= 0, p - x, -jnp.inf)),
    "own, by SciPy": shifted(lambda p, x: jax.scipy.stats.expon.logpdf(x, p)),
    "own, by jnp.select": stretched(
        lambda p, x: jnp.select([x < 0, x > p], [-jnp.inf, -jnp.inf], -jnp.log(p))
    ),
    "own, by a branch": shifted(lambda p, x: jax.lax.cond(x > p, lambda: p - x, lambda: -jnp.inf)),
    "own, a large negative number": shifted(lambda p, x: jnp.where(x < p, -1e30, p - x)),
    "own, a quotient": stretched(lambda p, x: jnp.where(x / p < 1, -jnp.log(p), -jnp.inf)),
    "own, the logarithm of 0": stretched(lambda p, x: jnp.log(jnp.where(x < p, 1 / p, 0.0))),
    "own, an indicator": stretched(lambda p, x: jnp.log((x < p) * (x > 0) / p)),
    "own, two sides": stretched(lambda p, x: jnp.where((x > 0) & (x < p), -jnp.log(p), -jnp.inf)),
    "own, a sign": stretched(lambda p, x: jnp.log(0.5 * (1 + jnp.sign(p - x)) / p)),
    "own, log1p of a sign": stretched(lambda p, x: jnp.log1p(jnp.sign(p - x)) - jnp.log(2 * p)),
    "own, floor": stretched(lambda p, x: jnp.log(1 - jnp.floor(x / p)) - jnp.log(p)),
    "own, ceil": stretched(lambda p, x: jnp.log((jnp.ceil(x / p) == 1) / p)),
    "own, rounded": stretched(lambda p, x: jnp.log(jnp.maximum(1 - jnp.round(x / p - 0.5), 0) / p)),
    "own, heaviside": stretched(lambda p, x: jnp.log(jnp.heaviside(p - x, 0.0)) - jnp.log(p)),
    "own, a clipped sign": stretched(lambda p, x: jnp.log(jnp.clip(jnp.sign(p - x), 0.0, 1.0) / p)),
    "own, the power of a sign": stretched(
        lambda p, x: jnp.where((1 + jnp.sign(p - x)) ** 2 > 1, -jnp.log(p), -jnp.inf)
    ),
    "own, a large penalty": stretched(lambda p, x: -jnp.log(p) - 1e30 * (x > p)),
    "own, an infinite penalty": stretched(
        lambda p, x: -jnp.log(p) - jnp.where(x > p, jnp.inf, 0.0)
    ),
    "own, a table": stretched(
        lambda p, x: jnp.array([-jnp.inf, 0.0])[(x < p).astype(int)] - jnp.log(p)
    ),
    "own, a sum of two": stretched(lambda p, x: jnp.log(((x > 0) * 1.0 - (x > p) * 1.0) / p)),
    "own, a switch": stretched(
        lambda p, x: jax.lax.switch((x < p).astype(int), [lambda: -jnp.inf, lambda: -jnp.log(p)])
    ),
    "own, a ball": lambda t: sf.Distribution(
        lambda p, x: jnp.where(jnp.sum(x**2) < p**2, -2 * jnp.log(p), -jnp.inf),
        lambda p, key: p * jax.random.ball(key, 2),
        t,
    ),
    "own, around a centre": lambda t: sf.Distribution(
        lambda p, x: jnp.where(jnp.abs(x - p) < 0.5, 0.0, -jnp.inf),
        lambda p, key: p + jax.random.uniform(key, minval=-0.5, maxval=0.5),
        t,
    ),
}
STILL: dict[str, Callable[[jax.Array], Any]] = {
    "rate": lambda t: sf.Distribution(
        lambda p, x: jnp.where(x >= 0, jnp.log(p) - p * x, -jnp.inf),
        lambda p, key: jax.random.exponential(key) / p,
        t,
    ),
    "scaled before it is compared": lambda t: sf.Distribution(
        lambda p, x: jnp.where(x / p >= 0, -x / p - jnp.log(p), -jnp.inf),
        lambda p, key: jax.random.exponential(key) * p,
        t,
    ),
    "SciPy": lambda t: sf.Distribution(
        lambda p, x: jax.scipy.stats.gamma.logpdf(x, p),
        lambda p, key: jax.random.gamma(key, p),
        t,
    ),
    "a valid parameter": lambda t: sf.Distribution(
        lambda p, x: jnp.where((x >= 0) & (p > 0), jnp.log(p) - p * x, -jnp.inf),
        lambda p, key: jax.random.exponential(key) / p,
        t,
    ),
    "a kink": lambda t: sf.Distribution(
        lambda p, x: jnp.where(x > p, p - x, 2 * (x - p)),
        lambda p, key: p + jax.random.laplace(key),
        t,
    ),
    "a sign of the draw": lambda t: sf.Distribution(
        lambda p, x: jnp.log(1.5 + 0.5 * jnp.sign(x)) - 0.5 * (x - p) ** 2,
        lambda p, key: p + jax.random.normal(key),
        t,
    ),
    "a sign in a smooth density": lambda t: sf.Distribution(
        lambda p, x: -jnp.sign(x - p) * (x - p) - jnp.log(2.0),
        lambda p, key: p + jax.random.laplace(key),
        t,
    ),
    "a piecewise density": lambda t: sf.Distribution(
        lambda p, x: jnp.log(jnp.where(x > p, jnp.exp(p - x), jnp.exp(x - p)) / 2),
        lambda p, key: p + jax.random.laplace(key),
        t,
    ),
    "a maximum by a selection": lambda t: sf.Distribution(
        lambda p, x: jnp.where(p <= x, x, p) - jnp.log1p(p / jnp.where(p <= x, x, p)),
        lambda p, key: p + jax.random.normal(key),
        t,
    ),
    "a rounded draw": lambda t: sf.Distribution(
        lambda p, x: jnp.log(jax.nn.sigmoid(jnp.floor(x) - p) + 1e-3),
        lambda p, key: jnp.floor(p + jax.random.logistic(key)),
        t,
    ),
    "a safe logarithm": lambda t: sf.Distribution(
        lambda p, x: jax.scipy.special.xlogy(x, p) - p,
        lambda p, key: jax.random.poisson(key, p).astype(jnp.float32),
        t,
    ),
    "numpyro, a scale": lambda t: npd.TransformedDistribution(
        npd.Exponential(1.0), npd.transforms.AffineTransform(0.0, t)
    ),
    "numpyro, all real numbers": lambda t: npd.TransformedDistribution(
        npd.Normal(0.0, 1.0), npd.transforms.AffineTransform(t, t)
    ),
    "a map of a fixed interval": lambda t: tfd.Kumaraswamy(t, 2.0),
    "a power of a scaled draw": lambda t: tfd.Weibull(t, t),
    "a spline of a fixed interval": lambda t: distrax.Transformed(
        distrax.Uniform(0.0, 1.0),
        distrax.RationalQuadraticSpline(t * jnp.arange(10.0) / 10, 0.0, 1.0),
    ),
    "a mask of logits": lambda t: sf.Categorical(jnp.where(jnp.arange(3) < 2, t, -jnp.inf)),
}


@pairs(MOVING, ("distrax.Uniform", "numpyro.Pareto", "own"))
def test_a_support_that_moves_is_refused(name: str, loss: str) -> None:
    fn = objective(loss, lambda t, _: MOVING[name](t))
    refused = REFUSED + ".*(the support of the distribution depends on it|the same for all draws)"
    assert_refused(jax.grad(fn), W, M, match=refused)
    traces(fn, W, M)
    traces(jax.grad(lambda w: fn(jax.lax.stop_gradient(w), M)), W)


@pytest.mark.parametrize("name", list(STILL))
def test_a_support_that_stands_still_passes(name: str) -> None:
    fn = objective("ScoreFunction", lambda t, _: STILL[name](t))
    traces(jax.grad(fn), W, M)
    traces(jax.grad(jax.jit(fn)), W, M)


@every_transformation
@pytest.mark.parametrize("name", ["numpyro.Levy", "distrax.Uniform", "own, closed over"])
def test_no_transformation_loses_the_error_of_a_support(name: str, transformation: str) -> None:
    fn = objective("ScoreFunction", lambda t, _: MOVING[name](t))
    with pytest.raises(TypeError, match="support of the distribution depends"):
        TRANSFORMED[transformation](lambda w: fn(w, M))(W)


# ----------------------------------------------------------------------------- all families


# log_prob of a mask is 0, whatever is drawn; a vector without noise has no density.
RIGHTLY_REFUSED = {
    "tfd.VectorDeterministic",
    "numpyro.MaskedDistribution(False)",
    "numpyro.MaskedDistribution(BernoulliLogits)",
}
# TFP's own derivative of log_prob is wrong, which raises by itself.
WRONG_IN_TFP = {"tfd.BetaQuotient", "tfd.NoncentralChi2", "tfd.Skellam"}
# A traced mask is examined at run time.
MASKED = {"numpyro.MaskedDistribution(Bernoullis)"}
# Where the library's own object cannot be traced, under any estimator.
UNTRACEABLE = {
    "tfd.Autoregressive",
    "tfd.JointDistributionNamed(no functions)",
    "tfd.LinearGaussianStateSpaceModel",
    "tfd.StudentTProcess",
}
SWEPT = [family for family in FAMILIES if family.params and family.name not in UNTRACEABLE]


@pytest.mark.slow
@pytest.mark.parametrize("family", SWEPT, ids=[family.name for family in SWEPT])
def test_each_family_of_each_library_is_refused_where_its_support_moves(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(*params: Any) -> jax.Array:
        q, estimator = family.build(*params), sf.ScoreFunction()
        return sf.expectation(family.f, q, KEY, estimator, num_samples=2)

    def nan(array: jax.Array, where: jax.Array) -> jax.Array:
        raise AssertionError(f"an element of {array} has no derivative: {where}")

    if family.name not in MASKED:
        monkeypatch.setattr(_lost_elements, "unknown_derivative", nan)
    fn, params = jax.grad(loss, tuple(range(len(family.params)))), family.arguments()
    if family.name in WRONG_IN_TFP:
        assert_refused(fn, *params, match="wrong derivative")
    elif family.moving or family.name in RIGHTLY_REFUSED:
        assert_refused(fn, *params)
    else:
        traces(fn, *params)
