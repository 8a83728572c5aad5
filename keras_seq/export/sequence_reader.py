"""Signatures of a model that reads a sequence: classes or values out."""

from typing import Any

import keras
import tensorflow as tf

from keras_seq.export.signatures import Signature, signature, wire_type
from keras_seq.export.streaming import initial_state_signature, named_state, step_signature
from keras_seq.generation.stepping import Stepper, input_spec


def sequence_reader_signatures(model: keras.Model) -> dict[str, Signature]:
    """Traces the signatures of a `SequenceClassifier`, a `SequenceRegressor` or their like.

    Args:
        model: a model x → outputs, with `input_spec_for_export()`. With `classes` its outputs are
            log-probabilities.

    Returns:
        Signatures by name: `serving_default`, the same as `log_probs` (classes) or `outputs`
        (values) and, of a model that follows the state contract, `step` and `initial_state`.
    """
    spec = input_spec(model)
    example = tf.zeros([1, *[size or 8 for size in spec.shape[1:]]], spec.dtype)
    if not model.built:
        model(example, training=False)

    def answer(x):
        return _named(model, model(x, training=False))

    whole = signature(answer, {"x": example}, x=spec)
    name = "log_probs" if hasattr(model, "classes") else "outputs"
    signatures = {"serving_default": whole, name: whole}
    if hasattr(model, "get_initial_state"):
        steps = Stepper(model)

        def step(x, **state):
            outputs, state = steps.advance(x, *steps.flat(state))
            return _named(model, outputs) | named_state(steps, state)

        signatures["initial_state"] = initial_state_signature(steps)
        signatures["step"] = step_signature(steps, step, x=spec)
    return signatures


def _named(model: keras.Model, outputs) -> dict[str, Any]:
    outputs = tf.cast(outputs, wire_type(outputs.dtype))
    if not hasattr(model, "classes"):
        return {"outputs": outputs}
    return {
        "log_probs": outputs,
        "class": tf.argmax(outputs, axis=-1, output_type=tf.int32),
    }
