"""Signatures of a language model: ids or text in, log-probabilities, tokens or text out."""

import numbers
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_seq.export.rows import LENGTHS, OF_LENGTHS, ServedRows, padded, takes_lengths
from keras_seq.export.signatures import (
    Signature,
    checked_ids,
    filled,
    one_or_each,
    require,
    signature,
    wire_type,
)
from keras_seq.export.streaming import (
    ServedStepper,
    initial_state_signature,
    named_state,
    step_signature,
)
from keras_seq.export.weights import StoredWeights
from keras_seq.generation.batched import generation_loop, row_seeds
from keras_seq.generation.beams import check_beams, compiled_search
from keras_seq.generation.joining import join, valid_text
from keras_seq.generation.stepping import Stepper, check_vocabulary, start_id
from keras_seq.generation.token_rules import TokenRules, asks_for_rules, stop_ids, token_ids
from keras_seq.models import SequenceModel
from keras_seq.models.contracts import vocabulary_size_of

CONTEXT = 1024  # tokens of a text that are read, where a model does not end sooner
WORD_BYTES = 2**18  # bytes of a text that are read, where tokens are words


@dataclass(frozen=True)
class TextOptions:
    """Bounds of the signatures that take text.

    Attributes:
        top_k: number of next tokens in the answer of `text`.
        max_tokens: a text's last so many tokens are read.
        max_length: most tokens that `generate` makes.
        stop: tokens and texts, by name or id, that end what `generate` makes.
        ban: tokens that it never takes.
        repetition_penalty: see `TokenRules`.
        beams: number of continuations that `beam_search` answers with; `None` for no such
            signature.
    """

    top_k: int = 10
    max_tokens: int = CONTEXT
    max_length: int = 1024
    stop: Any = ()
    ban: Any = ()
    repetition_penalty: float = 1.0
    beams: int | None = None

    def __post_init__(self):
        check_beams(1 if self.beams is None else self.beams, 0.0)
        for name in ("top_k", "max_tokens", "max_length"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
                raise ValueError(
                    f"`{name}` must be a positive integer. Received: {name}={value!r}."
                )

    @property
    def ruled(self) -> bool:
        """Whether tokens are banned, end a text, or are held down."""
        return asks_for_rules(self.stop, self.ban, self.repetition_penalty)

    def rules(self, vocabulary) -> TokenRules:
        """The rules of generation, for a vocabulary."""
        stop, ban = stop_ids(vocabulary, self.stop), token_ids(vocabulary, self.ban, "ban")
        return TokenRules.of(vocabulary.size, stop, ban, self.repetition_penalty)

    def described(self, vocabulary) -> dict[str, Any]:
        """What the description of an export says: the bounds, and what else was asked for."""
        described = {name: getattr(self, name) for name in ("top_k", "max_tokens", "max_length")}
        if self.ruled:
            described["stop_ids"] = stop_ids(vocabulary, self.stop)
            described["ban_ids"] = token_ids(vocabulary, self.ban, "ban")
            described["repetition_penalty"] = float(self.repetition_penalty)
        return described if self.beams is None else described | {"beams": self.beams}


def default_context(model: keras.Model) -> int:
    """Number of tokens of a text that are read: no more than can have an effect."""
    field = model.receptive_field if isinstance(model, SequenceModel) else None
    return CONTEXT if field is None else min(CONTEXT, int(field))


def language_model_signatures(
    model: keras.Model,
    vocabulary,
    options: TextOptions,
    weights: StoredWeights,
    one_stream: bool = False,
) -> dict[str, Signature]:
    """Traces the signatures of a language model.

    The core is traced three times: for whole sequences; for rows of different length, which `text`
    shares; and as the step that all others share.

    Args:
        model: a model of the state contract.
        vocabulary: its vocabulary; without one (`None`), there is nothing that takes text.
        options: bounds of text.
        weights: its weights as they are stored.
        one_stream: make `step` for one token of one sequence, with all sizes fixed.

    Returns:
        Signatures by name: `serving_default`, `log_probs`, `log_probs_of_lengths`, `step`,
        `initial_state` and, with a vocabulary, `text` and `generate`, and `beam_search` if it is
        asked for.
    """
    steps = ServedStepper(model, weights)
    whole = _whole(model, weights)
    signatures = {
        "serving_default": whole,
        "log_probs": whole,
        "initial_state": initial_state_signature(steps),
        "step": _step(steps, model, one_stream),
    }
    rows = ServedRows(model, weights) if takes_lengths(model) else None
    if rows is not None and not one_stream:
        signatures[f"log_probs{OF_LENGTHS}"] = _of_lengths(rows, model)
    if vocabulary is not None:
        check_vocabulary(model, vocabulary)
        signatures["text"] = _text(steps, rows, vocabulary, options)
        signatures["generate"] = _generate(steps, vocabulary, options)
        if options.beams is not None:
            signatures["beam_search"] = _beam_search(steps, vocabulary, options, options.beams)
    return signatures


_IDS = tf.TensorSpec((None, None), tf.int32)
_TEXT = tf.TensorSpec((None,), tf.string)


def _checked(ids, model: keras.Model):
    return checked_ids(filled(ids, "ids"), vocabulary_size_of(model), "ids")


def _whole(model: keras.Model, weights: StoredWeights) -> Signature:
    def log_probs(ids):
        with weights.scope():
            outputs = model(_checked(ids, model), training=False)
        return {"log_probs": tf.cast(outputs, wire_type(outputs.dtype))}

    return signature(log_probs, {"ids": tf.zeros((1, 8), tf.int32)}, ids=_IDS)


def _of_lengths(rows: ServedRows, model: keras.Model) -> Signature:
    def log_probs(ids, lengths):
        ids, lengths = padded(ids, lengths, "ids")
        outputs = rows.log_probs(rows.read(_checked(ids, model), lengths))
        return {"log_probs": tf.cast(outputs, wire_type(outputs.dtype))}

    example = {"ids": tf.zeros((1, 8), tf.int32), "lengths": tf.constant([8])}
    return signature(log_probs, example, ids=_IDS, lengths=LENGTHS)


def _step(steps: ServedStepper, model: keras.Model, one_stream: bool) -> Signature:
    advance = steps.advance_here if one_stream else steps.advance

    def step(ids, **state):
        values, state = advance(_checked(ids, model), *steps.flat(state))
        return {"log_probs": steps.log_probs(values), **named_state(steps, state)}

    spec = tf.TensorSpec((1, 1), tf.int32) if one_stream else _IDS
    return step_signature(steps, step, ids=spec)


def _text(steps: Stepper, rows: ServedRows | None, vocabulary, options: TextOptions) -> Signature:
    count = min(options.top_k, vocabulary.size)

    def text(text):
        ids, lengths = _encode(vocabulary, text, options.max_tokens)
        if rows is not None:
            values = rows.read(ids, lengths)
        else:
            values, _ = steps.advance(ids, *steps.initial_state(tf.shape(ids)[0]))
        last = tf.gather(values, (lengths - 1)[:, None], batch_dims=1)
        scores, best = tf.math.top_k(steps.log_probs(last)[:, 0], count)
        tokens = valid_text(vocabulary.to_tokens(best))
        return {"tokens": tokens, "scores": scores, "ids": best}

    return signature(text, {"text": tf.constant([""])}, text=_TEXT)


def _generate(steps: Stepper, vocabulary, options: TextOptions) -> Signature:
    rules = options.rules(vocabulary) if options.ruled else None

    def generate(text, length, temperature, top_k, seed):
        length = _bounded(length, options)
        temperature = require(
            (temperature >= 0) & tf.math.is_finite(temperature),
            "`temperature` must be a finite number, 0 or more.",
            temperature,
        )
        top_k = require(top_k >= 0, "`top_k` must be 0 or more.", top_k)
        ids, lengths = _encode(vocabulary, text, options.max_tokens)
        batch = tf.shape(ids)[0]
        length, temperature, top_k = (
            tf.broadcast_to(one_or_each(value, name, batch), [batch])
            for name, value in (("length", length), ("temperature", temperature), ("top_k", top_k))
        )
        seeds = row_seeds(one_or_each(seed, "seed", batch), batch)
        made = generation_loop(
            steps, ids, lengths, length, temperature, top_k, tf.ones([batch]), seeds, rules
        )
        tokens = vocabulary.to_tokens(tf.maximum(made, 0))
        return {"text": join(vocabulary, tokens, made >= 0, text), "ids": made}

    either: Any = None  # () or (b,)
    whole, real = tf.TensorSpec(either, tf.int32), tf.TensorSpec(either, tf.float32)
    example = {
        "text": tf.constant([""]),
        "length": tf.constant(2),
        "temperature": tf.constant(1.0),
        "top_k": tf.constant(0),
        "seed": tf.constant(0),
    }
    return signature(
        generate, example, text=_TEXT, length=whole, temperature=real, top_k=whole, seed=whole
    )


def _beam_search(steps: Stepper, vocabulary, options: TextOptions, beams: int) -> Signature:
    rules = options.rules(vocabulary)

    def beam_search(text, length, length_penalty):
        length = _bounded(length, options)
        length_penalty = require(
            (length_penalty >= 0) & tf.math.is_finite(length_penalty),
            "`length_penalty` must be a finite number, 0 or more.",
            tf.cast(length_penalty, tf.float64),
        )
        ids, lengths = _encode(vocabulary, text, options.max_tokens)
        batch = tf.shape(ids)[0]
        length = tf.broadcast_to(one_or_each(length, "length", batch), [batch])
        count = tf.constant(beams)
        made, scores = compiled_search(steps)(ids, lengths, length, count, length_penalty, rules)
        flat = tf.reshape(made, [batch * beams, -1])
        tokens = vocabulary.to_tokens(tf.maximum(flat, 0))
        texts = join(vocabulary, tokens, flat >= 0, tf.repeat(text, beams))
        return {"text": tf.reshape(texts, [batch, beams]), "ids": made, "scores": scores}

    either: Any = None  # () or (b,)
    example = {
        "text": tf.constant([""]),
        "length": tf.constant(2),
        "length_penalty": tf.constant(0.0),
    }
    return signature(
        beam_search,
        example,
        text=_TEXT,
        length=tf.TensorSpec(either, tf.int32),
        length_penalty=tf.TensorSpec((), tf.float32),
    )


def _bounded(length, options: TextOptions):
    return require(
        (length >= 0) & (length <= options.max_length),
        f"`length` must be from 0 to {options.max_length}.",
        length,
    )


def _encode(vocabulary, text, limit: int):
    """(b, t) ids of texts with their start, the last `limit` of each; (b,) lengths."""
    text = filled(text, "text")
    ids = vocabulary.encode(_end(text, _most_bytes(vocabulary, limit)))
    start = tf.fill([tf.shape(text)[0], 1], tf.constant(start_id(vocabulary), tf.int32))
    ids = tf.concat([start, ids], axis=1)[:, -limit:]
    return ids.to_tensor(), tf.cast(ids.row_lengths(), tf.int32)


def _most_bytes(vocabulary, limit: int) -> int:
    """Bytes at the end of a text that are enough for `limit` tokens, whatever is before them."""
    if vocabulary.level == "word":
        return max(WORD_BYTES, 64 * limit)
    # A character has four bytes at most; the first of those kept may be cut in two.
    return 4 * (limit + 2)


def _end(text, count: int):
    """The last `count` bytes of each string, so that a long one costs no more than they do."""
    start = tf.maximum(tf.strings.length(text) - count, 0)
    return tf.strings.substr(text, start, tf.fill(tf.shape(start), count))
