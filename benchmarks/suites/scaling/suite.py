"""One gradient on up to hundreds of devices: what they exchange, and the memory of each.

The samples grow with the devices (weak scaling). The program is compiled from shapes, for virtual
devices on the CPU, and not run: such devices share the cores of the machine, so that times would
say nothing. Each row has a process of its own.
"""

from functools import partial
from typing import Any

from benchmarks._suite import Sizes, Step, Suite

from . import tables
from .problem import ESTIMATORS, on_virtual_devices


def _rows(name: str, devices: int, sizes: Sizes) -> dict[str, Any]:
    settings = {
        "name": name,
        "size": sizes["size"],
        "samples": sizes["samples"] * devices,
        "chunk_size": sizes["chunk_size"],
    }
    head = {"estimator": name, "devices": devices, "samples": settings["samples"]}
    return {"rows": [head | on_virtual_devices(devices, **settings)]}


def steps(sizes: Sizes, seed: int) -> dict[str, Step]:
    """A step for each estimator and number of devices. Nothing is random."""
    del seed
    return {
        f"{name}, {devices} devices": partial(_rows, name, devices, sizes)
        for name in ESTIMATORS
        for devices in sizes["devices"]
    }


SUITE = Suite(
    name="scaling",
    summary="what up to 512 devices exchange for one gradient, in the compiled program",
    full={"size": 256, "samples": 1024, "chunk_size": 256, "devices": [1, 8, 64, 512]},
    quick={"size": 16, "samples": 32, "chunk_size": 16, "devices": [1, 8]},
    steps=steps,
    tables={"scaling": tables.scaling},
    shown=lambda _: True,
    default=False,
    terminal=tables.terminal,
)
