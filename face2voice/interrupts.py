"""Ctrl-C at a moment that suits."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def interrupts_later() -> Iterator[None]:
    """Holds interrupts back until the block is over.

    In the middle of somebody's library an interrupt may come out as another error: a zip file that is cut short
    raises ValueError when it is closed. Processes that are started meanwhile never see an interrupt: whoever
    started them tells them when to stop.
    """
    came: list[tuple[int, FrameType | None]] = []
    # The mask is what processes inherit; it alone would not do, as any thread may be handed a Ctrl-C.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    main = threading.current_thread() is threading.main_thread()  # the only one that is ever interrupted
    handler = signal.signal(signal.SIGINT, lambda *received: came.append(received)) if main else None
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if main:
            signal.signal(signal.SIGINT, handler)
        if came and callable(handler):
            handler(*came[0])
