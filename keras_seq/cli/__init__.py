"""The command line: `keras-seq`, or `python -m keras_seq`.

Keras and TensorFlow are loaded when a command runs, not before, so that `--help` answers at once.
"""

from keras_seq.cli.app import main as main

__all__ = ["main"]
