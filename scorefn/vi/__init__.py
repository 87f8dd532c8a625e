"""Variational objectives: bounds on a log evidence.

Every function takes ``log_joint(z) -> scalar``, the log of an unnormalized density of the latent z,
in nats, which may close over model parameters; q, a distribution as for `expectation`, whose
log_prob must be normalized; and one key, which is consumed. It returns a scalar to be MAXIMIZED,
with estimates of its derivatives along the parameters of q and of the model: negate it for a loss.
`elbo` works for any draws; the docstrings of the others state their requirements. All take
`chunk_size` and `sharding`, as `expectation` does.
"""

from ._bounds import iwae as iwae
from ._bounds import renyi as renyi
from ._bounds import vimco as vimco
from ._doubly import dreg as dreg
from ._doubly import gdreg as gdreg
from ._elbo import elbo as elbo
from ._elbo import sticking_the_landing as sticking_the_landing
