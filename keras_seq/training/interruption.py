"""A run that is asked to stop does so between two steps."""

import signal
import threading
from collections.abc import Callable
from types import FrameType


class Interruption:
    """A context in which Ctrl-C and SIGTERM are noted instead of raised.

    The second Ctrl-C is raised as usual. Outside of the main thread, which alone may handle
    signals, nothing changes.

    Args:
        notify: called with a line of text when the first signal comes.
    """

    def __init__(self, notify: Callable[[str], None]):
        self._notify = notify
        self._former = {}
        self._asked = False

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self._asked

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
        self._notify("Stopping after this step. Press Ctrl-C again to stop at once.")
