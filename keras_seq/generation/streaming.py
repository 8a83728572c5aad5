"""Text from one prompt, as it is made."""

from collections.abc import Iterator

import keras
import tensorflow as tf

from keras_seq.generation.joining import Joiner
from keras_seq.generation.sampling import check_options
from keras_seq.generation.stepping import check_vocabulary, start_id, stepper


def generate(
    model: keras.Model,
    vocabulary,
    prompt: str | bytes = "",
    length: int = 200,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
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

    Yields:
        Pieces of text. Words are separated by spaces, and `<eos>` is a line end.

    Raises:
        ValueError: for an option out of range, or a vocabulary of another size than the model's.

    Example:

    >>> vocabulary = keras_seq.pipelines.Vocabulary(["<eos>", "a", "b", "c"], level="character")
    >>> core = keras_seq.layers.TrellisNet(units=12, output_units=8, levels=4)
    >>> model = keras_seq.models.LanguageModel(vocabulary_size=4, embedding_dim=8, core=core)
    >>> text = "".join(keras_seq.generation.generate(model, vocabulary, "ab", length=10))
    >>> len(text)
    10
    """
    check_options(temperature, top_k, top_p)
    for name, value in (("length", length), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"`{name}` must be an integer. Received: {name}={value!r}.")
    if length < 0:
        raise ValueError(f"`length` must be 0 or more. Received: length={length}.")
    if not -(2**31) <= seed < 2**31:
        raise ValueError(f"`seed` must fit in 32 bits. Received: seed={seed}.")
    check_vocabulary(model, vocabulary)
    text = prompt.encode() if isinstance(prompt, str) else bytes(prompt)
    options = (float(temperature), int(top_k), float(top_p))
    return _pieces(model, vocabulary, text, length, options, seed)


def _pieces(model, vocabulary, prompt: bytes, length: int, options, seed: int) -> Iterator[str]:
    if not length:
        return
    steps = stepper(model)
    ids = tf.concat([[start_id(vocabulary)], vocabulary.encode(tf.constant(prompt))], axis=0)
    temperature, top_k, top_p = options
    options = (tf.constant(temperature), tf.constant(top_k), tf.constant(top_p))
    joiner = Joiner(vocabulary, prompt)
    state, feed = steps.initial_state(1), ids[None]
    for position in range(length):
        token, state = steps.draw(feed, *options, tf.constant([[seed, position]]), *state)
        feed = token[:, None]
        piece = joiner.push(int(token[0]))
        if piece:
            yield piece
    rest = joiner.finish()
    if rest:
        yield rest
