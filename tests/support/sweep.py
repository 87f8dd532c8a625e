"""Results of estimators on every family of every library: right, an error, or wrong.

``PYTHONPATH=.. python -m support.sweep [part of a name ...]``, in tests/, prints the table and
writes docs/families.md: all rows, or those of the families that are named.
"""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from support.facts import Family, differences
from support.families import FAMILIES, LEFT_OUT

import scorefn as sf
from scorefn.distributions._distribution import as_distribution
from scorefn.distributions._interop.moments import read_moments
from scorefn.distributions._interop.quantiles import read_quantile

# Means over 128 independent batches: P(|t| > 7) = 1e-10 with 127 degrees of freedom, in fewer than
# 10_000 comparisons. An error of a tenth of the deviation of one draw is found.
BATCHES, SAMPLES, CRITICAL = 128, 128, 7.0
PAGE = Path(__file__).resolve().parents[2] / "docs" / "families.md"

# Cells that are wrong because of the library itself, checked apart from this project, and why.
WRAPPED = "draws jump from pi to -pi; right for functions of period 2 pi"
FAULTS: dict[tuple[str, str], str] = {
    ("distrax.VonMises", "Pathwise"): WRAPPED,
    ("tfd.VonMises", "Pathwise"): WRAPPED,
    ("flowjax.Uniform", "quantile"): "its ends are not trainable; estimators refuse to learn them",
}


def cells() -> dict[str, Callable[[Family], None]]:
    """The columns of the table: each raises ``AssertionError`` where the result is wrong."""
    return {
        "sample": _sample,
        "ScoreFunction": lambda family: _estimate(family, sf.ScoreFunction()),
        "Pathwise": lambda family: _estimate(family, sf.Pathwise()),
        "Enumerate": _enumerate,
        "moments": _moments,
        "quantile": _quantile,
        "MeasureValued": lambda family: _estimate(family, sf.MeasureValued()),
        "GO": lambda family: _estimate(family, sf.GO()),
        "Antithetic": lambda family: _estimate(family, sf.Antithetic(sf.Pathwise())),
    }


def outcome(family: Family, name: str) -> str:
    """One cell of the table: "right", "raises", "-" where there is nothing to ask, or "wrong"."""
    if name == "moments" and family.reference is None:
        return "-"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cells()[name](family)
    except AssertionError:
        return "fault" if (family.name, name) in FAULTS else "wrong"
    except Exception:  # noqa: BLE001
        return "raises"
    return "right"


def _keys() -> jax.Array:
    return jax.random.split(jax.random.key(11), BATCHES)


def _sample(family: Family) -> None:
    distribution = as_distribution(family.build(*family.arguments()))

    def batch(key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, SAMPLES)
        return jnp.mean(jax.vmap(lambda key: family.f(distribution.draw(key)))(keys))

    _assert_mean(jax.jit(jax.vmap(batch))(_keys()), family.exact(*family.params))


def _estimate(family: Family, estimator: sf.Estimator) -> None:
    def loss(params: Any, key: jax.Array) -> jax.Array:
        distribution = family.build(*params)
        return sf.expectation(family.f, distribution, key, estimator, num_samples=SAMPLES)

    params = family.arguments()
    value, slopes = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(params, _keys())
    _assert_mean(value, family.exact(*family.params))
    for slope, exact in zip(slopes, family.slopes(), strict=True):
        _assert_mean(slope, exact)


def _assert_mean(draws: Any, exact: Any) -> None:
    draws, exact = np.asarray(draws, np.float64), np.asarray(exact, np.float64)
    error = draws.std(0, ddof=1) / np.sqrt(len(draws))
    rounding = 2e-4 * (1 + np.abs(exact))
    assert np.all(np.abs(draws.mean(0) - exact) <= CRITICAL * error + rounding)


def _close(got: Any, exact: Any, tolerance: float = 2e-3) -> None:
    got, exact = np.asarray(got, np.float64), np.asarray(exact, np.float64)
    assert got.shape == exact.shape
    assert np.all(np.abs(got - exact) <= tolerance * (1 + np.abs(exact)))


def _enumerate(family: Family) -> None:
    def loss(params: Any) -> jax.Array:
        distribution = family.build(*params)
        return sf.expectation(family.f, distribution, jax.random.key(0), sf.Enumerate())

    # Probabilities that do not add up to 1 are an error here, and nan under jit.
    loss(family.arguments())
    value, slopes = jax.jit(jax.value_and_grad(loss))(family.arguments())
    _close(value, family.exact(*family.params))
    for slope, exact in zip(slopes, family.slopes(), strict=True):
        _close(slope, exact)


def _moments(family: Family) -> None:
    def read(*params: Any) -> Any:
        # Bits and counts are drawn as floats here, as estimators that read moments need them.
        distribution = as_distribution(family.build(*params))
        floats = distribution.sample
        distribution = type(distribution)(
            distribution.log_prob,
            lambda params, key: jnp.asarray(floats(params, key), jnp.float32),
            distribution.params,
        )
        return read_moments("sweep", None, distribution, jax.random.key(0))

    def exact(*params: Any) -> Any:
        reference = family.reference(*params)
        return np.array([reference.mean(), reference.std()], np.float64)

    wanted = exact(*family.params)
    got = read(*family.arguments())
    assert np.all(np.isfinite(wanted))
    _close(got, wanted)


def _quantile(family: Family) -> None:
    u = np.array([0.03, 0.2, 0.55, 0.9, 0.98])

    def read(params: Any, u: jax.Array) -> jax.Array:
        distribution = as_distribution(family.build(*params))
        quantile = read_quantile("sweep", None, distribution, jax.random.key(0))
        assert_one = quantile.size == 1
        if not assert_one:
            raise NotImplementedError("draws of one number only")
        return jnp.asarray(quantile.draw(distribution.params, u[None]), jnp.float32).reshape(())

    params = family.arguments()
    if family.reference is None:
        raise NotImplementedError("no reference")
    with_slopes = jax.jit(jax.vmap(jax.value_and_grad(read), (None, 0)))
    if family.discrete:
        got = jax.vmap(read, (None, 0))(params, jnp.array(u, jnp.float32))
        reference = family.reference(*family.params)
        got = np.asarray(got)
        # Bits may descend with u: then by 1 - u.
        up = (reference.cdf(got - 0.5) <= u + 1e-3) & (u - 1e-3 <= reference.cdf(got + 0.5))
        down = (reference.cdf(got - 0.5) <= 1 - u + 1e-3) & (
            1 - u - 1e-3 <= reference.cdf(got + 0.5)
        )
        assert np.all(up) or np.all(down)
        return
    got, slopes = with_slopes(params, jnp.array(u, jnp.float32))
    _close(got, family.reference(*family.params).ppf(u))
    exact = [
        np.moveaxis(slope, -1, 0)
        for slope in differences(lambda *p: family.reference(*p).ppf(u), family.params, 1e-3)
    ]
    for slope, wanted in zip(slopes, exact, strict=True):
        _close(slope, wanted, 2e-2)


def run(names: list[str]) -> dict[str, dict[str, str]]:
    """The table of the families whose names contain one of these, all if there are none."""
    table = {}
    for family in FAMILIES:
        if names and not any(name in family.name for name in names):
            continue
        table[family.name] = {name: outcome(family, name) for name in cells()}
        print(
            f"{family.name:44s}",
            *(f"{cell:7s}" for cell in table[family.name].values()),
            flush=True,
        )
        jax.clear_caches()
    return table


def page(table: dict[str, dict[str, str]]) -> str:
    """The text of docs/families.md."""
    names = list(cells())
    counts = {
        kind: sum(row[name] == kind for row in table.values() for name in names)
        for kind in ("right", "raises", "fault", "wrong")
    }
    rows = [
        f"| {family} | " + " | ".join(row[name] for name in names) + " |"
        for family, row in table.items()
    ]
    reasons = [f"- {family}, {name}: {why}" for (family, name), why in FAULTS.items()]
    left = [
        f"- {library}.{name}: {why}"
        for library, classes in LEFT_OUT.items()
        for name, why in classes.items()
    ]
    return "\n".join(
        [
            "# Every family of every library",
            "",
            "Each distribution of distrax, TFP, numpyro and flowjax under every kind of estimator,",
            "compared with SciPy, quadrature or closed forms. This page is written by",
            "`PYTHONPATH=.. python -m support.sweep`, run in tests/; it takes about half an hour.",
            "",
            f"{len(table)} families, {sum(counts.values())} cells: {counts['right']} right,",
            f"{counts['raises']} raise an error, {counts['fault']} wrong by the library's fault,",
            f"{counts['wrong']} wrong.",
            "",
            "- right: value and derivative along every parameter agree.",
            "- raises: a clear error; the estimator does not fit, or a fact cannot be read.",
            "- fault: wrong, because the library's own function is; the reason is below.",
            "- -: there is nothing to compare with.",
            "",
            "| family | " + " | ".join(names) + " |",
            "|---" * (len(names) + 1) + "|",
            *rows,
            "",
            "## Faults of the libraries",
            "",
            *(reasons or ["None."]),
            "",
            "## Classes without an entry",
            "",
            *left,
            "",
        ]
    )


def written() -> dict[str, dict[str, str]]:
    """The table of the page, by the names of families that are still in the catalogue."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines()]
    found = {row[0]: dict(zip(cells(), row[1:], strict=True)) for row in rows if len(row) > 2}
    return {family.name: found[family.name] for family in FAMILIES if family.name in found}


if __name__ == "__main__":
    names = sys.argv[1:]
    before = written() if names else {}
    found = before | run(names)
    in_order = {family.name: found[family.name] for family in FAMILIES if family.name in found}
    PAGE.write_text(page(in_order))
