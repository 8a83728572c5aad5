"""A run that is asked to stop does so between two steps."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType


class Interruption:
    """A context in which Ctrl-C and SIGTERM are noted instead of raised.

    The second Ctrl-C is raised as usual. Outside of the main thread, which alone may handle
    signals, nothing changes.

    A signal may come while the console prints, which must not be begun anew within: what there is
    to say is said by a thread that waits for it.

    Args:
        notify: called with a line of text when the first signal comes.
    """

    def __init__(self, notify: Callable[[str], None]):
        self._notify = notify
        self._former = {}
        self._asked = False
        self._speaker: threading.Thread | None = None
        self._ends: tuple[int, int] = (-1, -1)  # of a pipe: to read, to write

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self._asked

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._ends = os.pipe()
            self._speaker = threading.Thread(target=self._speak, daemon=True)
            self._speaker.start()
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        if self._speaker is not None:
            os.close(self._ends[1])
            self._speaker.join()
            os.close(self._ends[0])
            self._speaker = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self._asked:
            self._asked = True
            os.write(self._ends[1], b"\n")

    def _speak(self) -> None:
        if os.read(self._ends[0], 1):
            with contextlib.suppress(OSError, ValueError):  # the terminal is gone
                self._notify("Stopping after this step. Press Ctrl-C again to stop at once.")
