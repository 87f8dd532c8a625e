"""The gradients of the toys as a user of storchastic would write them."""

from collections.abc import Callable
from functools import partial
from typing import Any

from .call import SAMPLES, Batch, Call, imported
from .torch import cost, seeded, start, torch_module
from .toys import COSTS, MEANS, MOVED

Method = Callable[[], Any]
Costs = Callable[[Any], Any]

PAIRS, TWO = f", {SAMPLES // 2} pairs", ", k = 2"
BASELINES = {"": "none", ", batch_average": "batch_average"}


def _method(name: str, *plate: str, **options: Any) -> Any:
    return getattr(imported("storch.method"), name)(*(plate or ("x",)), **options)


def costs(toy: str, method: Method) -> Costs:
    """The costs of draws, of parameters [..., D]; of the joint, the method is that of the coin.

    Other draws have one more dimension, of size 1: REBAR, RELAX and LAX raise without one.
    """
    torch = torch_module()
    # RELAX begins with random weights.
    torch.manual_seed(0)
    d, way, path = torch.distributions, method(), reparameterized()

    def gaussian(params: Any) -> Any:
        return cost(toy, way(d.Normal(params[..., :1], params[..., 1:].exp()))).sum(-1)

    def bernoulli(params: Any) -> Any:
        # The draws of DisARM are of type bool.
        return cost(toy, way(d.Bernoulli(logits=params)) * 1.0).sum(-1)

    def categorical(params: Any) -> Any:
        # As its examples do; REBAR takes the gradient along `probs` only.
        hot = way(d.OneHotCategorical(probs=params[..., None, :].softmax(-1)))
        return (hot * torch.tensor(COSTS)).sum(-1).sum(-1)

    def joint(params: Any) -> Any:
        a = way(d.Bernoulli(logits=params[..., 0]))
        return cost(toy, (a, path(d.Normal(params[..., 1] + MOVED * a, torch.tensor(1.0)))))

    of_toys = (gaussian, bernoulli, categorical, joint)
    return {found.__name__: found for found in of_toys}[toy]


def scored(plate: str = "x", *, baseline: str = "none") -> Any:
    """Its score function."""
    return _method("ScoreFunction", plate, n_samples=SAMPLES, baseline_factory=baseline)


def reparameterized(n: int = 1) -> Any:
    """Its gradient along the path."""
    return _method("Reparameterization", n_samples=n)


def _gradients(toy: str, method: Method) -> Batch:
    """The first dimension of the parameters is denoted as independent."""
    storch, found = imported("storch"), costs(toy, method)

    def gradients(n: int) -> Any:
        storch.reset()
        params = start(toy, n)
        storch.add_cost(found(storch.denote_independent(params, 0, "gradients")), "cost")
        storch.backward()
        # The cost is the mean over what is independent.
        return params.grad * n

    return seeded(gradients)


def _mixture() -> Batch:
    """One gradient after the other: a mixture of torch takes no batch of storchastic."""
    torch, storch = torch_module(), imported("storch")
    d, way = torch.distributions, scored()
    parts = d.Normal(torch.tensor(MEANS), torch.ones(2))

    def one() -> Any:
        params = start("mixture")
        which = d.Categorical(logits=torch.nn.functional.pad(params, (1, 0)))
        storch.add_cost(cost("mixture", way(d.MixtureSameFamily(which, parts))), "cost")
        storch.backward()
        return torch.zeros(1) if params.grad is None else params.grad

    return seeded(lambda n: torch.stack([one() for _ in range(n)]))


def _ways() -> dict[str, dict[str, Method]]:
    """The methods of the toys that have one draw."""
    samples = {"n_samples": SAMPLES}
    pairs = {"n_samples": SAMPLES // 2}
    scores: dict[str, Method] = {
        f"ScoreFunction{end}": partial(scored, baseline=name) for end, name in BASELINES.items()
    }
    discrete: dict[str, Method] = {
        "REBAR": partial(_method, "REBAR", **samples),
        "GumbelSoftmax": partial(_method, "GumbelSoftmax", **samples),
        "Expect": partial(_method, "Expect"),
        f"ScoreFunctionWOR{TWO}": partial(_method, "ScoreFunctionWOR", k=2),
        f"UnorderedSetEstimator{TWO}": partial(_method, "UnorderedSetEstimator", k=2),
    }
    return {
        "gaussian": {
            **scores,
            "Reparameterization": partial(reparameterized, SAMPLES),
            "Infer": _inferred,
            "LAX": partial(_method, "LAX", in_dim=1, **samples),
        },
        "bernoulli": {
            **scores,
            f"ARM{PAIRS}": partial(_method, "ARM", **pairs),
            f"DisARM{PAIRS}": partial(_method, "DisARM", **pairs),
            "RELAX": partial(_method, "RELAX", in_dim=1, **samples),
            **discrete,
        },
        "categorical": {
            **scores,
            "RELAX": partial(_method, "RELAX", in_dim=(1, len(COSTS)), **samples),
            **discrete,
        },
    }


def _inferred() -> Any:
    normal = imported("torch").distributions.Normal
    return _method("Infer", distribution_type=normal, n_samples=SAMPLES)


# Those that are found to be biased, beside the relaxation, which is known to be; UnorderedSet on
# the coin by its numerical integration.
WRONG = {
    "gaussian": ("Infer",),
    "bernoulli": (
        *(f"DisARM{PAIRS}", "REBAR", "RELAX", "GumbelSoftmax"),
        *(f"ScoreFunctionWOR{TWO}", f"UnorderedSetEstimator{TWO}"),
    ),
    "categorical": (*("GumbelSoftmax", f"ScoreFunctionWOR{TWO}", f"UnorderedSetEstimator{TWO}"),),
}


def calls() -> list[Call]:
    """Every toy by every method that takes it."""
    named = partial(Call, package="storchastic", module="storch", torch=True)
    found = [
        named(
            toy,
            call=call,
            make=partial(_gradients, toy, method),
            unbiased=call not in WRONG[toy],
            samples=2 if call.endswith(TWO) else SAMPLES,
            # A bias of 1% takes many to be seen.
            repeats=5 if (toy, call) == ("categorical", f"UnorderedSetEstimator{TWO}") else 1,
        )
        for toy, ways in _ways().items()
        for call, method in ways.items()
    ]
    call = "ScoreFunction, one by one, 1/20 of the repeats"
    found.append(named("mixture", call=call, make=_mixture, unbiased=False, repeats=1 / 20))
    for end, name in BASELINES.items():
        make = partial(_gradients, "joint", partial(scored, "a", baseline=name))
        found.append(named("joint", call=f"ScoreFunction{end}, then Reparameterization", make=make))
    return found
