"""The estimators for the autoencoders, and their learned leaves."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import scorefn as sf

from . import model
from .data import PIXELS

# Nats: the costs and their slopes are of this size.
SCALE = 10.0
# Hidden units of the surrogates. The paper's RODEO has 100, at five times the work.
RODEO_HIDDEN, RELAX_HIDDEN = 20, 137
# Of the relaxed draws.
TEMPERATURE = 0.5


@dataclass(frozen=True)
class Image:
    """Everything that the cost of one image depends on, besides its code.

    Attributes:
        decoder: the weights.
        logits: of the posterior, [*code].
        image: [784].
    """

    decoder: model.Layers
    logits: jax.Array
    image: jax.Array


@dataclass(frozen=True)
class Entry:
    """An estimator of one image's bound.

    Attributes:
        estimator: ``estimator(learned, of)``, for one `Image`.
        num_samples: the terms.
        evaluations: of the decoder.
        start: ``start(key)``, what is learned, before that; None if there is nothing.
        unbiased: whether the estimator is.
    """

    estimator: Callable[[Any, Image], sf.Estimator]
    num_samples: int
    evaluations: int
    start: Callable[[jax.Array], Any] | None = None
    unbiased: bool = True


def _plain(estimator: sf.Estimator, num_samples: int, evaluations: int) -> Entry:
    unbiased = estimator.unbiased
    return Entry(lambda *_: estimator, num_samples, evaluations, unbiased=unbiased)


def _double(n: int) -> Entry:
    return Entry(lambda learned, _: sf.DoubleCV(learned), n, n, lambda _: jnp.zeros(()))


def _rodeo(n: int) -> Entry:
    def estimator(learned: Any, _: Image) -> sf.Estimator:
        return sf.RODEO(_surrogates, learned["network"], learned["alpha"], learned["beta"])

    return Entry(estimator, n, n, _rodeo_start)


def _rodeo_start(key: jax.Array) -> Any:
    network = model.layers(key, 2, RODEO_HIDDEN, 2)
    network[-1]["weight"] *= 0
    return {"network": network, "alpha": jnp.zeros(()), "beta": jnp.ones(())}


def _surrogates(
    network: model.Layers, value: jax.Array, slope: jax.Array
) -> tuple[jax.Array, jax.Array]:
    h, t = SCALE * model.network(network, jnp.stack([value, slope]) / SCALE)
    return value + slope + h, t


def _relax_start(key: jax.Array) -> Any:
    (bits,) = model.NETWORKS["linear"].code
    return {
        "network": model.layers(key, PIXELS + bits, RELAX_HIDDEN, 1),
        "log_temperature": jnp.array(math.log(0.1)),
        "coefficient": jnp.ones(()),
    }


def _relax(learned: Any, of: Image) -> sf.Estimator:
    # All that is differentiated or batched goes in as parameters: a surrogate is static.
    return sf.RELAX(_relaxed, {"learned": learned, "of": (of.decoder, of.logits, of.image)})


def _relaxed(params: Any, z: jax.Array) -> jax.Array:
    learned, (decoder, logits, image) = params["learned"], params["of"]
    code = jax.nn.sigmoid(z * jnp.exp(-learned["log_temperature"]))
    (more,) = model.network(learned["network"], jnp.concatenate([image, z]))
    return learned["coefficient"] * (model.negative_bound(decoder, logits, image, code) + more)


# In brackets: evaluations of the decoder for one gradient.
_BIASED: Mapping[str, Entry] = {
    "StraightThrough (1)": _plain(sf.StraightThrough(), 1, 1),
    "ST-GumbelSoftmax (1)": _plain(sf.StraightThroughGumbelSoftmax(TEMPERATURE), 1, 1),
    "GumbelSoftmax (1)": _plain(sf.GumbelSoftmax(TEMPERATURE), 1, 1),
    "ReinMax (1)": _plain(sf.ReinMax(), 1, 1),
    "GumbelRao (1)": _plain(sf.GumbelRao(TEMPERATURE), 1, 1),
}
_BITS: Mapping[str, Entry] = {
    "LeaveOneOut (2)": _plain(sf.ScoreFunction(), 2, 2),
    "DisARM (2)": _plain(sf.DisARM(), 1, 2),
    "DoubleCV (2)": _double(2),
    "RODEO (2)": _rodeo(2),
    "LeaveOneOut (3)": _plain(sf.ScoreFunction(), 3, 3),
    "ARMS (3)": _plain(sf.ARMS(), 3, 3),
    "RODEO (3)": _rodeo(3),
    "RELAX (3)": Entry(_relax, 1, 3, _relax_start),
    **_BIASED,
}
ENTRIES: Mapping[str, Mapping[str, Entry]] = {
    "linear": _BITS,
    "categorical": {
        "LeaveOneOut (2)": _plain(sf.ScoreFunction(), 2, 2),
        "CoupledCategorical (2)": _plain(sf.CoupledCategorical(), 1, 2),
        "LeaveOneOut (4)": _plain(sf.ScoreFunction(), 4, 4),
        **_BIASED,
    },
    "nonlinear": _BITS,
}
# Whose variance the others are measured by, and whose bound they have to reach.
UNIT = "LeaveOneOut (2)"
# Unbiased, with so little variance that a long run of it stands for the exact gradient.
LONG = "LocalExpectation"
_LONG_RUN = _plain(sf.LocalExpectation(), 1, 201)


def entry(network: str, name: str) -> Entry:
    """The estimator of that name for a network."""
    return _LONG_RUN if name == LONG else ENTRIES[network][name]
