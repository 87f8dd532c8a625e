"""Objectives of `scorefn.vi`, each with an estimator of its gradient."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

import scorefn as sf
from scorefn import vi

LogDensity = Callable[[jax.Array], jax.Array]


@dataclass(frozen=True)
class Form:
    """An objective and an estimator.

    Attributes:
        bound: ``bound(log_joint, q, key, num_samples=...)``, an estimate of the objective.
        num_samples: evaluations of the log joint density for one gradient.
        unit: the estimator of the same objective to which variances are relative, if any.
    """

    bound: Callable[..., jax.Array]
    num_samples: int
    unit: str | None = None


def _elbo(
    estimator: sf.Estimator, log_joint: LogDensity, q: Any, key: jax.Array, *, num_samples: int
) -> jax.Array:
    return vi.elbo(log_joint, q, key, estimator, num_samples=num_samples)


DRAWS, MANY = 8, 64
# Along the path of a Gaussian log q has no noise: a closed form of the entropy changes nothing.
TOTAL, STICKING, SCORE = "Pathwise", "sticking the landing", "LeaveOneOut"
WEIGHTED, DREG, DREG_MANY = f"IWAE ({DRAWS})", f"DReG ({DRAWS})", f"DReG ({MANY})"
RENYI, VIMCO = f"Rényi, α = 1/2 ({DRAWS})", f"VIMCO ({DRAWS})"
FORMS: Mapping[str, Form] = {
    TOTAL: Form(partial(_elbo, sf.Pathwise()), DRAWS, TOTAL),
    STICKING: Form(vi.sticking_the_landing, DRAWS, TOTAL),
    SCORE: Form(partial(_elbo, sf.ScoreFunction()), DRAWS, TOTAL),
    RENYI: Form(partial(vi.renyi, alpha=0.5), DRAWS),
    WEIGHTED: Form(vi.iwae, DRAWS, WEIGHTED),
    DREG: Form(vi.dreg, DRAWS, WEIGHTED),
    VIMCO: Form(vi.vimco, DRAWS, WEIGHTED),
    DREG_MANY: Form(vi.dreg, MANY),
}
# Whose run the gradients are measured along.
REFERENCE = STICKING
