"""Beam search: the likeliest continuations, not drawn ones, in one graph."""

import math
from numbers import Integral
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_seq.generation.batched import Start, padded_rows
from keras_seq.generation.sampling import check, check_length_and_seed, checked, is_finite
from keras_seq.generation.stepping import Stepper, stepper
from keras_seq.generation.token_rules import RULE_SPECS, TokenRules

MOST_BEAMS = 1024


def beam_search(
    model: keras.Model,
    ids: Any,
    lengths: Any = None,
    length: Any = 100,
    beams: int = 4,
    length_penalty: float = 0.0,
    stop: Any = (),
    ban: Any = (),
    repetition_penalty: float = 1.0,
) -> Any:
    """Searches the likeliest continuations of a batch of sequences, on the exact state.

    At every step the `beams` best unfinished continuations of a row are kept, and apart from them
    the best finished ones, which a token of `stop` ended. With as many beams as there are
    continuations the search is exhaustive; with one and no `stop` it takes the likeliest token each
    time. It ends when no unfinished continuation can become one of the best.

    The score of a continuation of n tokens, the one that ended it included, is

        Σ log p / n^length_penalty

    where p of an end is that of all tokens of `stop` together. What ends with a sequence of tokens
    is a continuation of its own, so that one may be found once for each end.

    Args:
        model: a model of the state contract, see `Stepper`.
        ids: (b, t) token ids with t ≥ 1, padded at the end.
        lengths: (b,) number of tokens of each row that count, from 1 to t; `None` for t.
        length: most tokens to add, () or (b,).
        beams: number of continuations that are kept and returned.
        length_penalty: 0 compares probabilities, which favours short continuations where `stop` is
            given; 1 compares the mean of a token.
        stop: ids that end a continuation, and sequences of ids that do; they count in its score and
            are no part of it.
        ban: ids that never follow.
        repetition_penalty: the power to which the probability of a token is raised that the row
            holds already, `ids` included. Above 1 for less repetition.

    Output shape:
        (b, beams, n) ids in int32, the best first, n the largest `length`, -1 after an end; (b,
        beams) their scores in float32, minus infinity where there are fewer continuations.

    Raises:
        ValueError: for a number out of range, and ids of `stop` or `ban` outside the vocabulary.
        tf.errors.InvalidArgumentError: for a tensor that holds a value out of range.

    Example:

    >>> core = keras_seq.layers.TrellisNet(units=12, output_units=8, levels=4)
    >>> model = keras_seq.models.LanguageModel(vocabulary_size=20, embedding_dim=8, core=core)
    >>> found, scores = keras_seq.generation.beam_search(model, [[1, 2], [3, 4]], length=5, stop=0)
    >>> found.shape, scores.shape
    (TensorShape([2, 4, 5]), TensorShape([2, 4]))
    """
    check_length_and_seed(length, 0, tensors=True)
    check_beams(beams, length_penalty)
    ids, lengths = padded_rows(ids, lengths)
    steps = stepper(model)
    rules = TokenRules.of(steps.vocabulary_size, stop, ban, repetition_penalty)
    length = tf.broadcast_to(tf.cast(length, tf.int32), tf.shape(lengths))
    penalty = tf.constant(float(length_penalty), tf.float64)
    return compiled_search(steps)(ids, lengths, length, tf.constant(int(beams)), penalty, rules)


def compiled_search(steps: Stepper) -> Any:
    """`beam_loop` of a model as one graph, for any number of beams."""
    rows = tf.TensorSpec((None,), tf.int32)
    return steps.compiled(
        "beams",
        lambda *arguments: beam_loop(steps, *arguments),
        [
            tf.TensorSpec((None, None), tf.int32),
            rows,
            rows,
            tf.TensorSpec((), tf.int32),
            tf.TensorSpec((), tf.float64),
            RULE_SPECS,
        ],
    )


def check_beams(beams, length_penalty) -> None:
    """Refuses values out of range.

    Raises:
        ValueError: for them.
    """
    if (
        isinstance(beams, bool)
        or not isinstance(beams, Integral)
        or not 1 <= int(beams) <= MOST_BEAMS
    ):
        raise ValueError(
            f"`beams` must be an integer from 1 to {MOST_BEAMS}. Received: beams={beams!r}."
        )
    check(
        "length_penalty",
        length_penalty,
        lambda x: (x >= 0) & is_finite(x),
        "must be a finite number, 0 or more",
        "0 compares probabilities, 1 the mean of a token",
    )


class _Found(NamedTuple):
    """k continuations of each of b rows.

    Attributes:
        scores: (b, k) float64; minus infinity for none.
        tokens: (b, k, n), -1 after an end.
    """

    scores: Any
    tokens: Any

    def best_with(self, other: "_Found", count) -> "_Found":
        """The best `count` of both; of equal ones, those of this one."""
        scores, places = tf.math.top_k(tf.concat([self.scores, other.scores], axis=1), count)
        tokens = tf.gather(
            tf.concat([self.tokens, other.tokens], axis=1), places, axis=1, batch_dims=1
        )
        return _Found(scores, tokens)


def beam_loop(steps: Stepper, ids, lengths, length, beams, length_penalty, rules: TokenRules):
    """The graph of `beam_search`.

    Args:
        steps: the model.
        ids: (b, t) given ids, padded.
        lengths: (b,) how many of each row count.
        length: (b,) how many tokens each row may get.
        beams: () k.
        length_penalty: () in float64.
        rules: which tokens may follow and which end a row.

    Returns:
        (b, k, n) ids and (b, k) scores.
    """
    start = Start.of(ids, lengths, length)
    batch = tf.shape(ids)[0]
    none = tf.constant(-math.inf, tf.float64)
    total = tf.reduce_max(lengths + length) - start.common
    own_beam = tf.broadcast_to(tf.range(beams)[None], [batch, beams])

    def normalised(scores, count):
        """Scores (b, k) of (b,) tokens."""
        count = tf.cast(tf.maximum(count, 1), tf.float64)
        return scores / tf.pow(count, length_penalty)[:, None]

    def last_before(tokens, place):
        """(b, k, w - 1) the last tokens before a place, -1 where there are fewer."""
        count = rules.width - 1
        padded = tf.pad(tokens, [[0, 0], [0, 0], [count, 0]], constant_values=-1)
        places = tf.clip_by_value(place, 0, start.added)[:, None] + tf.range(count)
        return tf.gather(padded, places, axis=2, batch_dims=1)

    def ended(log_probs, live, ends, place, active):
        """The continuations that end here, for each number of tokens that an end takes away."""
        taken = tf.range(1, rules.width + 1)
        each = tf.where(ends[..., None] == taken, log_probs[..., None], none)
        sums = live.scores[..., None] + tf.reduce_logsumexp(each, axis=2)
        left = tf.range(start.added) < (place[:, None] + 1 - taken)[:, None, :, None]
        return _Found(
            tf.where(active, normalised(tf.reshape(sums, [batch, -1]), place + 1), none),
            tf.reshape(
                tf.where(left, live.tokens[:, :, None], -1),
                [batch, beams * rules.width, start.added],
            ),
        )

    def follow(index, log_probs, live, done, seen):
        """One token more for all rows: their beams, and of which former beam each is the heir."""
        position = start.common + index
        place = position - lengths  # of the new token among a row's own
        active = ((place >= 0) & (place < length))[:, None]
        log_probs, _ = checked(rules.apply(log_probs, seen))
        size = tf.shape(log_probs)[1]
        log_probs = tf.reshape(tf.cast(log_probs, tf.float64), [batch, beams, size])

        before = tf.reshape(last_before(live.tokens, place), [batch * beams, rules.width - 1])
        ends = tf.reshape(rules.end_lengths(before), [batch, beams, size])
        done = done.best_with(ended(log_probs, live, ends, place, active), beams)

        sums = live.scores[:, :, None] + tf.where(ends > 0, none, log_probs)
        scores, places = tf.math.top_k(tf.reshape(sums, [batch, beams * size]), beams)
        parents, chosen = places // size, places % size
        parents = tf.where(active, parents, own_beam)
        chosen = tf.where(active, chosen, start.given(position)[:, None])
        here = active[:, :, None] & (tf.range(start.added) == place[:, None])[:, None]
        tokens = tf.gather(live.tokens, parents, batch_dims=1)
        live = _Found(
            tf.where(active, scores, live.scores), tf.where(here, chosen[:, :, None], tokens)
        )
        heirs = tf.reshape(parents + beams * tf.range(batch)[:, None], [-1])
        last = tf.reshape(chosen, [-1])
        return last, live, done, rules.seen_with(tf.gather(seen, heirs), last), heirs

    def wanted(index, last, live, done, *_):
        ended = start.common + index >= lengths + length
        # Scores only fall, so that this is the most that can become of an unfinished one.
        hope = normalised(tf.reduce_max(live.scores, axis=1, keepdims=True), length)[:, 0]
        settled = tf.reduce_min(done.scores, axis=1) >= hope
        return (index < total) & ~tf.reduce_all(ended | settled)

    def body(index, last, live, done, seen, *state):
        values, state = steps.advance(last[:, None], *state)
        last, live, done, seen, heirs = follow(
            index, steps.last_log_probs(values), live, done, seen
        )
        return (index + 1, last, live, done, seen, *(tf.gather(part, heirs) for part in state))

    # One beam of each row is alive at first; the others would be the same.
    empty = tf.fill([batch, beams, start.added], -1)
    live = _Found(tf.where(own_beam == 0, tf.zeros((), tf.float64), none), empty)
    done = _Found(tf.fill([batch, beams], none), empty)
    seen = tf.repeat(rules.seen_in(ids, lengths), beams, axis=0)
    values, state = start.read(steps)
    log_probs = tf.repeat(steps.last_log_probs(values), beams, axis=0)
    # What it adds is cut off for `length = 0`, where no place is its own.
    last, live, done, seen, heirs = follow(tf.constant(0), log_probs, live, done, seen)
    state = [tf.gather(tf.repeat(part, beams, axis=0), heirs) for part in state]
    index, _, live, done, *_ = tf.while_loop(
        wanted, body, (tf.constant(1), last, live, done, seen, *state)
    )
    whole = (start.common + index >= lengths + length)[:, None]
    live = _Found(tf.where(whole, normalised(live.scores, length), none), live.tokens)
    found = done.best_with(live, beams)
    tokens = tf.where(tf.math.is_inf(found.scores)[:, :, None], -1, found.tokens)
    return tokens, tf.cast(found.scores, tf.float32)
