"""Streams and batches of text against recomputation of the whole text at every token."""

import gc
import itertools
import weakref
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from generation.small_models import contract_model, letters, trellis_model, words

from keras_seq.generation import generate, generate_ids
from keras_seq.generation.joining import Joiner, join
from keras_seq.generation.stepping import stepper
from keras_seq.pipelines import Vocabulary

MODELS = {"contract": contract_model, "trellis": trellis_model}


def recomputed(model, ids: list, length: int) -> list[int]:
    """The likeliest continuation, with the whole sequence read again for every token."""
    ids, start = list(ids), len(ids)
    for _ in range(length):
        log_probs = model(np.array([ids]), training=False)
        ids.append(int(np.argmax(keras.ops.convert_to_numpy(log_probs)[0, -1])))
    return ids[start:]


@pytest.mark.parametrize("name", [pytest.param("contract", marks=pytest.mark.slow), "trellis"])
def test_greedy_stream_equals_recomputation(name):
    vocabulary = words()
    model = MODELS[name](vocabulary.size)
    for prompt in ("", "the cat", "a dog ran\nthe unknown"):
        ids = [vocabulary.eos_id, *vocabulary.encode(prompt).numpy()]
        want = recomputed(model, ids, 25)
        assert len(set(want)) > 2  # a constant would prove nothing
        streamed = "".join(generate(model, vocabulary, prompt, length=25, temperature=0))
        decoded = vocabulary.decode(want).numpy().decode()
        glue = prompt != "" and want[0] != vocabulary.eos_id
        assert streamed == " " * glue + decoded
        batched = generate_ids(model, [ids], length=25, temperature=0)
        assert batched.numpy().tolist() == [want]


def test_characters_join_directly():
    vocabulary = letters()
    model = trellis_model(vocabulary.size)
    want = recomputed(model, [vocabulary.eos_id, *vocabulary.encode("ten a").numpy()], 30)
    streamed = "".join(generate(model, vocabulary, "ten a", length=30, temperature=0))
    assert streamed == vocabulary.decode(want).numpy().decode()
    assert len(streamed.replace("<unk>", "?")) == 30 and "_" not in streamed


def test_pieces_come_one_by_one():
    vocabulary = letters()
    model = contract_model(vocabulary.size)
    endless = generate(model, vocabulary, length=10**9, seed=2)
    first = list(itertools.islice(endless, 5))
    assert first == list(generate(model, vocabulary, length=5, seed=2))
    assert list(generate(model, vocabulary, "ten", length=0)) == []


def test_a_seed_gives_one_text_and_the_step_compiles_once():
    vocabulary = words()
    model = trellis_model(vocabulary.size)
    texts = {
        seed: "".join(generate(model, vocabulary, "the cat", 20, 1.3, 8, 0.95, seed))
        for seed in (0, 1, 2, -5)
    }
    assert len(set(texts.values())) == 4
    for seed, text in texts.items():
        assert text == "".join(generate(model, vocabulary, b"the cat", 20, 1.3, 8, 0.95, seed))
    assert texts[0] != "".join(generate(model, vocabulary, "off", 20, 1.3, 8, 0.95, 0))
    assert stepper(model).draw.experimental_get_tracing_count() == 1


def test_new_weights_are_used():
    vocabulary = words()
    model = contract_model(vocabulary.size)
    before = list(generate(model, vocabulary, length=20))
    model.set_weights([-weight for weight in model.get_weights()])
    assert list(generate(model, vocabulary, length=20)) != before


@pytest.mark.parametrize("name", MODELS)
def test_a_row_depends_on_itself_alone(name):
    vocabulary = words()
    model = MODELS[name](vocabulary.size)
    ids = np.array([[1, 2, 3, 4], [1, 5, 0, 0], [6, 0, 0, 0]])
    lengths, length = tf.constant([4, 2, 1]), tf.constant([6, 9, 3])
    options = {
        "temperature": tf.constant([1.0, 1.5, 0.0]),
        "top_k": tf.constant([0, 5, 0]),
        "top_p": tf.constant([0.9, 1.0, 1.0]),
        "seed": tf.constant([4, 4, 8]),
    }
    together = generate_ids(model, ids, lengths, length, **options).numpy()
    assert together.shape == (3, 9)
    for i, row in enumerate(together):
        own = {key: value[i : i + 1] for key, value in options.items()}
        alone = generate_ids(model, ids[i : i + 1, : lengths[i]], length=length[i], **own)
        count = int(length[i])
        np.testing.assert_array_equal(row[:count], alone.numpy()[0])
        assert (row[:count] >= 0).all() and (row[count:] == -1).all()


def test_batches_draw_what_streams_draw():
    vocabulary = words()
    model = contract_model(vocabulary.size)
    prompt = [[vocabulary.eos_id, *vocabulary.encode("the cat").numpy()]] * 3
    rows = generate_ids(model, prompt, length=12, top_k=6, seed=40).numpy()
    for i, row in enumerate(rows):
        streamed = "".join(generate(model, vocabulary, "the cat", 12, top_k=6, seed=40 + i))
        text = join(vocabulary, vocabulary.to_tokens(row[None]), row[None] >= 0, ["the cat"])
        assert streamed == text.numpy()[0].decode()
    assert len({tuple(row) for row in rows}) == 3
    assert generate_ids(model, prompt, length=0).shape == (3, 0)


def test_a_forgotten_model_is_freed():
    vocabulary = words()
    model = contract_model(vocabulary.size)
    list(generate(model, vocabulary, length=2))
    generate_ids(model, [[1]], length=2)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_what_cannot_be_is_refused():
    vocabulary = words()
    model = contract_model(vocabulary.size)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"length": -1}, "`length` must be 0 or more. Received: length=-1"),
        ({"length": 2.5}, "`length` must be an integer"),
        ({"seed": None}, "`seed` must be an integer"),
        ({"seed": 2**31}, "`seed` must fit in 32 bits"),
        ({"temperature": -1}, "`temperature`"),
        ({"top_k": -1}, "`top_k`"),
        ({"top_p": 2}, "`top_p`"),
    ]
    for options, message in refused:
        with pytest.raises(ValueError, match=message):
            generate(model, vocabulary, **options)  # at once, not at the first piece
    with pytest.raises(ValueError, match=r"vocabulary.size=10, model.vocabulary_size=11"):
        generate(model, letters())
    with pytest.raises(ValueError, match=r"`ids` must be of shape \(batch, time\)"):
        generate_ids(model, [1, 2])
    with pytest.raises(ValueError, match="`length`"):
        generate_ids(model, [[1, 2]], length=-1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="lengths"):
        generate_ids(model, [[1, 2]], lengths=[3])
    plain = keras.Sequential([keras.layers.Embedding(11, 4), keras.layers.Dense(11)])
    with pytest.raises(TypeError, match="get_initial_state"):
        list(generate(plain, vocabulary))


@pytest.mark.parametrize("before", [b"", b"the", b"the ", b"the\n", b"\xff"])
def test_joining_in_python_and_in_the_graph_agree(before):
    for vocabulary in (words(), letters(), Vocabulary([b"\xe6", b"\x97\xa5", b"\n", b"x"], "word")):
        rng = np.random.default_rng(3)
        ids = rng.integers(0, vocabulary.size, (6, 9))
        keep = np.arange(9)[None] < rng.integers(0, 10, (6, 1))
        texts = join(vocabulary, vocabulary.to_tokens(ids), keep, [before] * 6).numpy()
        for row, kept, text in zip(ids, keep, texts, strict=True):
            joiner = Joiner(vocabulary, before)
            pieces = [joiner.push(int(token)) for token in row[kept]]
            assert "".join([*pieces, joiner.finish()]) == text.decode()


def test_a_character_spread_over_tokens_is_yielded_whole():
    vocabulary = Vocabulary([b"\xe6\x97", b"\xa5", b"<eos>"], "character")
    joiner = Joiner(vocabulary)
    assert [joiner.push(i) for i in (0, 1, 0, 2)] == ["", "\u65e5", "", "\ufffd\n"]
    joiner.push(0)
    assert joiner.finish() == "\ufffd"
