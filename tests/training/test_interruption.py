"""Signals while a run prints."""

import io
import os
import signal
import threading

import pytest
from rich.console import Console

from keras_seq.training.interruption import Interruption


def test_a_signal_while_the_console_prints(tmp_path):
    """The text of the handler is not printed within the print that it interrupts."""
    threads = []

    class Raw(io.FileIO):
        def write(self, data):
            if not threads:
                threads.append(threading.current_thread())
                os.kill(os.getpid(), signal.SIGTERM)
            return super().write(data)

    raw = Raw(tmp_path / "log", "w")
    console = Console(file=io.TextIOWrapper(io.BufferedWriter(raw), write_through=True))
    with Interruption(console.print) as asked:
        assert not asked()
        console.print("A line.")
        assert asked()
    assert threads == [threading.main_thread()]
    console.file.flush()
    assert (tmp_path / "log").read_text().startswith("A line.\nStopping after this step.")


def test_the_second_ctrl_c_is_raised():
    told = []
    former = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Interruption(told.append) as asked:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert asked()
        signal.raise_signal(signal.SIGINT)
    assert len(told) == 1 and signal.getsignal(signal.SIGINT) is former


def test_other_threads_handle_no_signals():
    former = signal.getsignal(signal.SIGTERM)
    found = []

    def inside():
        with Interruption(print) as asked:
            found.append((asked(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [(False, former)]
