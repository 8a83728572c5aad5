"""Batch normalisation that batches without steps leave as it is."""

import keras
from keras import ops


class BatchNormalization(keras.layers.BatchNormalization):
    """That of Keras, whose moving moments are not touched by a batch without valid steps.

    The mean of nothing is no number, and a replica of a strategy may get no rows.
    """

    def call(self, inputs, training=None, mask=None):
        rows = inputs.shape[0]
        if not (training and self.trainable) or (mask is None and rows):
            return super().call(inputs, training=training, mask=mask)
        moments = (self.moving_mean, self.moving_variance)
        before = [ops.copy(moment) for moment in moments]
        outputs = super().call(inputs, training=training, mask=mask)
        some = ops.shape(inputs)[0] > 0 if mask is None else ops.any(mask)
        for moment, was in zip(moments, before, strict=True):
            moment.assign(ops.where(some, moment, was))
        return outputs
