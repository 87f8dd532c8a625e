"""Policy gradients: pure functions from log-probabilities and rewards to a loss to minimise.

Arrays go in and arrays come out, with any batch dimensions: no reduction unless `reduce` is asked
for one. Log-probabilities are in nats, of the actions or tokens that were drawn. A mask `where` is
True for what counts. Shapes are never broadcast by guess: what does not line up raises while
tracing. Everything is computed in float32 at least, so that a ratio of bfloat16 log-probabilities
is as good as these are. Advantages, old and reference log-probabilities are data: no derivative
passes through them. `scorefn.leave_one_out` is the baseline of choice for a group of samples.
"""

from ._kl import kl_estimate as kl_estimate
from ._masked import reduce as reduce
from ._masked import whiten as whiten
from ._ratio import log_ratio as log_ratio
from ._surrogates import clipped_surrogate as clipped_surrogate
from ._surrogates import score_surrogate as score_surrogate
from ._surrogates import weighted_surrogate as weighted_surrogate
from ._time import gae as gae
from ._time import lambda_returns as lambda_returns
from ._time import returns as returns
from ._time import reverse_recurrence as reverse_recurrence
from ._vtrace import VTrace as VTrace
from ._vtrace import vtrace as vtrace
