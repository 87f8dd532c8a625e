"""Eight virtual CPU devices, set before any test uses JAX; double precision for exact tests."""

import gc
import os
from collections.abc import Iterator

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
if jax.__version_info__ < (0, 11):
    # Here programs are small and run once. These emitters take half of the time of the whole suite
    # to make them faster; jax 0.12 has others, and does not know the flag.
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false"


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
