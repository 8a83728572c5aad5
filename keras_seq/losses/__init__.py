"""Losses that Keras lacks."""

from keras_seq.losses.activation import activation_regularization as activation_regularization
from keras_seq.losses.activation import (
    temporal_activation_regularization as temporal_activation_regularization,
)

__all__ = ["activation_regularization", "temporal_activation_regularization"]
