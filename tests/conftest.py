"""Eight virtual CPU devices, set before any test uses JAX; double precision for exact tests."""

from collections.abc import Iterator

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision: ``pytestmark = pytest.mark.usefixtures("x64")``."""
    with jax.enable_x64(new_val=True):
        yield
