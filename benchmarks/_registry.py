"""The suites, in the order in which they run. Nothing else but the command line knows them."""

from benchmarks.suites.bernoulli.suite import SUITE as bernoulli
from benchmarks.suites.compile.suite import SUITE as compiling
from benchmarks.suites.discrete.suite import SUITE as discrete
from benchmarks.suites.exact.suite import SUITE as exact
from benchmarks.suites.gaussian.suite import SUITE as gaussian
from benchmarks.suites.logistic_regression.suite import SUITE as logistic_regression
from benchmarks.suites.mnist.suite import SUITE as mnist
from benchmarks.suites.peers.suite import SUITE as peers
from benchmarks.suites.policy.suite import SUITE as policy
from benchmarks.suites.posteriors.suite import SUITE as posteriors
from benchmarks.suites.sample_size.suite import SUITE as sample_size
from benchmarks.suites.scaling.suite import SUITE as scaling
from benchmarks.suites.speed.suite import SUITE as speed
from benchmarks.suites.vi.suite import SUITE as vi

SUITES = {
    suite.name: suite
    for suite in (
        bernoulli,
        gaussian,
        exact,
        discrete,
        mnist,
        logistic_regression,
        sample_size,
        policy,
        vi,
        posteriors,
        speed,
        compiling,
        scaling,
        peers,
    )
}
