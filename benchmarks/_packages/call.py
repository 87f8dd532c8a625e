"""One way to write the gradient of a toy, and whether its package is installed."""

import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import scorefn as sf

SAMPLES = 10
Gradient = Callable[[jax.Array, jax.Array], jax.Array]
Batch = Callable[[int, int], np.ndarray]
TFP = "tensorflow_probability.substrates.jax"


@dataclass(frozen=True)
class Call:
    """One way to write the gradient of a toy.

    Attributes:
        toy: its name.
        package: as installed; "scorefn" is this library.
        module: imported from it.
        call: what is called, in words.
        make: of a package on JAX ``make()`` is ``gradient(params, key)``; of one on PyTorch it is
            ``batch(size, seed)``, independent gradients [size, D]. Imports the package.
        unbiased: whether it is meant for this expectation and is right.
        torch: whether the package is on PyTorch.
        samples: of one gradient.
        repeats: how many times as many gradients are taken as of others.
    """

    toy: str
    package: str
    module: str
    call: str
    make: Callable[[], Any]
    unbiased: bool = True
    torch: bool = False
    samples: int = SAMPLES
    repeats: float = 1.0


def module(name: str) -> Any | None:
    """The module of another package, or None where it is not there, or has it no longer."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def missing(call: Call) -> str | None:
    """A note if the package is not installed or lacks the module; else None."""
    if module(call.module) is None:
        return f"skipped: there is no {call.module} here"
    return None


def version(call: Call) -> str:
    """The version of the package that is called."""
    if call.package == "scorefn":
        return sf.__version__
    if call.module == TFP:
        return _version("tfp-nightly", "tensorflow-probability")
    found = _version(call.package)
    return f"{found}, torch {_version('torch')}" if call.torch else found


def _version(*names: str) -> str:
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def imported(name: str) -> Any:
    """The module of that name, of whatever type."""
    return importlib.import_module(name)
