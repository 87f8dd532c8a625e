"""The suites of the default run, in order: one file each."""

from . import bernoulli, discrete, gaussian, logistic_regression

SUITES = {
    suite.name: suite
    for suite in (bernoulli.SUITE, gaussian.SUITE, discrete.SUITE, logistic_regression.SUITE)
}
