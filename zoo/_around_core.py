"""Models around a core, and protocols of training, that several families share."""

from typing import Any

import keras

from keras_seq.models import FrameModel, LanguageModel, SequenceClassifier
from keras_seq.zoo import registry


def policy_of(dtype: str | None):
    """The dtype policy of a builder's `dtype`; `None` for Keras' current one."""
    return keras.dtype_policies.get(dtype or keras.config.dtype_policy())


def after(seed: int | None, steps: int = 1) -> int | None:
    """Another seed than the core's; `None` stays `None`."""
    return None if seed is None else seed + steps


def language_model_of(core, vocabulary_size: int, embedding_dim: int, **options) -> LanguageModel:
    """A built language model of a core, in the core's precision."""
    model = LanguageModel(vocabulary_size, embedding_dim, core, dtype=core.dtype_policy, **options)
    model.build((None, None))
    return model


def classifier_of(core, features: int, classes: int, **options) -> SequenceClassifier:
    """A built classifier of sequences of vectors, in the core's precision."""
    model = SequenceClassifier(core, classes, dtype=core.dtype_policy, **options)
    model.build((None, None, features))
    return model


def frame_model_of(core, notes: int, **options) -> FrameModel:
    """A built model of frames, in the core's precision."""
    model = FrameModel(core, notes, dtype=core.dtype_policy, **options)
    model.build((None, None, notes))
    return model


def protocol_of(name: str) -> dict[str, Any]:
    """How another model is trained: data, optimizer, schedule, length, stop rule.

    A baseline that is trained under the protocol of what it is compared with takes its fields from
    there, and so cannot differ.

    Args:
        name: a recipe whose module was imported before.
    """
    recipe = registry.find(name).recipe
    fields = ("data", "optimizer", "schedule", "epochs", "early_stopping", "monitor", "seed")
    return {field: getattr(recipe, field) for field in fields}
