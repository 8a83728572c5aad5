"""Signatures over a state that the client keeps: named tensors in, named tensors out."""

from typing import Any

import keras
import tensorflow as tf

from keras_seq.export.signatures import (
    Signature,
    no_nan,
    require,
    same_rows,
    signature,
    wire_type,
)
from keras_seq.export.weights import StoredWeights
from keras_seq.generation.stepping import Stepper
from keras_seq.layers import DeepEquilibrium

MAX_BATCH = 4096  # of `initial_state`, whose answer grows with a number in the request


class ServedStepper(Stepper):
    """A `Stepper` that computes with the weights as they are stored.

    Args:
        model: the model.
        weights: its stored weights.
    """

    def __init__(self, model: keras.Model, weights: StoredWeights):
        self._weights = weights
        super().__init__(model)

    def log_probs(self, values) -> Any:
        with self._weights.scope():
            return super().log_probs(values)

    def _advance(self, inputs, *state):
        with self._weights.scope():
            return super()._advance(inputs, *state)

    def advance_here(self, inputs, *state):
        """`advance` as a part of the graph that is being traced, with the shapes known there."""
        return self._advance(inputs, *state)


def initial_state_signature(steps: Stepper) -> Signature:
    """batch_size () → the zero state of so many independent streams."""

    def initial_state(batch_size):
        batch_size = require(
            (batch_size >= 1) & (batch_size <= MAX_BATCH),
            f"`batch_size` must be from 1 to {MAX_BATCH}.",
            batch_size,
        )
        return named_state(steps, steps.initial_state(batch_size))

    spec = tf.TensorSpec((), tf.int32)
    return signature(initial_state, {"batch_size": tf.constant(1)}, batch_size=spec)


def step_signature(steps: Stepper, function, **inputs: tf.TensorSpec) -> Signature:
    """inputs and state → outputs and state.

    Args:
        steps: the model.
        function: `function(input, **state)` returns outputs and state in one dictionary.
        **inputs: the one input besides the state. Where its batch is known, the state's is too.
    """
    ((source, batch),) = ((name, spec.shape[0]) for name, spec in inputs.items())

    def step(**given):
        x = given.pop(source)
        if batch is None:
            rows = tf.shape(x)[0]
            given = {name: same_rows(part, name, rows, source) for name, part in given.items()}
            if loses_nan(steps.model):
                given = {name: no_nan(part, name) for name, part in given.items()}
        return function(x, **given)

    specs = {
        name: tf.TensorSpec([batch, *spec.shape[1:]], wire_type(spec.dtype))
        for name, spec in zip(steps.names, steps.state_specs, strict=True)
    }
    example: dict[str, Any] = {
        name: tf.zeros([size or 1 for size in spec.shape], spec.dtype)
        for name, spec in inputs.items()
    }
    example |= named_state(steps, steps.initial_state(batch or 1))
    return signature(step, example, **inputs, **specs)


def loses_nan(model: keras.Model) -> bool:
    """Whether a NaN that goes in need not come out.

    The solver of an equilibrium answers with the best finite values that it met. All other models
    hand a NaN on to the answer of its row, where the client sees it.
    """
    return any(isinstance(layer, DeepEquilibrium) for layer in model._flatten_layers())


def named_state(steps: Stepper, state) -> dict[str, Any]:
    """A flat state as the tensors that travel."""
    return {
        name: tf.cast(part, wire_type(part.dtype))
        for name, part in zip(steps.names, state, strict=True)
    }
