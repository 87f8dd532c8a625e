"""The suites in the order in which they run: one file each."""

from . import (
    bernoulli,
    discrete,
    gaussian,
    logistic_regression,
    peers,
    policy,
    rodeo,
    sample_size,
    scaling,
    speed,
    vi,
)

SUITES = {
    suite.name: suite
    for suite in (
        bernoulli.SUITE,
        gaussian.SUITE,
        discrete.SUITE,
        rodeo.SUITE,
        logistic_regression.SUITE,
        sample_size.SUITE,
        policy.SUITE,
        vi.SUITE,
        speed.SUITE,
        scaling.SUITE,
        peers.SUITE,
    )
}
