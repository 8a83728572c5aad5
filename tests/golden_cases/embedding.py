"""The embedding of releases that differs from an ordinary one in its gradient."""

import keras
from keras import ops


class ReleaseEmbedding(keras.layers.ReversibleEmbedding):
    """Look-up as in two releases, where the last word of the vocabulary learns nothing from it.

    TrellisNet and AWD-LSTM look words up with a padding index of -1, meant as none. PyTorch counts
    it from the end, so the last row of the table gets its gradient from the decoder alone. Values
    are those of an ordinary look-up, and `LanguageModel` uses one; only the comparison of gradients
    needs this.
    """

    def call(self, inputs, reverse=False):
        vectors = super().call(inputs, reverse=reverse)
        if reverse:
            return vectors
        last = ops.expand_dims(ops.equal(inputs, self.input_dim - 1), -1)
        return ops.where(last, ops.stop_gradient(vectors), vectors)
