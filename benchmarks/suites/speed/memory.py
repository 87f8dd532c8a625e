"""The memory growth of a process by one gradient, in a separate process."""

import subprocess
import sys
from pathlib import Path

import jax

from .many import many
from .timing import compiled, on_cpu


def growth_bytes(estimator: str, size: int, samples: int, way: str) -> int | None:
    """Peak resident memory above that before the call, in a fresh process.

    None beside Linux, and of an accelerator, whose memory is its own.
    """
    if sys.platform != "linux" or not on_cpu():
        return None
    command = [sys.executable, "-m", __name__, estimator, str(size), str(samples), way]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return int(done.stdout)


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _main(estimator: str, size: str, samples: str, way: str) -> None:
    case = many(estimator, int(size), int(samples))
    program = compiled(
        {"library": case.library, "hand": case.hand["obvious"]}[way], *case.arguments
    )
    # What compiling took at its peak does not count.
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    jax.block_until_ready(program.run())
    sys.stdout.write(f"{_resident('VmHWM') - before}\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
