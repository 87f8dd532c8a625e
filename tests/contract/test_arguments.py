"""Bad input: the error comes while tracing, names the argument and says what to do."""

from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import scorefn as sf
from scorefn import vi

KEY = jax.random.key(0)
BITS = sf.Bernoulli(jnp.zeros(2))


def call(f=jnp.sum, distribution=BITS, key=KEY, estimator=None, **options):
    options = {"num_samples": 4} | options
    estimator = sf.ScoreFunction() if estimator is None else estimator
    return sf.expectation(f, distribution, key, estimator, **options)


def density(log_prob):
    return sf.Distribution(log_prob, lambda p, key: p + jax.random.normal(key, (3,)), jnp.zeros(3))


def mesh(*names):
    devices = np.array(jax.devices()).reshape((8, 1)[: len(names)])
    return Mesh(devices, names)


BAD = {
    "f": (dict(f=3.0), TypeError, "f must be a function of one draw, got 3.0"),
    "f complex": (
        dict(f=lambda x: 1j * x[0]),
        TypeError,
        "f must return real numbers, got complex",
    ),
    "f string": (
        dict(f=lambda _: "cost"),
        TypeError,
        "f must return real numbers, got str: 'cost'",
    ),
    "log_prob vector": (
        dict(distribution=density(lambda p, x: -((x - p) ** 2))),
        ValueError,
        r"log_prob must return one number for one draw, got shape \(3,\) for a draw of shape",
    ),
    "log_prob integer": (
        dict(distribution=density(lambda _, x: jnp.sum(x).astype(int))),
        TypeError,
        "log_prob must return a real float, got int32",
    ),
    "log_prob None": (
        dict(distribution=density(lambda _, __: None)),
        ValueError,
        "log_prob must return one number for one draw, got None",
    ),
    "num_samples 0": (dict(num_samples=0), ValueError, "num_samples must be at least 1, got 0"),
    "num_samples -1": (dict(num_samples=-1), ValueError, "num_samples must be at least 1, got -1"),
    "num_samples float": (
        dict(num_samples=2.0),
        TypeError,
        "num_samples must be a static Python int, got 2.0",
    ),
    "num_samples bool": (
        dict(num_samples=True),
        TypeError,
        "num_samples must be a static Python int, got True",
    ),
    "num_samples 1": (
        dict(num_samples=1),
        ValueError,
        "num_samples must be at least 2 with the baseline LeaveOneOut, got 1",
    ),
    "key int": (dict(key=0), TypeError, r"key must be a random key, got 0; pass jax.random.key"),
    "key None": (dict(key=None), TypeError, "key must be a random key, got None"),
    "key floats": (
        dict(key=jnp.zeros(2)),
        TypeError,
        r"key must be a random key, got an array of float32 and shape \(2,\)",
    ),
    "keys": (
        dict(key=jax.random.split(KEY, 3)),
        TypeError,
        r"key must be ONE random key, got an array of key<fry> and shape \(3,\)",
    ),
    "raw keys": (
        dict(key=jax.random.split(jax.random.PRNGKey(0), 3)),
        TypeError,
        r"key must be ONE random key, got an array of uint32 and shape \(3, 2\)",
    ),
    "no distribution": (
        dict(distribution=jnp.zeros(3)),
        TypeError,
        "distribution must be a scorefn.Distribution, or an object with the methods log_prob",
    ),
    "distribution class": (
        dict(distribution=distrax.Normal),
        TypeError,
        "distribution must be an instance, got the class Normal",
    ),
    "estimator class": (
        dict(estimator=sf.Pathwise),
        TypeError,
        r"estimator must be an instance, got the class Pathwise; write Pathwise\(...\)",
    ),
    "no estimator": (
        dict(estimator="reinforce"),
        TypeError,
        "estimator must be an Estimator, such as ScoreFunction.., got 'reinforce'",
    ),
    "no support": (
        dict(distribution=distrax.Normal(0.0, 1.0), estimator=sf.Enumerate()),
        ValueError,
        r"Enumerate cannot read the support of Normal. Give all values.*Enumerate\(support=",
    ),
    "large support": (
        dict(distribution=sf.Bernoulli(jnp.zeros(13)), estimator=sf.Enumerate()),
        ValueError,
        r"Enumerate would sum over 2\^13 = 8192 values, more than max_size=4096",
    ),
    "chunk_size 0": (dict(chunk_size=0), ValueError, "chunk_size must be at least 1, got 0"),
    "chunk_size 5": (
        dict(chunk_size=5),
        ValueError,
        "chunk_size must be at most num_samples=4, got 5",
    ),
    "chunk_size float": (
        dict(chunk_size=2.0),
        TypeError,
        "chunk_size must be a static Python int, got 2.0",
    ),
    "sharding": (
        dict(sharding="devices"),
        TypeError,
        "sharding must be a NamedSharding of one axis, the samples.*got 'devices'",
    ),
    "sharding axes": (
        dict(sharding=NamedSharding(mesh("a", "b"), PartitionSpec("a", "b"))),
        TypeError,
        "sharding must be a NamedSharding of one axis, the samples",
    ),
    "sharding of nothing": (
        dict(sharding=NamedSharding(mesh("a"), PartitionSpec(None))),
        TypeError,
        "sharding must be a NamedSharding of one axis, the samples",
    ),
    "sharding size": (
        dict(sharding=NamedSharding(mesh("a"), PartitionSpec("a"))),
        ValueError,
        "which does not divide num_samples=4",
    ),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("under_jit", [False, True], ids=["eager", "jit"])
def test_bad_input_gets_a_clear_error(name, under_jit):
    arguments, kind, message = BAD[name]
    run = (
        (lambda: jax.jit(lambda _: call(**arguments))(0.0))
        if under_jit
        else lambda: call(**arguments)
    )
    with pytest.raises(kind, match=message):
        run()


def test_a_traced_number_of_samples_is_an_error():
    with pytest.raises(
        TypeError, match="num_samples must be a static Python int, got a traced value"
    ):
        jax.jit(lambda n: call(num_samples=n))(4)


def test_a_mesh_without_the_axis_is_an_error():
    with pytest.raises(ValueError, match="Resource axis: rows of P.*is not found in mesh"):
        NamedSharding(mesh("a"), PartitionSpec("rows"))


def test_sharding_inside_shard_map_is_an_error():
    sharding = NamedSharding(mesh("a"), PartitionSpec("a"))
    here = jax.shard_map(
        lambda _: call(num_samples=8, sharding=sharding),
        mesh=sharding.mesh,
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec("a"),
    )
    with pytest.raises(ValueError, match="over 'a', which shard_map already maps over"):
        here(0.0)


def test_a_baseline_class_is_an_error():
    with pytest.raises(TypeError, match=r"baseline must be an instance, got the class LeaveOneOut"):
        sf.ScoreFunction(sf.LeaveOneOut)


def test_integer_parameters_under_grad_are_an_error():
    with pytest.raises(TypeError, match="grad requires real- or complex-valued inputs.*int32"):
        jax.grad(lambda logits: call(distribution=sf.Bernoulli(1.0 * logits)))(jnp.array([1, 2]))


def test_integers_from_f_are_converted():
    value = call(f=lambda x: x.astype(int)[0], distribution=BITS, estimator=sf.Enumerate())
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, 0.5, rtol=0, atol=1e-7)


def test_differentiable_has_the_same_errors():
    objective = sf.differentiable(
        jnp.sum, lambda p, x: -((x - p) ** 2), lambda p, _: p, sf.ScoreFunction(), num_samples=2
    )
    with pytest.raises(ValueError, match="log_prob must return one number for one draw"):
        objective(jnp.zeros(3), KEY)


@pytest.mark.parametrize("integer", [np.int32, np.int64, np.uint8])
def test_integers_of_numpy_count_samples(integer: Any) -> None:
    def loss(mean: jax.Array, count: Any, chunk_size: Any) -> jax.Array:
        normal = distrax.Normal(mean, 1.0)
        options: Any = {"num_samples": count, "chunk_size": chunk_size}
        return sf.expectation(jnp.square, normal, jax.random.key(0), sf.ScoreFunction(), **options)

    for chunk_size in (None, 3):
        desired = jax.grad(loss)(0.3, 7, chunk_size)
        assert jax.grad(loss)(0.3, integer(7), chunk_size and integer(chunk_size)) == desired
    bound = lambda count: vi.vimco(  # noqa: E731
        jnp.sum, sf.Bernoulli(jnp.zeros(2)), jax.random.key(0), num_samples=count
    )
    assert bound(integer(4)) == bound(4)
    for wrong in (np.bool_(True), np.float32(4), jnp.int32(4)):  # noqa: FBT003
        with pytest.raises(TypeError, match="num_samples must be a static Python int"):
            loss(0.3, wrong, None)
