"""Arguments of the score function that do not fit are named, with what to give instead."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

import scorefn as sf

KEY = jax.random.key(0)
COIN = sf.Bernoulli(jnp.zeros(()))


def log_prob(loc, x):
    return -jnp.abs(x - loc)


def sample(loc, key):
    return loc + jax.random.laplace(key)


def swapped(key, loc):
    return loc + jax.random.laplace(key)


def expected(f, distribution, estimator=None, key=KEY, **options):
    estimator = sf.ScoreFunction() if estimator is None else estimator
    return sf.expectation(f, distribution, key, estimator, num_samples=4, **options)


def identity(x):
    return x


ORDER = r"arguments of Distribution are log_prob\(params, x\), sample\(params, key\) and params"
CASES: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "a number": (lambda: sf.ScoreFunction(0.5), TypeError, "baseline must be a Baseline.*got 0.5"),
    "an estimator": (
        lambda: sf.ScoreFunction(sf.DisARM()),
        TypeError,
        r"baseline must be a Baseline, as LeaveOneOut\(\).*got DisARM\(\)",
    ),
    "a class": (
        lambda: sf.ScoreFunction(sf.LeaveOneOut),
        TypeError,
        r"baseline must be an instance.*write LeaveOneOut",
    ),
    "weighted": (
        lambda: sf.ImportanceWeighted(COIN, 0.5),
        TypeError,
        "baseline must be a Baseline.*got 0.5",
    ),
    "decay": (lambda: sf.MovingAverage(1.5), ValueError, "decay must be below 1, got 1.5"),
    "negative": (lambda: sf.MovingAverage(-0.5), ValueError, "decay must be at least 0"),
    "shrunk": (lambda: sf.ShrunkLeaveOneOut(1.0), ValueError, "decay must be below 1"),
    "no cost": (
        lambda: expected(lambda _: None, COIN),
        TypeError,
        "f must return real numbers, got None",
    ),
    "no costs": (
        lambda: expected(lambda _: {}, COIN),
        TypeError,
        "f must return real numbers, got {}",
    ),
    "no aux": (
        lambda: expected(identity, COIN, has_aux=True),
        TypeError,
        r"f with has_aux=True must return a pair \(cost, aux\), got shape \(\)",
    ),
    "wrong order": (
        lambda: expected(identity, sf.Distribution(sample, log_prob, 0.3)),
        TypeError,
        ORDER,
    ),
    "wrong order, raw key": (
        lambda: expected(
            identity, sf.Distribution(sample, log_prob, 0.3), key=jax.random.PRNGKey(0)
        ),
        TypeError,
        ORDER,
    ),
    "wrong order, pathwise": (
        lambda: expected(identity, sf.Distribution(sample, log_prob, 0.3), sf.Pathwise()),
        TypeError,
        ORDER,
    ),
    "key first": (
        lambda: expected(identity, sf.Distribution(log_prob, swapped, 0.3)),
        TypeError,
        ORDER,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_error_names_the_argument(name: str) -> None:
    call, kind, message = CASES[name]
    with pytest.raises(kind, match=message):
        call()


def test_baselines_pass_through_every_rebuilding_of_a_pytree() -> None:
    estimator = sf.ScoreFunction(sf.MovingAverage(0.9))
    structure = jax.tree.structure(estimator)
    rebuilt = jax.tree.unflatten(structure, [object()] * structure.num_leaves)
    assert isinstance(rebuilt, sf.ScoreFunction)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, estimator)
    assert doubled.baseline.total == 0


def test_an_error_of_the_samplers_own_stays_as_it_is() -> None:
    def broken(loc, key):
        del loc, key
        raise TypeError("of my own")

    with pytest.raises(TypeError, match="^of my own"):
        expected(identity, sf.Distribution(log_prob, broken, 0.3))
