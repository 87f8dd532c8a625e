"""The tables of published claims: numbers and verdicts come from the json."""

from collections.abc import Callable, Mapping

from benchmarks._suite import Results
from benchmarks.suites.rodeo.claims import rodeo
from benchmarks.suites.sample_size.claims import sample_size

from .claims_models import logistic_regression, policy, vi
from .claims_toys import bernoulli, discrete, gaussian

# By the name of the table: the suite, and how.
TABLES: Mapping[str, tuple[str, Callable[[Results], str]]] = {
    f"claims_{suite.__name__}": (suite.__name__, suite)
    for suite in (
        *(bernoulli, gaussian, discrete, rodeo),
        *(logistic_regression, sample_size, policy, vi),
    )
}
