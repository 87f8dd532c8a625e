"""The suites in the order in which they run: one file each."""

from . import bernoulli, discrete, gaussian, logistic_regression, vi

SUITES = {
    suite.name: suite
    for suite in (
        bernoulli.SUITE,
        gaussian.SUITE,
        discrete.SUITE,
        logistic_regression.SUITE,
        vi.SUITE,
    )
}
