"""A suite of cheap steps, for tests of the runner."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console

from benchmarks._running.run import run
from benchmarks._suite import Suite

QUIET = Console(quiet=True)


class Counter:
    """A suite of five cheap steps, which counts what is computed and can be made to fail."""

    def __init__(self) -> None:
        self.computed: list[str] = []
        self.failing: str = ""
        self.error: type[BaseException] = RuntimeError
        self.suite = Suite(
            name="counter",
            summary="five cheap steps",
            full={"n": 5},
            quick={"n": 3},
            steps=lambda sizes, seed: {
                str(i): lambda i=i: self._step(i, seed) for i in range(sizes["n"])
            },
            figures=lambda _: {"counter": Figure()},
            shown=lambda _: True,
        )

    def _step(self, i: int, seed: int) -> dict[str, Any]:
        if str(i) == self.failing:
            raise self.error
        self.computed.append(str(i))
        number = 0.1 + i + seed
        row = {"estimator": f"number {i}", "unbiased": True, "variance": number}
        z = {"exact_variance": None, "variance_z": None, "bias_z": number / 3}
        return {"rows": [row | z | {"timing": "t"}], "times": {"t": 2.5}}

    def run(self, out: Path, *, seed: int = 0, quick: bool = False) -> dict[str, Any]:
        return run(self.suite, seed=seed, quick=quick, out=out, console=QUIET)
