"""Eight virtual CPU devices, set before any test uses JAX; double precision for exact tests.

Accelerators are left alone, unless JAX_PLATFORMS asks for one: some tests need the eight devices.
"""

import gc
import os
from collections.abc import Iterator

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_platforms", os.environ.setdefault("JAX_PLATFORMS", "cpu"))
# Here programs are small and run once: what makes them faster only takes time.
flags = [os.environ.get("XLA_FLAGS", "")]
flags += ["--xla_cpu_parallel_codegen_split_count=1", "--xla_backend_optimization_level=0"]
if jax.__version_info__ < (0, 11):
    # These emitters alone take half of the time of the suite; jax 0.12 does not know the flag.
    flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join(flags)


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision: ``pytestmark = pytest.mark.usefixtures("x64")``."""
    with jax.enable_x64(new_val=True):
        yield


def pytest_collection_finish() -> None:
    # What tracing leaves behind is reference-counted away; looking through it takes a tenth.
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if os.environ.get("SWEEP"):
        passed = [dict(report.user_properties) for report in terminalreporter.getreports("passed")]
        cells = sum(properties.get("cells", 1) for properties in passed)
        terminalreporter.write_line(f"{cells} cells passed")
