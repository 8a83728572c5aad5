"""Signatures of a model that reads a sequence: classes, notes or values out."""

from typing import Any

import keras
import tensorflow as tf

from keras_seq.export.rows import LENGTHS, OF_LENGTHS, ServedRows, padded, takes_lengths
from keras_seq.export.signatures import (
    Signature,
    checked_ids,
    filled,
    no_nan,
    signature,
    wire_type,
)
from keras_seq.export.streaming import (
    ServedStepper,
    initial_state_signature,
    loses_nan,
    named_state,
    step_signature,
)
from keras_seq.export.weights import StoredWeights
from keras_seq.generation.stepping import input_spec
from keras_seq.models import FrameModel
from keras_seq.models.contracts import Classifies, Streams, vocabulary_size_of


def sequence_reader_signatures(
    model: keras.Model, weights: StoredWeights, one_stream: bool = False
) -> dict[str, Signature]:
    """Traces the signatures of a `SequenceClassifier`, a `FrameModel`, a `SequenceRegressor`.

    Args:
        model: a model x → outputs, with `input_spec_for_export()`. With `classes` its outputs are
            log-probabilities, with `notes` logits.
        weights: its weights as they are stored.
        one_stream: make `step` for one time step of one sequence, with all sizes fixed.

    Returns:
        Signatures by name: `serving_default`, the same as `log_probs` (classes, notes) or `outputs`
        (values); `log_probs_of_lengths` or `outputs_of_lengths`; and, of a model that follows the
        state contract and is not to see the whole sequence, `step` and `initial_state`.
    """
    spec = input_spec(model)
    example = tf.zeros([1, *[size or 8 for size in spec.shape[1:]]], spec.dtype)

    def answer(x):
        with weights.scope():
            return _named(model, model(_checked(x, model), training=False))

    whole = signature(answer, {"x": example}, x=spec)
    name = "outputs" if "outputs" in whole.outputs else "log_probs"
    signatures = {"serving_default": whole, name: whole}
    if takes_lengths(model) and not one_stream:
        signatures[f"{name}{OF_LENGTHS}"] = _of_lengths(model, weights, example, spec)
    if isinstance(model, Streams) and getattr(model, "streams", True):
        steps = ServedStepper(model, weights)
        advance = steps.advance_here if one_stream else steps.advance

        def step(x, **state):
            outputs, state = advance(_checked(x, model), *steps.flat(state))
            return _named(model, outputs) | named_state(steps, state)

        if one_stream:
            spec = tf.TensorSpec((1, 1, *spec.shape[2:]), spec.dtype)
        signatures["initial_state"] = initial_state_signature(steps)
        signatures["step"] = step_signature(steps, step, x=spec)
    return signatures


def _of_lengths(model: keras.Model, weights: StoredWeights, example, spec) -> Signature:
    rows = ServedRows(model, weights)

    def answer(x, lengths):
        x, lengths = padded(x, lengths, "x")
        return _named(model, rows.read(_checked(x, model), lengths))

    examples = {"x": example, "lengths": tf.constant([example.shape[1]])}
    return signature(answer, examples, x=spec, lengths=LENGTHS)


def _checked(x, model: keras.Model):
    """The input, if there is any; ids only from the vocabulary."""
    x = filled(x, "x")
    if x.dtype.is_floating:
        return no_nan(x, "x") if loses_nan(model) else x
    return checked_ids(x, vocabulary_size_of(model), "x")


def _named(model: keras.Model, outputs) -> dict[str, Any]:
    outputs = tf.cast(outputs, wire_type(outputs.dtype))
    if isinstance(model, FrameModel):
        return {"log_probs": tf.math.log_sigmoid(outputs), "logits": outputs}
    if not isinstance(model, Classifies):
        return {"outputs": outputs}
    return {
        "log_probs": outputs,
        "class": tf.argmax(outputs, axis=-1, output_type=tf.int32),
    }
