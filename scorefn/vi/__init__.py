"""Variational objectives: bounds on a log evidence, made of log-densities and draws.

Every function takes ``log_joint(z) -> scalar``, the log of an unnormalized density of the latent z,
in nats, which may close over a model's parameters; q, a distribution as `expectation` takes it; and
one key, which is consumed. It returns a scalar to be MAXIMISED, whose derivatives with respect to
the parameters of q and of the model are estimates: negate it for a loss. `elbo` takes draws of any
kind; the others say what they need. All take `chunk_size` and `sharding`, as `expectation` does.
"""

from ._bounds import iwae as iwae
from ._bounds import renyi as renyi
from ._bounds import vimco as vimco
from ._doubly import dreg as dreg
from ._doubly import gdreg as gdreg
from ._elbo import elbo as elbo
from ._elbo import sticking_the_landing as sticking_the_landing
