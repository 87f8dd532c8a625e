"""Against packages on PyTorch: a short training run of toys, and the step of an autoencoder."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks._packages.call import module
from benchmarks._suite import Sizes

from . import torch_training as training
from . import torch_vae as vae
from .row import row, timed
from .timing import interleaved
from .torch_training import Pair

# The default, and the same traced once and compiled.
ELBOS = ("Trace_ELBO", "JitTrace_ELBO")


def cases(sizes: Sizes) -> dict[str, tuple[str, str, str, Callable[[], Pair]]]:
    """The module, the task, the name and both programs, by step."""
    steps = sizes["steps"]
    done: dict[str, dict[str, tuple[str, Callable[[], Pair]]]] = {}
    for toy in training.TRAINED:
        pyro = partial(training.pyro_training, toy, steps)
        done[f"{toy}, {steps} steps"] = {
            **{f"pyro {elbo}": ("pyro", partial(pyro, elbo)) for elbo in ELBOS},
            "storchastic": ("storch", partial(training.storchastic_training, toy, steps)),
        }
    for images, pixels, hidden, bits in sizes["autoencoders"]:
        size = (images, pixels, hidden, bits)
        done[f"VAE step, {images} images, layers of {pixels}, {hidden}, {bits}"] = {
            **{f"pyro {elbo}": ("pyro", partial(vae.pyro_step, *size, elbo)) for elbo in ELBOS},
            "storchastic": ("storch", partial(vae.storchastic_step, *size)),
        }
    return {
        f"{against}: {what}": (imported, what, against, make)
        for what, others in done.items()
        for against, (imported, make) in others.items()
    }


def rows(name: str, seed: int, sizes: Sizes) -> dict[str, Any]:
    """The rows of one case, whose programs take turns."""
    imported, what, against, make = cases(sizes)[name]
    if module(imported) is None:
        note = f"skipped: there is no {imported} here"
        return {"rows": [row("torch", what, 0, against, note=note)]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pair = make()
        programs = {"ours": pair.ours, "theirs": pair.theirs}
        times = interleaved(programs, seed, **sizes["timing"])
    found = timed(times["ours"], times["theirs"])
    return {"rows": [row("torch", what, pair.samples, against, **found)]}
