"""The gradients of the toys as a user of pyro would write them."""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

from .call import SAMPLES, Batch, Call, imported
from .torch import cost, seeded, start, torch_module
from .toys import MEANS, MOVED, TOYS

Program = Callable[[], None]

# Steps until the running mean of the costs no longer depends on where it began: 0.9^50 is 1/200.
WARM = 50


def programs(toy: str, *plate: int, **infer: Any) -> tuple[Program, Program]:
    """A model and a guide that draws as the model does, so that the ELBO is of a factor alone: -f.

    A plate, of the given size, holds independent gradients; `infer` is passed to the discrete
    site.
    """
    torch, pyro, d = torch_module(), imported("pyro"), imported("pyro.distributions")

    def draw(params: Any, discrete: Any) -> Any:
        if toy == "joint":
            a = pyro.sample("a", d.Bernoulli(logits=discrete[..., 0]), infer=infer)
            return a, pyro.sample("x", d.Normal(params[..., 1] + MOVED * a, 1.0))
        if toy == "gaussian":
            return pyro.sample("x", d.Normal(params[..., 0], params[..., 1].exp()))
        return pyro.sample("x", _distribution(toy, torch, d, discrete), infer=infer)

    def within() -> Any:
        return pyro.plate("gradients", *plate) if plate else contextlib.nullcontext()

    def model() -> None:
        params = pyro.param("params", partial(start, toy, *plate))
        with within():
            # The mean of the score of a discrete draw is 0, and what the guide has of it is left
            # out: that of the model must not come back as noise.
            pyro.factor("cost", -cost(toy, draw(params, params.detach())))

    def guide() -> None:
        params = pyro.param("params", partial(start, toy, *plate))
        with within():
            draw(params, params)

    return model, guide


def elbo(name: str, *, nesting: int, samples: int = SAMPLES) -> Any:
    """The loss over so many samples, all at once, inside so many plates."""
    # Its checks take time, and storchastic switches them off in part for the whole process.
    imported("pyro").enable_validation(is_validate=False)
    options: dict[str, Any] = {"num_particles": samples, "vectorize_particles": True}
    return getattr(imported("pyro.infer"), name)(max_plate_nesting=nesting, **options)


def _gradients(toy: str, name: str, **infer: Any) -> Batch:
    pyro, objective = imported("pyro"), elbo(name, nesting=1)
    last = [0]

    def gradients(n: int) -> Any:
        model, guide = programs(toy, n, **infer)
        if last != [n]:
            # All that pyro learns, running means included, it keeps by name, for the process.
            pyro.clear_param_store()
            last[:] = [n]
            for _ in range(WARM if "baseline" in infer else 0):
                objective.loss_and_grads(model, guide)
        params = pyro.param("params", partial(start, toy, n))
        params.grad = None
        objective.loss_and_grads(model, guide)
        return params.grad

    return seeded(gradients)


def _distribution(toy: str, torch: Any, d: Any, params: Any) -> Any:
    """The distribution of pyro with parameters [..., D]."""
    if toy == "bernoulli":
        return d.Bernoulli(logits=params[..., 0])
    if toy == "categorical":
        return d.Categorical(logits=params)
    logits = torch.nn.functional.pad(params, (1, 0))
    parts = d.Normal(torch.tensor(MEANS).expand(logits.shape), 1.0)
    return d.MixtureSameFamily(d.Categorical(logits=logits), parts)


def calls() -> list[Call]:
    """All toys, with the estimators that pyro has for any guide."""
    found = []
    for toy in TOYS:
        ways: dict[str, dict[str, Any]] = {"TraceGraph_ELBO": {}, "Trace_ELBO": {}}
        if toy != "gaussian":
            baseline = {"use_decaying_avg_baseline": True}
            ways["TraceGraph_ELBO, decaying average"] = {"baseline": baseline}
        # A mixture of torch has no list of its values: its draw is that of a component.
        if toy not in ("gaussian", "mixture"):
            ways["TraceEnum_ELBO"] = {"enumerate": "parallel"}
        for call, infer in ways.items():
            make = partial(_gradients, toy, call.split(",")[0], **infer)
            found.append(Call(toy, "pyro-ppl", "pyro", call, make, torch=True))
    return found
