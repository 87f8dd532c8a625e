"""The suites in the order in which they run: one file each."""

from . import bernoulli, discrete, gaussian, logistic_regression, policy

SUITES = {
    suite.name: suite
    for suite in (
        bernoulli.SUITE,
        gaussian.SUITE,
        discrete.SUITE,
        policy.SUITE,
        logistic_regression.SUITE,
    )
}
