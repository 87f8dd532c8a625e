"""The toys on PyTorch: many independent gradients at once, each along parameters of its own."""

import os
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from .call import Batch, imported
from .toys import COSTS, TOYS

# Threads that wait would spin, which takes the time of whatever runs beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@cache
def torch_module() -> Any:
    """PyTorch, on as many threads as JAX takes."""
    torch = imported("torch")
    torch.set_num_threads(os.cpu_count() or 1)
    return torch


def start(toy: str, *shape: int) -> Any:
    """The parameters at which gradients are taken, [*shape, D]."""
    params = torch_module().tensor(TOYS[toy].params)
    return params.expand(*shape, -1).clone().requires_grad_()


def cost(toy: str, x: Any) -> Any:
    """The costs of draws [...]; categories are integers."""
    if toy == "categorical":
        return torch_module().tensor(COSTS)[x.long()]
    if toy == "bernoulli":
        return (x - 0.45) ** 2
    return TOYS[toy].cost(x)


def seeded(gradients: Callable[[int], Any]) -> Batch:
    """Batches from ``gradients(n)``, a tensor [n, D] by torch's own generator.

    Warnings are left out: what is wrong with a gradient is seen from the gradient.
    """
    torch = torch_module()

    def batch(size: int, seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(gradients(size).detach())

    return batch
