"""Tokens that stop a text, tokens that are banned, and the repetition penalty."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from generation.small_models import contract_model, trellis_model, words

from keras_seq.generation import generate, generate_ids
from keras_seq.generation.joining import join
from keras_seq.generation.stepping import stepper
from keras_seq.generation.token_rules import TokenRules, stop_ids, token_ids, until_end
from keras_seq.pipelines import Vocabulary

VOCABULARY = words()
RULES: dict[str, Any] = {"stop": ["<eos>", "dog"], "ban": "<unk>", "repetition_penalty": 1.5}
IDS: dict[str, Any] = {
    "stop": token_ids(VOCABULARY, RULES["stop"], "stop"),
    "ban": token_ids(VOCABULARY, RULES["ban"], "ban"),
    "repetition_penalty": 1.5,
}


@pytest.fixture(scope="module")
def model():
    return trellis_model(VOCABULARY.size)


def recomputed(model, ids: list, length: int, stop, ban, penalty: float) -> list[int]:
    """The likeliest continuation under the rules, by the definitions of the documentation."""
    ids, start = list(ids), len(ids)
    while len(ids) < start + length:
        log_probs = keras.ops.convert_to_numpy(model(np.array([ids]), training=False))[0, -1]
        scores = [
            -np.inf if token in ban else float(value) * (penalty if token in ids else 1)
            for token, value in enumerate(log_probs)
        ]
        token = int(np.argmax(scores))
        if token in stop:
            break
        ids.append(token)
    return ids[start:]


def test_likeliest_tokens_under_the_rules(model):
    ended = 0
    for prompt in ("the cat", "off", "a dog ran\nthe"):
        ids = [VOCABULARY.eos_id, *VOCABULARY.encode(prompt).numpy()]
        want = recomputed(model, ids, 12, IDS["stop"], IDS["ban"], 1.5)
        ended += len(want) < 12
        streamed = "".join(generate(model, VOCABULARY, prompt, 12, 0, **RULES))
        row = np.array([want], "int32")
        text = join(VOCABULARY, VOCABULARY.to_tokens(row), row >= 0, [prompt])
        assert streamed == text.numpy()[0].decode()
        row = generate_ids(model, [ids], length=12, temperature=0, **IDS).numpy()[0]
        assert row.tolist() == want + [-1] * (12 - len(want))
    assert ended  # else nothing was stopped


def first_end(tokens: list, endings: list) -> list[int]:
    """The tokens before the end that is complete first; of two, before the longer one."""
    for count in range(1, len(tokens) + 1):
        found = [len(end) for end in endings if tokens[:count][-len(end) :] == end]
        if found:
            return tokens[: count - max(found)]
    return tokens


@pytest.mark.parametrize(
    "drawn",
    [{"temperature": 1.7, "top_k": 9}, pytest.param({"temperature": 0}, marks=pytest.mark.slow)],
)
def test_texts_of_several_tokens_end_a_text(model, drawn):
    """Streams and batches stop at the pairs and triples of what they make without any."""
    prompts, lengths = ["the cat", "off", "a dog ran\nthe"], [14, 5, 12]
    rows = [[VOCABULARY.eos_id, *VOCABULARY.encode(prompt).numpy()] for prompt in prompts]
    sizes = [len(row) for row in rows]
    padded = [row + [-1] * (max(sizes) - len(row)) for row in rows]
    free = generate_ids(model, padded, sizes, lengths, seed=3, **drawn).numpy()
    whole = [row[:count].tolist() for row, count in zip(free, lengths, strict=True)]
    stops: list = [
        [whole[0][3:5], whole[2][5:8], whole[1][4:] + [0]],  # the last begins at the very end
        [whole[0][6:9], whole[0][7]],  # an end within another one
        [whole[0][4:7], whole[0][5:7]],  # two that are complete at once
        [rows[0][-1:] + whole[0][:1], [0, 0, 0]],  # it would begin in the prompt
    ]
    for stop in stops:
        endings = [end if isinstance(end, list) else [end] for end in stop]
        want = [first_end(tokens, endings) for tokens in whole]
        made = generate_ids(model, padded, sizes, lengths, seed=3, stop=stop, **drawn).numpy()
        for i, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
            assert made[i].tolist() == want[i] + [-1] * (14 - len(want[i]))
            names = [[VOCABULARY.tokens[t].decode() for t in end] for end in endings]
            texts = [" ".join(end) if "<eos>" not in end else end for end in names]
            options = {"seed": 3 + i, "stop": texts, **drawn}
            pieces = list(generate(model, VOCABULARY, prompt, length, **options))
            row = np.array([want[i]], "int32").reshape(1, -1)
            text = join(VOCABULARY, VOCABULARY.to_tokens(row), row >= 0, [prompt])
            assert "".join(pieces) == text.numpy()[0].decode()
    assert any(len(tokens) > len(first_end(tokens, [stops[0][0]])) for tokens in whole)


def test_what_may_be_an_end_is_held_back():
    told: list[Any] = []

    def source(tokens):
        for token in tokens:
            told.append(f"made {token}")
            yield token

    for token in until_end(source([1, 2, 3, 1, 2, 1, 2, 4, 9]), [[1, 2, 4], [7]]):
        told.append(token)
    made = [f"made {token}" for token in (1, 2, 3, 1, 2, 1, 2, 4)]
    assert told == [*made[:3], 1, 2, 3, *made[3:6], 1, 2, *made[6:]]
    assert list(until_end([5, 1, 2], [[1, 2, 4]])) == [5, 1, 2]
    assert list(until_end([5, 7, 2], [[7, 2], [7]])) == [5]  # at once, not at the longer one
    assert list(until_end([5, 1, 7], [[1, 7], [7]])) == [5]
    assert list(until_end([], [[1]])) == []


def test_texts_are_split_as_the_data_are():
    letters = Vocabulary(["<eos>", "_", "a", "b"], level="character", space="_")
    assert stop_ids(letters, ["\n\n", "a b", b"ab", "\n", "<eos>", 3, [2, "b"]]) == [
        [0, 0], [2, 1, 3], [2, 3], 0, 0, 3, [2, 3],
    ]  # fmt: skip
    assert stop_ids(letters, "ab") == [[2, 3]]
    eos = VOCABULARY.eos_id
    assert stop_ids(VOCABULARY, ["the cat", "\n\n", "dog\n", "  dog "]) == [
        [VOCABULARY.id_of("the"), VOCABULARY.id_of("cat")],
        [eos, eos],
        [VOCABULARY.id_of("dog"), eos],
        VOCABULARY.id_of("dog"),
    ]
    for wrong in ("the cow", "cow", "", " ", [[]], [["the", "cow"]], [[[1]]], [None]):
        with pytest.raises(ValueError, match="`stop` must hold"):
            stop_ids(VOCABULARY, wrong)
    with pytest.raises(ValueError, match="'cow', which is none of its 11 words. It is a part of"):
        stop_ids(VOCABULARY, "the cow")


def test_batches_draw_what_streams_draw(model):
    """And a row that stopped changes nothing in one that goes on."""
    prompts = ["the cat", "off", "a mat sat on"]
    rows = [[VOCABULARY.eos_id, *VOCABULARY.encode(prompt).numpy()] for prompt in prompts]
    lengths = [len(row) for row in rows]
    padded = [row + [-1] * (max(lengths) - len(row)) for row in rows]
    drawn = {"temperature": 1.5, "top_k": 9}
    made = generate_ids(model, padded, lengths, [14, 5, 14], seed=3, **drawn, **IDS).numpy()
    assert made.shape == (3, 14)
    counts = (made >= 0).sum(axis=1)
    assert counts.min() < 14 and (made[1, 5:] == -1).all()
    for i, (prompt, length) in enumerate(zip(prompts, (14, 5, 14), strict=True)):
        row = made[i, : counts[i]]
        assert (row >= 0).all() and not np.isin(row, IDS["stop"] + IDS["ban"]).any()
        options = {"seed": 3 + i, **drawn, **RULES}
        streamed = "".join(generate(model, VOCABULARY, prompt, length, **options))
        text = join(VOCABULARY, VOCABULARY.to_tokens(row[None]), row[None] >= 0, [prompt])
        assert streamed == text.numpy()[0].decode()


def test_without_rules_the_step_is_the_one_of_before(model):
    before = stepper(model).draw.experimental_get_tracing_count()
    plain = "".join(generate(model, VOCABULARY, "the", 8, seed=2))
    assert plain == "".join(
        generate(model, VOCABULARY, "the", 8, seed=2, stop=(), ban=[], repetition_penalty=1)
    )
    assert stepper(model).draw.experimental_get_tracing_count() - before <= 1
    # A rule that changes nothing gives the same draws.
    assert plain == "".join(
        generate(model, VOCABULARY, "the", 8, seed=2, repetition_penalty=1 + 1e-12)
    )


def test_a_penalty_holds_repetition_down(model):
    def different(penalty: float) -> int:
        rows = generate_ids(model, [[1]] * 8, length=10, repetition_penalty=penalty).numpy()
        return sum(len(set(row)) for row in rows)

    assert different(0.2) < different(1.0) < different(5.0)


def test_log_probabilities_under_the_rules():
    rules = TokenRules.of(4, stop=3, ban=[0], repetition_penalty=2.0)
    seen = rules.seen_in(tf.constant([[1, 2, 2], [3, 0, 0]]), tf.constant([3, 1]))
    np.testing.assert_array_equal(seen, [[0, 1, 1, 0], [0, 0, 0, 1]])
    np.testing.assert_array_equal(
        rules.seen_with(seen, tf.constant([0, 3])), [[1, 1, 1, 0], [0, 0, 0, 1]]
    )
    got = rules.apply(tf.constant([[-1.0, -np.inf, -3.0, -4.0]] * 2), seen)
    np.testing.assert_array_equal(
        got, [[-np.inf, -np.inf, -6.0, -4.0], [-np.inf, -np.inf, -3.0, -8.0]]
    )


def test_tokens_are_given_by_name_or_id():
    letters = Vocabulary(["<eos>", "_", "a", "b"], level="character", space="_")
    assert token_ids(letters, ["\n", " ", "a", b"b", 1], "stop") == [0, 1, 2, 3, 1]
    assert token_ids(letters, "<eos>", "stop") == token_ids(letters, 0, "stop") == [0]
    lines = Vocabulary(["a", "\n"], level="character")
    assert token_ids(lines, ["<eos>", "\n"], "stop") == [1, 1]
    assert token_ids(VOCABULARY, "\n", "stop") == [VOCABULARY.eos_id]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop": ["cow"]}, "`stop` must hold tokens of the vocabulary. Received: 'cow'"),
        ({"ban": 11}, "`ban` must hold ids from 0 to 10, the vocabulary's. Received: 11"),
        ({"ban": [-1]}, "`ban` must hold ids from 0 to 10"),
        ({"ban": range(11)}, "`ban` must leave a token to choose. Received: all 11"),
        ({"repetition_penalty": 0}, "`repetition_penalty` must be a number from 0.001 to 1000"),
        ({"repetition_penalty": float("nan")}, "`repetition_penalty`"),
        ({"beams": 0}, "`beams` must be an integer from 1 to 1024. Received: beams=0"),
        ({"length_penalty": -1.0}, "`length_penalty` must be a finite number, 0 or more"),
        ({"beams": 2, "temperature": 0.5}, "`temperature` must be left out with `beams`"),
        ({"beams": 2, "top_k": 3}, "`top_k` must be left out with `beams`"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    model = contract_model(VOCABULARY.size)
    with pytest.raises(ValueError, match=message):
        generate(model, VOCABULARY, **options)


def test_ids_that_cannot_be_are_refused(model):
    wrong: Any = (
        *({"stop": "the"}, {"ban": [1.5]}, {"stop": [True]}, {"ban": 11}, {"ban": [[1, 2]]}),
        *({"stop": [[1, 11]]}, {"stop": [[]]}, {"stop": ["the"]}, {"stop": 1.5}, {"stop": None}),
    )
    for options in wrong:
        (name,) = options
        with pytest.raises(ValueError, match=f"`{name}` must"):
            generate_ids(model, [[1]], **options)
    wrong = ({"length": 2.5}, {"seed": 2**31})
    for options in wrong:
        with pytest.raises(ValueError, match=f"`{next(iter(options))}` must"):
            generate_ids(model, [[1]], **options)
