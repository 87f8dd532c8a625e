"""Distributions given by two functions and parameters, and a few families."""

from ._deterministic import Deterministic as Deterministic
from ._discrete import Bernoulli as Bernoulli
from ._discrete import Categorical as Categorical
from ._discrete import OneHotCategorical as OneHotCategorical
from ._distribution import Distribution as Distribution
from ._given import Given as Given
from ._implicit import NormalMixture as NormalMixture
from ._implicit import implicit_reparameterization as implicit_reparameterization
from ._plackett_luce import PlackettLuce as PlackettLuce
from ._subset import Subset as Subset
