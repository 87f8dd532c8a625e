"""The tables of published claims: numbers and verdicts come from the json."""

from collections.abc import Callable, Mapping

from ._claims_models import logistic_regression, policy, vi
from ._claims_rodeo import rodeo
from ._claims_sample_size import sample_size
from ._claims_toys import bernoulli, discrete, gaussian
from ._suite import Results

# By the name of the table: the suite, and how.
TABLES: Mapping[str, tuple[str, Callable[[Results], str]]] = {
    f"claims_{suite.__name__}": (suite.__name__, suite)
    for suite in (
        *(bernoulli, gaussian, discrete, rodeo),
        *(logistic_regression, sample_size, policy, vi),
    )
}
