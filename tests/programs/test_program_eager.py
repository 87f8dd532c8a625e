"""Programs outside of jit: no compilation at later calls, equal numbers, nothing out of date."""

import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scorefn as sf

PARAMS = {"mean": jnp.array([0.3, -0.4]), "slope": jnp.array(0.8)}
KEY = jax.random.key(1)


def normal(mean: Any) -> sf.Distribution:
    return sf.Distribution(
        lambda mean, x: -0.5 * jnp.sum(jnp.square(x - mean)),
        lambda mean, key: mean + jax.random.normal(key, jnp.shape(mean)),
        mean,
    )


@sf.program
def model(params: Any) -> Any:
    z = yield sf.sample(normal(params["mean"]), sf.Pathwise(), num_samples=2)
    a = yield sf.sample(sf.Bernoulli(params["slope"] * z), sf.ScoreFunction(), num_samples=2)
    b = yield sf.sample(sf.Bernoulli(params["slope"] * a), sf.DisARM(), depends_on=[a])
    yield sf.cost(jnp.sum(a * z))
    return params["slope"] * jnp.sum(jnp.square(b - a))


def gradient(params: Any, key: jax.Array) -> Any:
    return jax.value_and_grad(lambda params: model(params)(key))(params)


def compiled(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "Finished XLA compilation" in r.getMessage()]


def test_a_second_call_compiles_nothing(caplog: pytest.LogCaptureFixture) -> None:
    mapped = jax.vmap(gradient, (None, 0))
    keys = jax.random.split(KEY, 3)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        jax.jit(lambda x: 3 * x)(1.0)
        assert compiled(caplog), "compilations are not logged under this name"
        for _ in range(2):
            caplog.clear()
            gradient(PARAMS, KEY), mapped(PARAMS, keys)
    assert not compiled(caplog)


@pytest.mark.parametrize("of", ["grad", "vmap", "jvp"])
def test_the_numbers_are_those_under_jit(of: str) -> None:
    if of == "grad":
        fn, arguments = gradient, (PARAMS, KEY)
    elif of == "vmap":
        fn, arguments = jax.vmap(gradient, (None, 0)), (PARAMS, jax.random.split(KEY, 3))
    else:

        def fn(params: Any, key: jax.Array) -> Any:
            tangents = jax.tree.map(jnp.ones_like, params)
            return jax.jvp(lambda params: model(params)(key), (params,), (tangents,))

        arguments = (PARAMS, KEY)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6),
        fn(*arguments),
        jax.jit(fn)(*arguments),
    )


def test_a_body_reads_globals_and_closures_anew() -> None:
    scale = {"of a global dict": 1.0}

    @sf.program
    def scaled(logit: jax.Array) -> Any:
        b = yield sf.sample(sf.Bernoulli(logit), sf.Enumerate())
        c = yield sf.sample(sf.Bernoulli(logit + b), sf.Enumerate())
        return scale["of a global dict"] * (b + 2 * c)

    once = scaled(jnp.array(0.5))(KEY)
    scale["of a global dict"] = 3.0
    np.testing.assert_allclose(scaled(jnp.array(0.5))(KEY), 3 * once, rtol=1e-6)
