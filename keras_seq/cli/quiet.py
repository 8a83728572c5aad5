"""Loads Keras without the messages that TensorFlow writes while it starts."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


def load_keras(debug: bool) -> None:
    """Imports Keras and looks for devices; what is written meanwhile is dropped, unless it fails.

    Args:
        debug: let the messages through.
    """
    if "keras" in sys.modules:
        return
    with contextlib.nullcontext() if debug else _held_stderr():
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.list_physical_devices()


@contextlib.contextmanager
def _held_stderr() -> Iterator[None]:
    """Keeps everything off the process's standard error; an exception brings it back."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
