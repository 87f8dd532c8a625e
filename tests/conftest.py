"""Eight virtual CPU devices, set before any test uses JAX."""

import jax

jax.config.update("jax_num_cpu_devices", 8)
