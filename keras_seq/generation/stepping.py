"""A model as a function (inputs, state) → (outputs, state), compiled once."""

import weakref
from typing import Any

import keras
import tensorflow as tf

from keras_seq.generation.sampling import sample
from keras_seq.models import LanguageModel
from keras_seq.models.contracts import KnowsWords, NamesInputs, Streams, vocabulary_size_of


class Stepper:
    """Runs a model over its exact streaming state.

    Any model works that follows the state contract: `get_initial_state(batch, kind="exact")` gives
    a structure of tensors with the batch first, and `call(inputs, initial_state, return_state,
    training)` gives outputs and the state after them, of the same shapes. A language model takes
    ids (b, t) and gives log-probabilities (b, t, v); the head of a `LanguageModel` is evaluated
    only where that is wanted. A model of other inputs says so with `input_spec_for_export()`.

    State is passed as a flat list; `names` names its parts. The model is held weakly.

    Attributes:
        names: name of each part of the state: `state_hidden` for a dictionary's `hidden`,
            `state_0` for a list's first and for a single tensor.
        state_specs: shape and type of each part.
        advance: (inputs, *state) → (what `log_probs` reads, flat state).
        draw: (ids, temperature, top_k, top_p, seed, *state) → (the (b,) next tokens, flat state).
        vocabulary_size: number of tokens.

    Args:
        model: the model. It is built if it was not.

    Raises:
        TypeError: if the model has no `get_initial_state`.
        ValueError: if it has no exact state.
    """

    def __init__(self, model: keras.Model):
        if not isinstance(model, Streams):
            raise TypeError(
                "`model` must have `get_initial_state` and return its state, as a LanguageModel "
                f"does. Received: model={model!r}."
            )
        self._model = weakref.ref(model)
        inputs = input_spec(model)
        if not model.built:
            model(tf.zeros([size or 1 for size in inputs.shape], inputs.dtype), training=False)
        self._staged = isinstance(model, LanguageModel)
        start = tf.function(
            lambda batch: self.model.get_initial_state(batch, kind="exact"), autograph=False
        ).get_concrete_function(tf.TensorSpec((), tf.int32))
        structure = start.structured_outputs
        paths = keras.tree.flatten_with_path(structure)
        self.names = ["_".join(["state", *map(str, path or [0])]) for path, _ in paths]
        self._structure = keras.tree.map_structure(lambda _: 0, structure)
        parts = zip(self.names, (value for _, value in paths), strict=True)
        self.state_specs = [tf.TensorSpec(x.shape, x.dtype, name=name) for name, x in parts]
        self._initial = start

        self._inputs = [inputs, *self.state_specs]
        self.advance = tf.function(self._advance, input_signature=self._inputs, autograph=False)
        option, whole = tf.TensorSpec((), tf.float32), tf.TensorSpec((), tf.int32)
        pairs = tf.TensorSpec((None, 2), tf.int32)
        self.draw = tf.function(
            self._draw,
            input_signature=[inputs, option, whole, option, pairs, *self.state_specs],
            autograph=False,
        )
        self._compiled: dict[Any, Any] = {}
        self._size: int | None = None

    @property
    def model(self) -> keras.Model:
        """The model."""
        model = self._model()
        if model is None:
            raise RuntimeError("The model of this Stepper is gone. Keep a reference to it.")
        return model

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens that the model gives probabilities to."""
        if self._size is None:
            known = vocabulary_size_of(self.model)
            self._size = int(self._width() if known is None else known)
        return self._size

    def _width(self) -> int:
        traced = tf.function(
            lambda ids, *state: self.last_log_probs(self.advance(ids, *state)[0]), autograph=False
        ).get_concrete_function(*self._inputs)
        width = traced.structured_outputs.shape[-1]
        if width is None:
            raise ValueError(
                "The model must say how many tokens it knows. Received: a model whose outputs are "
                "of no fixed width. Give it an attribute `vocabulary_size`."
            )
        return width

    def compiled(self, key, function, input_signature=None) -> Any:
        """A function of this model as a graph, made once for each key.

        Args:
            key: what tells it from the others.
            function: what is traced. It must not hold the model, as the Stepper does not.
            input_signature: of `tf.function`; `None` to trace for whatever comes.
        """
        if key not in self._compiled:
            options: dict[str, Any] = {"reduce_retracing": True}
            if input_signature is not None:
                options = {"input_signature": input_signature}
            self._compiled[key] = tf.function(function, autograph=False, **options)
        return self._compiled[key]

    def initial_state(self, batch_size) -> list:
        """The zero state of `batch_size` sequences, as a flat list."""
        return keras.tree.flatten(self._initial(tf.cast(batch_size, tf.int32)))

    def flat(self, named: dict[str, Any]) -> list:
        """A state given by `names`, as a flat list in its own types."""
        return [
            tf.cast(named[name], spec.dtype)
            for name, spec in zip(self.names, self.state_specs, strict=True)
        ]

    def log_probs(self, values) -> Any:
        """(b, t, v) log-probabilities, float32 at least, from the first output of `advance`."""
        if self._staged:
            model = self.model
            values = model.head(values, tables=model.tables, training=False)
        return values if values.dtype == tf.float64 else tf.cast(values, tf.float32)

    def last_log_probs(self, values) -> Any:
        """(b, v) log-probabilities of the token after the last one."""
        return self.log_probs(values[:, -1:])[:, 0]

    def _advance(self, inputs, *state):
        """Feeds (b, t, ...) inputs; returns what `log_probs` reads, and the flat state."""
        model = self.model
        options: dict[str, Any] = {
            "initial_state": keras.tree.pack_sequence_as(self._structure, list(state)),
            "return_state": True,
            "training": False,
        }
        if self._staged:
            features = model.features(inputs, **options)
            values, state = features.outputs, features.state
        else:
            values, state = model(inputs, **options)
        state = [
            tf.ensure_shape(tf.cast(part, spec.dtype), spec.shape)
            for part, spec in zip(keras.tree.flatten(state), self.state_specs, strict=True)
        ]
        return values, state

    def _draw(self, ids, temperature, top_k, top_p, seed, *state):
        """Feeds (b, t) ids; returns the (b,) tokens drawn to follow them, and the flat state."""
        values, state = self.advance(ids, *state)
        token = sample(self.last_log_probs(values), temperature, top_k, top_p, seed)
        return token, state


_STEPPERS: "weakref.WeakKeyDictionary[keras.Model, Stepper]" = weakref.WeakKeyDictionary()


def stepper(model: keras.Model) -> Stepper:
    """The `Stepper` of a model; it is compiled at the first call and kept as long as the model."""
    if model not in _STEPPERS:
        _STEPPERS[model] = Stepper(model)
    return _STEPPERS[model]


def is_language_model(model: keras.Model) -> bool:
    """Whether a model reads ids: a `LanguageModel`, or one that names no other inputs."""
    return isinstance(model, LanguageModel) or not isinstance(model, NamesInputs)


def input_spec(model: keras.Model) -> tf.TensorSpec:
    """Shape and type of a model's inputs, with free batch and length: ids, or its own."""
    if is_language_model(model):
        return tf.TensorSpec((None, None), tf.int32, name="ids")
    spec = model.input_spec_for_export()
    return tf.TensorSpec(spec.shape, spec.dtype, name="x")


def start_id(vocabulary) -> int:
    """The token before the first one: `<eos>` as in the data, else the unknown token, else 0."""
    for token in (vocabulary.eos_id, vocabulary.unk_id):
        if token is not None:
            return token
    return 0


def check_vocabulary(model: keras.Model, vocabulary) -> None:
    """Refuses a vocabulary that is not the model's.

    Raises:
        ValueError: if the sizes differ.
    """
    size = model.vocabulary_size if isinstance(model, KnowsWords) else vocabulary.size
    if size != vocabulary.size:
        raise ValueError(
            "`vocabulary` must be the one that the model was trained with. Received: "
            f"vocabulary.size={vocabulary.size}, model.vocabulary_size={size}."
        )
