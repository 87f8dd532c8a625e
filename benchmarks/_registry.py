"""The suites in the order in which they run: one file each."""

from benchmarks.suites.bernoulli import suite as bernoulli
from benchmarks.suites.discrete import suite as discrete
from benchmarks.suites.gaussian import suite as gaussian
from benchmarks.suites.logistic_regression import suite as logistic_regression
from benchmarks.suites.peers import suite as peers
from benchmarks.suites.policy import suite as policy
from benchmarks.suites.rodeo import suite as rodeo
from benchmarks.suites.sample_size import suite as sample_size
from benchmarks.suites.scaling import suite as scaling
from benchmarks.suites.speed import suite as speed
from benchmarks.suites.vi import suite as vi

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
