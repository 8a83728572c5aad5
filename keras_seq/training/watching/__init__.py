"""What TensorBoard shows of a run beside its curves."""

from keras_seq.training.watching.watch import Watch

__all__ = ["Watch"]
