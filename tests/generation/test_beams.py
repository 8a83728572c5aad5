"""Beam search against all continuations there are."""

import keras
import numpy as np
import pytest
from generation.small_models import contract_model, trellis_model, words

from keras_seq.generation import beam_search, generate, generate_ids

SIZE, LENGTH = 4, 3
PROMPTS = ([1, 2], [3])
PADDED = [[1, 2], [3, -1]]


@pytest.fixture(scope="module")
def model():
    return contract_model(SIZE)


def log_probs(model, rows) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(np.array(rows), training=False))[:, -1]


def every_continuation(model, prompt, stop, ban=(), penalty=1.0, power=0.0) -> list:
    """(score, tokens) of all continuations, the best first."""
    found, live = [], [(0.0, [])]
    endings = [end if isinstance(end, list) else [end] for end in stop]
    for count in range(1, LENGTH + 1):
        rows = [prompt + tokens for _, tokens in live]
        longer = []
        for (score, tokens), row, values in zip(live, rows, log_probs(model, rows), strict=True):
            ends = {}  # how many tokens an end has → log-probability
            for token in set(range(SIZE)) - set(ban):
                value = float(values[token]) * (penalty if token in row else 1)
                made = [*tokens, token]
                sizes = [len(end) for end in endings if made[-len(end) :] == end]
                if sizes:
                    ends[max(sizes)] = np.logaddexp(ends.get(max(sizes), -np.inf), value)
                else:
                    longer.append((score + value, made))
            for taken, value in ends.items():
                left = tokens[: len(tokens) + 1 - taken]
                found.append(((score + value) / count**power, left))
        live = longer
    found += [(score / LENGTH**power, tokens) for score, tokens in live]
    return sorted(found, key=lambda entry: -entry[0])


@pytest.mark.parametrize("stop", [(), (2,), (0, 2), ([1, 2],), (0, [3, 1], [2, 3, 1])])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_enough_beams_find_the_best_of_all(model, stop, power):
    """Rows of two lengths in one batch; the finished and the unfinished; their scores."""
    options = {"stop": stop, "length_penalty": power}
    found, scores = beam_search(model, PADDED, [2, 1], LENGTH, beams=SIZE**LENGTH, **options)
    few, few_scores = beam_search(
        model, PADDED, [2, 1], LENGTH, beams=SIZE ** (LENGTH - 1), **options
    )
    for row, prompt in enumerate(PROMPTS):
        want = every_continuation(model, prompt, stop, power=power)
        got = [[t for t in tokens if t >= 0] for tokens in found[row].numpy().tolist()]
        assert got[: len(want)] == [tokens for _, tokens in want]
        np.testing.assert_allclose(scores[row][: len(want)], [s for s, _ in want], rtol=1e-5)
        # Fewer continuations than beams: nothing is made up.
        assert np.isneginf(scores[row].numpy()[len(want) :]).all()
        assert not any(got[len(want) :])
        # As many beams as unfinished ones before the last step lose nothing of the best.
        np.testing.assert_array_equal(few[row, 0], found[row, 0])
        np.testing.assert_array_equal(few_scores[row, 0], scores[row, 0])


def test_rules_hold_in_the_search(model):
    options = {"stop": [2], "ban": [0], "repetition_penalty": 1.7}
    found, scores = beam_search(model, [[1, 2]], length=LENGTH, beams=30, **options)
    want = every_continuation(model, [1, 2], [2], [0], 1.7)
    got = [[t for t in tokens if t >= 0] for tokens in found[0].numpy().tolist()]
    assert got[: len(want)] == [tokens for _, tokens in want]
    np.testing.assert_allclose(scores[0][: len(want)], [s for s, _ in want], rtol=1e-5)


def test_a_row_depends_on_itself_alone():
    """On the exact state of a TrellisNet, with few beams, unequal lengths and an early end."""
    model = trellis_model(11)
    ids, lengths, length = [[1, 2, 3], [4, 0, 0], [6, 5, 0]], [3, 1, 2], [4, 9, 0]
    together, scores = beam_search(model, ids, lengths, length, beams=3, stop=[1, 7])
    assert together.shape == (3, 3, 9)
    for row in range(3):
        alone, own = beam_search(
            model, [ids[row][: lengths[row]]], length=length[row], beams=3, stop=[1, 7]
        )
        np.testing.assert_array_equal(together[row, :, : length[row]], alone[0])
        np.testing.assert_allclose(scores[row], own[0], rtol=1e-5)
        assert (together[row, :, length[row] :].numpy() == -1).all()
        # The score is that of the tokens, read again as a whole.
        for tokens, score in zip(alone[0].numpy().tolist(), own[0].numpy(), strict=True):
            tokens = [t for t in tokens if t >= 0]
            total, prompt = 0.0, ids[row][: lengths[row]]
            for at, token in enumerate(tokens):
                total += log_probs(model, [prompt + tokens[:at]])[0, token]
            if len(tokens) < length[row]:
                total += np.logaddexp(*log_probs(model, [prompt + tokens])[0, [1, 7]])
            if np.isfinite(score):
                np.testing.assert_allclose(score, total, rtol=1e-4)


def test_one_beam_takes_the_likeliest_token():
    vocabulary = words()
    model = trellis_model(vocabulary.size)
    greedy = generate_ids(model, [[1, 2]], length=9, temperature=0)
    np.testing.assert_array_equal(beam_search(model, [[1, 2]], length=9, beams=1)[0][0], greedy)
    (best, *_), _ = beam_search(model, [[vocabulary.eos_id]], length=9, beams=4)
    text = "".join(generate(model, vocabulary, length=9, beams=4))
    assert text == vocabulary.decode(best[:1]).numpy()[0].decode()
    assert beam_search(model, [[1, 2]], length=9, beams=4)[1][0, 0] > log_of(model, greedy[0])
    assert list(generate(model, vocabulary, length=0, beams=4)) == []


def log_of(model, tokens) -> float:
    """The log-probability of tokens after [1, 2]."""
    ids = [1, 2, *map(int, tokens)]
    values = keras.ops.convert_to_numpy(model(np.array([ids]), training=False))[0]
    return float(sum(values[at, token] for at, token in enumerate(ids[2:], 1)))
