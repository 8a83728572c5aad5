"""Text from language models, token by token over an explicit state."""

from keras_seq.generation.batched import generate_ids as generate_ids
from keras_seq.generation.sampling import sample as sample
from keras_seq.generation.streaming import generate as generate

__all__ = ["generate", "generate_ids", "sample"]
