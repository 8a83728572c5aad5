"""Text from one prompt, as it is made."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_seq.generation.beams import beam_search, check_beams
from keras_seq.generation.joining import Joiner
from keras_seq.generation.sampling import (
    as_tensor,
    check_length_and_seed,
    check_options,
    sample,
)
from keras_seq.generation.stepping import Stepper, check_vocabulary, start_id, stepper
from keras_seq.generation.token_rules import (
    TokenRules,
    asks_for_rules,
    checked_endings,
    stop_ids,
    token_ids,
    until_end,
)


def generate(
    model: keras.Model,
    vocabulary: Any,
    prompt: str | bytes = "",
    length: int = 200,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Any = (),
    ban: Any = (),
    repetition_penalty: float = 1.0,
    beams: int = 1,
    length_penalty: float = 0.0,
) -> Iterator[str]:
    """Continues a text, and yields each piece as soon as it is made.

    The prompt, after an `<eos>` as in the training data, is read in one pass; each further token is
    one step on the exact streaming state, whose cost does not depend on the length of the past. On
    one machine, one seed gives one text. The first call for a model compiles its step, later calls
    use it.

    Args:
        model: a model of the state contract: `get_initial_state(batch, kind="exact")` and
            `call(ids, initial_state, return_state, training)`.
        vocabulary: its `keras_seq.pipelines.Vocabulary`.
        prompt: the text to continue; any bytes. It is not yielded.
        length: number of tokens to make.
        temperature: not negative. 0 takes the likeliest token.
        top_k: number of tokens that may be drawn; 0 for all.
        top_p: share of the probability that may be drawn, in (0, 1].
        seed: an integer.
        stop: what ends the text and is no part of it: a token by name or id, such as `"<eos>"`, a
            text of several tokens, such as `"\\n\\n"`, or a list of such. It must be within what is
            made, not begin in the prompt; what may become it is not yielded before that is known.
        ban: tokens that never follow, such as `"<unk>"`.
        repetition_penalty: the power to which the probability of a token is raised that the text
            holds already, its prompt included. Above 1 for less repetition; 1 for none.
        beams: above 1, the likeliest text that a beam search finds, see `beam_search`. Nothing is
            drawn, and the first piece comes when the search is over.
        length_penalty: of `beam_search`.

    Yields:
        Pieces of text. Words are separated by spaces, and `<eos>` is a line end.

    Raises:
        ValueError: for an option out of range, a token of `stop` or `ban` that the vocabulary does
            not have, or a vocabulary of another size than the model's.

    Example:

    >>> vocabulary = keras_seq.pipelines.Vocabulary(["<eos>", "a", "b", "c"], level="character")
    >>> core = keras_seq.layers.TrellisNet(units=12, output_units=8, levels=4)
    >>> model = keras_seq.models.LanguageModel(vocabulary_size=4, embedding_dim=8, core=core)
    >>> text = "".join(keras_seq.generation.generate(model, vocabulary, "ab", length=10))
    >>> len(text)
    10
    """
    check_options(temperature, top_k, top_p)
    check_length_and_seed(length, seed)
    check_beams(beams, length_penalty)
    check_vocabulary(model, vocabulary)
    rules: dict[str, Any] = {
        "stop": stop_ids(vocabulary, stop),
        "ban": token_ids(vocabulary, ban, "ban"),
        "repetition_penalty": repetition_penalty,
    }
    asked = TokenRules.of(vocabulary.size, **rules) if asks_for_rules(**rules) else None
    text = prompt.encode() if isinstance(prompt, str) else bytes(prompt)
    if beams > 1:
        drawing = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        for (name, value), usual in zip(drawing.items(), (1, 0, 1), strict=True):
            if value != usual:
                raise ValueError(
                    f"`{name}` must be left out with `beams` above 1, which draws nothing. "
                    f"Received: {name}={value!r}, beams={beams}."
                )
        rules |= {"beams": beams, "length_penalty": length_penalty}

        def search(ids) -> Iterator[int]:
            found, _ = beam_search(model, ids[None], length=length, **rules)
            return (token for token in found[0, 0].numpy().tolist() if token >= 0)

        return _pieces(vocabulary, text, search)

    options = (
        as_tensor(temperature, tf.float32),
        as_tensor(top_k, tf.int32),
        as_tensor(top_p, tf.float32),
    )

    def draw(ids) -> Iterator[int]:
        steps = stepper(model)
        if asked is None:
            return _drawn(steps, ids, length, options, seed)
        made = _drawn_by_rules(steps, ids, length, options, seed, asked)
        return until_end(made, checked_endings(rules["stop"], vocabulary.size))

    return _pieces(vocabulary, text, draw if length else lambda ids: iter(()))


def _pieces(vocabulary, prompt: bytes, tokens_after: Callable[[Any], Iterator[int]]):
    """The text of the tokens that follow a prompt, piece by piece."""
    ids = tf.concat([[start_id(vocabulary)], vocabulary.encode(tf.constant(prompt))], axis=0)
    joiner = Joiner(vocabulary, prompt)
    for token in tokens_after(ids):
        piece = joiner.push(token)
        if piece:
            yield piece
    rest = joiner.finish()
    if rest:
        yield rest


def _drawn(steps: Stepper, ids, length: int, options, seed: int) -> Iterator[int]:
    state, feed = steps.initial_state(1), ids[None]
    for position in range(length):
        token, state = steps.draw(feed, *options, tf.constant([[seed, position]]), *state)
        feed = token[:, None]
        yield int(token[0])


def _drawn_by_rules(
    steps: Stepper, ids, length: int, options, seed: int, rules: TokenRules
) -> Iterator[int]:
    def draw(ids, rules, seen, options, pairs, state):
        values, state = steps.advance(ids, *state)
        temperature, top_k, top_p = options
        log_probs = rules.apply(steps.last_log_probs(values), seen)
        token = sample(log_probs, temperature, top_k, top_p, pairs)
        return token, rules.seen_with(seen, token), state

    step = steps.compiled("by_rules", draw)
    state, feed = steps.initial_state(1), ids[None]
    seen = rules.seen_in(feed, tf.shape(feed)[1:])
    for position in range(length):
        pairs = tf.constant([[seed, position]])
        token, seen, state = step(feed, rules, seen, options, pairs, state)
        feed = token[:, None]
        yield int(token[0])
