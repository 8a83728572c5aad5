"""Models around a core, which the builders of all families share."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_seq._arguments import fan_in_uniform
from keras_seq.layers import AdaptiveSoftmax
from keras_seq.models import FrameModel, LanguageModel, SequenceClassifier, SequenceRegressor

HEADS = ("keras", "torch", "small")


def policy_of(dtype: str | None):
    """The dtype policy of a builder's `dtype`; `None` for Keras' current one."""
    return keras.dtype_policies.get(dtype or keras.config.dtype_policy())


def after(seed: int | None, steps: int = 1) -> int | None:
    """Another seed than the core's; `None` stays `None`."""
    return None if seed is None else seed + steps


def language_model_of(
    core,
    vocabulary_size: int,
    embedding_dim: int,
    *,
    head: str = "tied",
    embedding_dropout: float = 0.0,
    input_dropout: float = 0.0,
    output_dropout: float = 0.0,
    auxiliary_weight: float = 0.0,
    activation_regularization: float = 0.0,
    temporal_activation_regularization: float = 0.0,
    history: int = 0,
    carry_state: bool = False,
    seed: int | None = None,
    name: str | None = None,
    **options: Any,
) -> LanguageModel:
    """A built language model of a core, in the core's precision.

    Args:
        core: a causal layer.
        vocabulary_size: number of tokens.
        embedding_dim: width of the embedding.
        head: `"tied"` or `"softmax"`.
        embedding_dropout: rate for rows of the embedding.
        input_dropout: variational rate before the core.
        output_dropout: variational rate after the core.
        auxiliary_weight: weight of the losses of auxiliary outputs, or of an equilibrium's
            `correction_steps`.
        activation_regularization: weight of the mean squared output.
        temporal_activation_regularization: weight of the mean squared difference of successive
            outputs.
        history: leading steps of a window without loss.
        carry_state: carry the state from window to window.
        seed: the core's; the model takes another one.
        name: the model's name.
        **options: further arguments of `LanguageModel`.
    """
    model = LanguageModel(
        vocabulary_size,
        embedding_dim,
        core,
        head=head,
        embedding_dropout=embedding_dropout,
        input_dropout=input_dropout,
        output_dropout=output_dropout,
        auxiliary_weight=auxiliary_weight,
        activation_regularization=activation_regularization,
        temporal_activation_regularization=temporal_activation_regularization,
        history=history,
        carry_state=carry_state,
        seed=after(seed),
        dtype=core.dtype_policy,
        name=name,
        **options,
    )
    model.build((None, None))
    return model


def split_head(
    head: str, vocabulary_size: int, cutoffs: Sequence[int], dtype, *others: str
) -> str | AdaptiveSoftmax:
    """The head of a model: `"tied"`, `"softmax"`, or the tied split softmax for `"adaptive"`.

    Args:
        head: its name.
        vocabulary_size: number of tokens.
        cutoffs: ends of all but the last split of the adaptive softmax.
        dtype: a dtype policy.
        *others: names that the family knows besides, for the error.
    """
    if head in ("tied", "softmax"):
        return head
    if head == "adaptive":
        return AdaptiveSoftmax(
            vocabulary_size, cutoffs=cutoffs, tied=True, dtype=dtype, name="head"
        )
    known = ", ".join(map(repr, ("tied", "softmax", *others)))
    raise ValueError(f"`head` must be {known} or 'adaptive'. Received: head={head!r}.")


def start_head(model, initialization: str) -> None:
    """Sets how the dense layer of an unbuilt model starts.

    Args:
        model: a classifier, a regressor or a model of frames.
        initialization: `"keras"`: Glorot's, and zeros for the bias; `"torch"`: uniform within ± 1 /
            √fan-in, the bias too; `"small"`: as `"torch"`, with a kernel from N(0, 0.01²).

    Raises:
        ValueError: for another one.
    """
    if initialization not in HEADS:
        raise ValueError(
            f"`head_initialization` must be one of {HEADS}. "
            f"Received: head_initialization={initialization!r}."
        )
    if initialization == "keras":
        return
    limit = model.core.output_units**-0.5
    model.dense.bias_initializer = keras.initializers.RandomUniform(-limit, limit)
    model.dense.kernel_initializer = (
        fan_in_uniform()
        if initialization == "torch"
        else keras.initializers.RandomNormal(stddev=0.01)
    )


def classifier_of(
    core,
    classes: int,
    features: int | None = None,
    *,
    vocabulary_size: int | None = None,
    embedding_dim: int | None = None,
    return_sequences: bool = False,
    input_dropout: float = 0.0,
    output_dropout: float = 0.0,
    auxiliary_weight: float = 0.0,
    head_initialization: str = "keras",
    pooling: str = "last",
    seed: int | None = None,
    name: str | None = None,
) -> SequenceClassifier:
    """A built classifier of sequences, in the core's precision.

    Args:
        core: a causal layer.
        classes: number of classes.
        features: width of float inputs.
        vocabulary_size: values of integer inputs.
        embedding_dim: width of their embedding.
        return_sequences: predict at every step.
        input_dropout: variational rate before the core.
        output_dropout: variational rate after the core.
        auxiliary_weight: weight of the losses of auxiliary outputs, or of an equilibrium's
            `correction_steps`.
        head_initialization: `"keras"`, `"torch"` or `"small"`, how the dense layer starts: see
            `start_head`.
        pooling: what a sequence is read from: its "last" valid step, or the "mean", the "max" or
            the learned "attention" of all valid steps.
        seed: the core's; the model takes another one.
        name: the model's name.
    """
    model = SequenceClassifier(
        core,
        classes,
        vocabulary_size=vocabulary_size,
        embedding_dim=embedding_dim,
        return_sequences=return_sequences,
        input_dropout=input_dropout,
        output_dropout=output_dropout,
        auxiliary_weight=auxiliary_weight,
        pooling=pooling,
        seed=after(seed),
        dtype=core.dtype_policy,
        name=name,
    )
    start_head(model, head_initialization)
    model.build((None, None) if vocabulary_size else (None, None, features))
    return model


def regressor_of(
    core,
    outputs: int,
    features: int | None = None,
    *,
    vocabulary_size: int | None = None,
    head_initialization: str = "keras",
    seed: int | None = None,
    **options: Any,
) -> SequenceRegressor:
    """A built regressor of `outputs` values; all else is as in `classifier_of`."""
    options |= {"vocabulary_size": vocabulary_size, "seed": after(seed)}
    model = SequenceRegressor(core, outputs, dtype=core.dtype_policy, **options)
    start_head(model, head_initialization)
    model.build((None, None) if vocabulary_size else (None, None, features))
    return model


def frame_model_of(
    core,
    notes: int,
    *,
    sum_over_time: bool = False,
    output_dropout: float = 0.0,
    head_initialization: str = "keras",
    seed: int | None = None,
    name: str | None = None,
) -> FrameModel:
    """A built model of frames, in the core's precision.

    Args:
        core: a causal layer.
        notes: width of a frame.
        sum_over_time: minimise the sum over the frames of a tune, not their mean.
        output_dropout: variational rate after the core.
        head_initialization: `"keras"`, `"torch"` or `"small"`, how the dense layer starts: see
            `start_head`.
        seed: the core's; the model takes another one.
        name: the model's name.
    """
    model = FrameModel(
        core,
        notes,
        sum_over_time=sum_over_time,
        output_dropout=output_dropout,
        seed=after(seed),
        dtype=core.dtype_policy,
        name=name,
    )
    start_head(model, head_initialization)
    model.build((None, None, notes))
    return model
