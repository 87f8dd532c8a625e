"""Ctrl-C in the middle of a measurement."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def first_interrupt_kept() -> Iterator[Callable[[], bool]]:
    """Keeps the first Ctrl-C of the block, for it to ask; a second one raises.

    So numbers that belong together are never left half updated.
    """
    before = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not (is_main and callable(before)):  # No Ctrl-C comes here.
        yield lambda: False
        return
    came = threading.Event()

    def keep(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        came.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, keep)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGINT, before)
