"""The exported folder: what it holds, how it appears, and what is refused."""

import ctypes
import gc
import json
import subprocess
import sys
import threading
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from generation.small_models import contract_model, letters, trellis_model, words
from tensorflow.core.protobuf import saved_model_pb2

from keras_seq.export import export_model
from keras_seq.export.versions import publish, versions
from keras_seq.generation import generate
from keras_seq.layers import LSTM, TCN
from keras_seq.models import SequenceClassifier, SequenceRegressor
from keras_seq.pipelines import Vocabulary


def operations(folder) -> set[str]:
    """Types of all operations of a SavedModel."""
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    return {node.op for node in nodes}


def test_folder_holds_what_a_server_reads(exported):
    folder = exported["trellis"].folder
    assert folder.name == "1" and folder.parent.name == "trellis"
    names = {path.name for path in folder.iterdir()}
    assert names >= {"saved_model.pb", "variables", "assets", "assets.extra"}
    assert [path.name for path in folder.parent.iterdir()] == ["1"]  # nothing hidden is left
    vocabulary = Vocabulary.load(folder / "assets" / "vocabulary.txt")
    assert vocabulary.tokens == letters().tokens
    assert (vocabulary.level, vocabulary.space) == ("character", b"_")
    description = json.loads((folder / "assets.extra" / "keras_seq.json").read_text())
    assert description["name"] == "trellis"
    assert description["class"] == "LanguageModel"
    assert description["metrics"] == {"bits": 2.5}
    assert description["text"] == {
        "top_k": 10,
        "max_tokens": exported["trellis"].model.core.receptive_field,
        "max_length": 50,
        "level": "character",
    }
    signatures = description["signatures"]
    assert set(signatures) == {
        "serving_default",
        "log_probs",
        "log_probs_of_lengths",
        "text",
        "generate",
        "initial_state",
        "step",
    }
    step = signatures["step"]
    states = {"state_hidden", "state_cell", "state_input"}
    assert set(step["inputs"]) == {"ids"} | states
    assert set(step["outputs"]) == {"log_probs"} | states
    assert step["inputs"]["ids"] == {"dtype": "int32", "shape": [None, None]}


def test_half_precision_travels_as_float32(exported):
    description = exported["bfloat16"].folder / "assets.extra" / "keras_seq.json"
    description = json.loads(description.read_text())
    assert description["precision"] == "mixed_bfloat16"
    assert set(description["signatures"]) == {
        "serving_default",
        "log_probs",
        "log_probs_of_lengths",
        "initial_state",
        "step",
    }
    for signature in description["signatures"].values():
        for tensor in (*signature["inputs"].values(), *signature["outputs"].values()):
            assert tensor["dtype"] in ("int32", "float32")


def test_nothing_of_training_is_exported(exported):
    for entry in exported.values():
        used = operations(entry.folder)
        random = {name for name in used if "Random" in name or "Dropout" in name}
        # `generate` draws from a seed; without it nothing does.
        draws = {"StatelessRandomUniformV2", "StatelessRandomUniformFullIntV2"}
        assert random == (set() if entry.vocabulary is None else draws)
        stored = tf.train.list_variables(str(entry.folder / "variables" / "variables"))
        count = sum(name.startswith("weights/") for name, _ in stored)
        assert count == len(entry.model.trainable_variables)


def test_a_model_without_text_needs_no_vocabulary(tmp_path):
    model = SequenceRegressor(TCN(4, 1), outputs=2)
    model.build((None, None, 3))
    folder = export_model(model, to=tmp_path, name="values", warmup=False)
    served = tf.saved_model.load(str(folder)).signatures
    assert served["outputs"](x=tf.zeros((1, 4, 3)))["outputs"].shape == (1, 2)


def test_what_must_see_the_whole_sequence_has_no_steps(tmp_path):
    """A core that reads both ways, or a pooled reader: rows and lengths, no streams."""
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    lengths = np.array([5, 2], "int32")
    both = keras.layers.Bidirectional(LSTM(4, seed=1))
    for name, model in (
        ("both", SequenceClassifier(both, 3)),
        ("pooled", SequenceRegressor(LSTM(4, seed=1), pooling="mean")),
    ):
        model.build((None, None, 3))
        folder = export_model(model, to=tmp_path, name=name, warmup=False)
        served = tf.saved_model.load(str(folder)).signatures
        output = "log_probs" if name == "both" else "outputs"
        assert set(served) == {"serving_default", output, f"{output}_of_lengths"}
        call = served[f"{output}_of_lengths"]
        answer = call(x=tf.constant(x), lengths=tf.constant(lengths))[output]
        np.testing.assert_allclose(answer, model({"inputs": x, "lengths": lengths}), atol=1e-5)
        np.testing.assert_allclose(answer[1:], model(x[1:, :2]), atol=1e-5)
        for wrong in ([0, 5], [6, 5]):
            with pytest.raises(tf.errors.InvalidArgumentError, match="`lengths` must be from 1"):
                call(x=tf.constant(x), lengths=tf.constant(wrong))
        with pytest.raises(tf.errors.InvalidArgumentError, match="as many rows as `x`"):
            call(x=tf.constant(x), lengths=tf.constant([1]))


@pytest.mark.slow
def test_generation_under_rules(tmp_path):
    """`generate` and `beam_search` answer as the model itself does with the same options."""
    vocabulary, model = words(), contract_model(11)
    rules: dict[str, Any] = {
        "stop": ["<eos>", "cat sat", "on the mat"],
        "ban": ["<unk>", "dog"],
        "repetition_penalty": 1.5,
    }
    folder = export_model(model, vocabulary, tmp_path, name="ruled", beams=3, warmup=False, **rules)
    served = tf.saved_model.load(str(folder)).signatures
    texts = ["the cat", "", "off"]
    numbers = {"length": 9, "temperature": 1.3, "top_k": 8, "seed": 4}
    drawn = served["generate"](
        text=tf.constant(texts), **{name: tf.constant(value) for name, value in numbers.items()}
    )
    found = served["beam_search"](
        text=tf.constant(texts), length=tf.constant(6), length_penalty=tf.constant(1.0)
    )
    assert found["ids"].shape == (3, 3, 6) and found["scores"].shape == (3, 3)
    for row, text in enumerate(texts):
        options = numbers | rules | {"seed": 4 + row}
        want = "".join(generate(model, vocabulary, text, **options))
        assert drawn["text"].numpy()[row].decode() == want
        options = {"beams": 3, "length_penalty": 1.0, **rules}
        want = "".join(generate(model, vocabulary, text, 6, **options))
        assert found["text"].numpy()[row, 0].decode() == want
    description = json.loads((folder / "assets.extra" / "keras_seq.json").read_text())["text"]
    assert description["stop_ids"] == [1, [2, 3], [4, 0, 6]] and description["beams"] == 3
    for wrong in ({"stop": "cow"}, {"beams": 0}, {"vocabulary": None, "ban": 1}):
        options: dict[str, Any] = {"vocabulary": vocabulary, **wrong}
        with pytest.raises(ValueError, match=r"`(stop|beams|ban)`"):
            export_model(model, to=tmp_path, **options)


@pytest.mark.slow
def test_answers_of_all_sizes_leave_nothing_behind(exported):
    """What the allocator has handed out stays; what is resident may have holes."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        pytest.skip("the C library does not say what is in use")

    class Usage(ctypes.Structure):
        _fields_ = [(f"field_{i}", ctypes.c_size_t) for i in range(10)]

    mallinfo.restype = Usage
    served = tf.saved_model.load(str(exported["trellis"].folder)).signatures
    rng = np.random.default_rng(1)

    def in_use(count: int) -> float:
        for _ in range(count):
            rows, length = (int(size) for size in rng.integers(1, 60, 2))
            ids = tf.constant(rng.integers(0, 10, (rows, length)), tf.int32)
            served["log_probs"](ids=ids)
            state = served["initial_state"](batch_size=tf.constant(rows))
            served["step"](ids=ids, **state)
        gc.collect()
        usage = mallinfo()
        return (usage.field_7 + usage.field_4) / 2**20

    before = in_use(30)
    assert in_use(120) - before < 3  # MiB; all answers together are 60


def test_recipe_names_the_model(tmp_path):
    class Recipe:
        name = "small"

        def to_json(self):
            return '{"name": "small", "epochs": 3}'

    folder = export_model(contract_model(11), None, tmp_path, recipe=Recipe(), warmup=False)
    assert folder == tmp_path / "small" / "1"
    description = json.loads((folder / "assets.extra" / "keras_seq.json").read_text())
    assert description["recipe"] == {"name": "small", "epochs": 3}
    assert not description["warmup"]
    assert not (folder / "assets.extra" / "tf_serving_warmup_requests").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "../up"}, "`name` must be of letters"),
        ({"name": ".hidden"}, "`name`"),
        ({"version": 0}, "`version` must be a positive integer. Received: version=0"),
        ({"top_k": 0}, "`top_k` must be a positive integer"),
        ({"max_tokens": 0}, "`max_tokens`"),
        ({"max_length": 1.5}, "`max_length`"),
        ({"to": None}, "`to` must be a folder"),
        ({"vocabulary": letters()}, "vocabulary.size=10, model.vocabulary_size=11"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export_model(contract_model(11), **{"vocabulary": words(), "to": tmp_path} | options)
    assert not list(tmp_path.iterdir())


def test_only_language_models_take_a_vocabulary(tmp_path, exported):
    with pytest.raises(ValueError, match="`vocabulary` must be `None`"):
        export_model(exported["classifier"].model, words(), tmp_path)


def test_state_of_changing_shape_is_refused(tmp_path):
    model = contract_model(11)
    model.get_initial_state = lambda batch_size, kind=None: {"hidden": tf.zeros((batch_size, 3))}
    with pytest.raises(ValueError):
        export_model(model, None, tmp_path)


def test_versions_rise(tmp_path):
    def write(folder):
        (folder / "saved_model.pb").write_text("x")

    parent = tmp_path / "model"
    assert publish(write, parent).name == "1"
    assert publish(write, parent).name == "2"
    assert publish(write, parent, 9).name == "9"
    assert publish(write, parent).name == "10"
    (parent / "notes").mkdir()
    assert publish(write, parent, 3).name == "3"
    assert versions(parent) == [1, 2, 3, 9, 10]
    with pytest.raises(FileExistsError, match="Version 3 exists already"):
        publish(write, parent, 3)


def test_a_version_taken_meanwhile_is_not_overwritten(tmp_path):
    def write(folder):
        (folder / "mine").write_text("x")
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "other").write_text("x")

    assert publish(write, tmp_path).name == "2"

    def again(folder):
        (folder / "mine").write_text("x")
        (tmp_path / "5").mkdir()
        (tmp_path / "5" / "other").write_text("x")

    with pytest.raises(FileExistsError):
        publish(again, tmp_path, 5)
    assert [path.name for path in (tmp_path / "5").iterdir()] == ["other"]


def test_a_failed_export_leaves_nothing(tmp_path):
    def write(folder):
        (folder / "half").write_text("x")
        raise RuntimeError("no space left")

    with pytest.raises(RuntimeError, match="no space left"):
        publish(write, tmp_path / "model")
    assert not list((tmp_path / "model").iterdir())


def test_a_reader_sees_whole_versions_only(tmp_path):
    """Eight writers at once, and a reader that polls as a server does."""
    stop = threading.Event()
    half: list[str] = []

    def poll():
        while not stop.is_set():
            for entry in tmp_path.iterdir():
                if entry.name.isdecimal() and len(list(entry.iterdir())) != 20:
                    half.append(entry.name)

    def write(folder):
        for i in range(20):
            (folder / str(i)).write_text("x" * 1000)

    reader = threading.Thread(target=poll)
    reader.start()
    writers = [
        threading.Thread(target=lambda: [publish(write, tmp_path) for _ in range(5)])
        for _ in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    stop.set()
    reader.join()
    assert not half
    assert versions(tmp_path) == list(range(1, 41))


@pytest.mark.slow
def test_a_poller_can_read_each_exported_model_at_once(tmp_path):
    """A thread that reads every version as soon as it is listed, while models are exported."""
    stop, read, faults = threading.Event(), set(), []

    def poll():
        while not stop.is_set():
            for number in set(versions(tmp_path / "words")) - read:
                folder = tmp_path / "words" / str(number)
                try:
                    saved = saved_model_pb2.SavedModel()
                    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
                    keys = set(saved.meta_graphs[0].signature_def)
                    described = json.loads((folder / "assets.extra/keras_seq.json").read_text())
                    if not keys >= set(described["signatures"]):
                        faults.append(keys)
                    tf.train.list_variables(str(folder / "variables" / "variables"))
                    Vocabulary.load(folder / "assets" / "vocabulary.txt")
                except Exception as error:
                    faults.append(error)
                read.add(number)

    (tmp_path / "words").mkdir()
    reader = threading.Thread(target=poll)
    reader.start()
    for _ in range(2):
        export_model(contract_model(11), words(), tmp_path, name="words")
    stop.set()
    reader.join()
    assert not faults
    assert 1 in read  # it was there while the second one was being written
    assert versions(tmp_path / "words") == [1, 2]


def test_others_may_read_the_folder(tmp_path):
    """The mode is that of a folder made here, not the private one of a temporary folder."""
    folder = publish(lambda made: None, tmp_path / "model")
    plain = tmp_path / "plain"
    plain.mkdir()
    assert folder.stat().st_mode == plain.stat().st_mode


@pytest.mark.slow
def test_the_server_tool_reads_the_signatures(exported):
    tool = "from tensorflow.python.tools.saved_model_cli import main; main()"
    shown = subprocess.run(
        [sys.executable, "-c", tool, "show", "--all", "--dir", str(exported["trellis"].folder)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in ("serving_default", "text", "generate", "step", "initial_state"):
        assert f"signature_def['{name}']" in shown


def test_exporting_leaves_the_model_as_it_was(tmp_path):
    model = trellis_model(11)
    before = [weight.copy() for weight in model.get_weights()]
    first = export_model(model, None, tmp_path, name="again")
    model.set_weights([weight * 0.5 for weight in before])
    second = export_model(model, None, tmp_path, name="again")
    ids = tf.constant([[1, 2, 3]])
    old, new = (
        tf.saved_model.load(str(folder)).signatures["log_probs"](ids=ids)["log_probs"].numpy()
        for folder in (first, second)
    )
    assert abs(old - new).max() > 0.1
    assert abs(new - model(ids, training=False).numpy()).max() < 1e-5
