"""What a process with nothing but TensorFlow answers, against the Keras model."""

import json
from typing import Any

import keras
import numpy as np

from keras_seq.generation import generate

LANGUAGE = ("contract", "trellis", "adaptive", "bfloat16")
READERS = {"classifier": "log_probs", "regressor": "outputs"}


def outputs(model, x) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(x, training=False))


def after(entry, text: bytes, limit: int = 1024) -> np.ndarray:
    """The Keras model's log-probabilities after a text."""
    ids = [entry.vocabulary.eos_id, *entry.vocabulary.encode(text).numpy()]
    return outputs(entry.model, np.array([ids[-limit:]]))[0, -1]


TEXTS = [b"the cat", b"", b"a \xff\xfe cat\n\x00 sat", b"the cat sat on " * 300, b"\n"]
# Longer than the bytes that are read; for letters cut in the middle of a character of three bytes.
LONG = ("\u65e5\u00e9 the cat " * 60_000 + "sat\u65e5").encode()


def step_request(entry, rng, batch: int) -> dict:
    """Random ids and a random state, of the shapes that the export describes."""
    description = entry.folder / "assets.extra" / "keras_seq.json"
    described = json.loads(description.read_text())["signatures"]["step"]["inputs"]
    request = {
        name: rng.normal(size=(batch, *spec["shape"][1:])).astype(spec["dtype"])
        for name, spec in described.items()
        if name != "ids"
    }
    return request | {"ids": rng.integers(0, 10, (batch, 3)).astype("int32")}


def generation(texts, length, temperature, top_k, seed) -> dict:
    return {
        "text": texts,
        "length": np.int32(length),
        "temperature": np.float32(temperature),
        "top_k": np.int32(top_k),
        "seed": np.int32(seed),
    }


def test_answers_equal_the_keras_model(exported, bare, rng):
    """All of it in one process, which imports TensorFlow once."""
    numbers = {}

    def ask(key, name, *arguments):
        numbers[key] = bare.ask(exported[name].folder, *arguments)

    inputs = {}
    for name in LANGUAGE:
        size = exported[name].model.vocabulary_size
        inputs[name] = rng.integers(0, size, (3, 14)).astype("int32")
        for signature in ("serving_default", "log_probs"):
            ask((name, signature), name, "call", signature, {"ids": inputs[name]})
        ask((name, "one"), name, "call", "log_probs", {"ids": inputs[name][:1, :1]})
        ask((name, "steps"), name, "stream", "log_probs", inputs[name], [1] * 14)
        ask((name, "chunks"), name, "stream", "log_probs", inputs[name], [5, 1, 8])
    for name, output in READERS.items():
        inputs[name] = rng.normal(size=(3, 14, 3)).astype("float32")
        for signature in ("serving_default", output):
            ask((name, signature), name, "call", signature, {"x": inputs[name]})
        ask((name, "steps"), name, "stream", output, inputs[name], [1] * 14)
    texts = np.array(TEXTS, dtype=object)
    for name in ("contract", "trellis", "adaptive"):
        ask((name, "text"), name, "call", "text", {"text": texts})
        ask((name, "none"), name, "call", "text", {"text": texts[:1]})
        drawn = generation(texts, 20, 1.2, 5, 3)
        ask((name, "generate"), name, "call", "generate", drawn)
        greedy = generation(texts[:2], [7, 0], [0, 1], [0, 2], [1, 2])
        ask((name, "rows"), name, "call", "generate", greedy)
        for key, text in (("long", LONG), ("end of it", LONG[-5000:])):
            ask((name, key), name, "call", "text", {"text": np.array([text], dtype=object)})
    one = generation(texts[:2], 8, 1, 0, 0)
    requests = [
        ("log_probs", {"ids": inputs["trellis"]}),
        ("text", {"text": texts}),
        ("generate", one),
        ("generate", one | {"seed": np.int32(9)}),
        ("initial_state", {"batch_size": np.int32(3)}),
        *(("step", step_request(exported["trellis"], rng, batch)) for batch in (1, 4)),
    ]
    ask("threads", "trellis", "hammer", requests)
    many = rng.integers(0, 10, (8, 25)).astype("int32")
    ask("streams", "trellis", "streams", many)
    ask("merged", "trellis", "merged", many[:1, :3], many[1:2, :17], many[2:4, :2])
    refused = {
        "`ids` must be from 0 to 9": ("log_probs", {"ids": np.array([[0, 10]], "int32")}),
        "`length` must be from 0 to 50": ("generate", one | {"length": np.int32(51)}),
        "`temperature` must be a finite": ("generate", one | {"temperature": np.float32(-1)}),
        "`top_k` must be 0 or more": ("generate", one | {"top_k": np.int32(-1)}),
        "`batch_size` must be from 1 to 4096": ("initial_state", {"batch_size": np.int32(0)}),
        "`ids` must not be empty": ("log_probs", {"ids": np.zeros((2, 0), "int32")}),
        "`text` must not be empty": ("text", {"text": np.array([], dtype=object)}),
        "`top_k` must be one value, or one for each text. Received:": (
            "generate",
            one | {"top_k": np.zeros(3, "int32")},
        ),
        "`seed` must be one value": ("generate", one | {"seed": np.zeros((1, 1), "int32")}),
        "tensor ids [2] is not compatible": ("log_probs", {"ids": np.zeros(2, "int32")}),
    }
    # A state of other widths, of other rows, of another rank.
    step = step_request(exported["trellis"], rng, 2)
    for message, shape in (
        ("`state_hidden` must be of shape (b, {1}, {2}). Received:] [2 {3} {2}]", (1, 2, 1)),
        ("`state_hidden` must be of shape (b, {1}, {2}). Received:] [2 {1} {4}]", (1, 1, 2)),
        ("`state_hidden` must have as many rows as `ids`. Received:] [4]", (2, 1, 1)),
    ):
        sizes = step["state_hidden"].shape
        message = message.format(*sizes, *(2 * size for size in sizes[1:]))
        wrong = np.tile(step["state_hidden"], shape)
        refused[message] = ("step", step | {"state_hidden": wrong})
    flat = step["state_hidden"].reshape(2, -1)
    refused["tensor state_hidden"] = ("step", step | {"state_hidden": flat})
    for message, request in refused.items():
        ask(message, "trellis", "error", *request)
    # Of a model that reads vectors.
    for message, shape in (
        ("`x` must be of shape (b, t, 3). Received:] [2 5 4]", (2, 5, 4)),
        ("tensor x [2,3]", (2, 3)),
    ):
        refused[message] = ()
        ask(message, "regressor", "error", "outputs", {"x": np.zeros(shape, "float32")})

    answers = bare.run()
    got = {key: answers[number] for key, number in numbers.items()}

    for name in LANGUAGE:
        # bfloat16 keeps 8 bits, so that even the order of a sum is seen.
        close: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5 if name != "bfloat16" else 0.1}
        want = outputs(exported[name].model, inputs[name])
        assert np.ptp(want) > 1
        for key in ("serving_default", "log_probs"):
            np.testing.assert_allclose(got[name, key]["log_probs"], want, **close)
        np.testing.assert_allclose(got[name, "one"]["log_probs"], want[:1, :1], **close)
        np.testing.assert_allclose(got[name, "steps"], want, **close)
        np.testing.assert_allclose(got[name, "chunks"], want, **close)
    for name, output in READERS.items():
        want = outputs(exported[name].model, inputs[name])
        for key in ("serving_default", output):
            np.testing.assert_allclose(got[name, key][output], want, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(got[name, "steps"], want, rtol=1e-5, atol=1e-5)
    classes = got["classifier", "log_probs"]
    np.testing.assert_array_equal(classes["class"], classes["log_probs"].argmax(-1))

    for name, count, limit in (("contract", 3, 6), ("trellis", 10, 1024), ("adaptive", 10, 1024)):
        # Of the trellis network no more is read than has an effect; the answer is that to all.
        entry, answer = exported[name], got[name, "text"]
        tokens = np.array(entry.vocabulary.tokens)
        for i, text in enumerate(TEXTS):
            want = after(entry, text, limit)
            best = np.argsort(-want, kind="stable")[:count]
            np.testing.assert_array_equal(answer["ids"][i], best)
            np.testing.assert_array_equal(answer["tokens"][i], tokens[best])
            np.testing.assert_allclose(answer["scores"][i], want[best], rtol=1e-5, atol=1e-5)
        for i, text in enumerate(TEXTS):
            if limit == 6 and i in (2, 3):
                continue  # longer than what this model reads
            pieces = generate(entry.model, entry.vocabulary, text, 20, 1.2, 5, seed=3 + i)
            assert got[name, "generate"]["text"][i].decode() == "".join(pieces)
        rows = got[name, "rows"]
        greedy = generate(entry.model, entry.vocabulary, TEXTS[0], 7, 0)
        assert rows["text"].tolist() == ["".join(greedy).encode(), b""]
        assert rows["ids"].shape == (2, 7) and (rows["ids"][1] == -1).all()

        # What lies before the tokens that are read changes nothing, however much it is.
        for key, value in got[name, "long"].items():
            np.testing.assert_array_equal(value, got[name, "end of it"][key])

    assert got["threads"] == (8 * 10, 0)
    want = outputs(exported["trellis"].model, many)
    np.testing.assert_allclose(got["streams"], want, rtol=1e-5, atol=1e-5)
    together, alone = got["merged"]
    assert set(together) == {"log_probs", "state_hidden", "state_cell", "state_input"}
    for key, value in together.items():
        np.testing.assert_allclose(value, alone[key], rtol=1e-5, atol=1e-5)
    for message in refused:
        assert message in got[message]
