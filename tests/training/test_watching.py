"""What TensorBoard gets of a run beside its curves."""

import csv
import struct

import numpy as np
import pytest
import tensorflow as tf
from small import TINY_TEXT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_seq import layers, models, training, zoo
from keras_seq._tasks import TASKS
from keras_seq.training.outputs import TensorBoardLogs
from keras_seq.training.watching import maps, watch
from keras_seq.training.watching.labels import label
from keras_seq.zoo import Reported


def read(folder):
    return EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    return tiny_recipe.replace(reported=Reported("bits_per_character", 1.25, "Table 1"))


@pytest.fixture(scope="module")
def watched(recipe, tiny_text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "watched"
    return training.train(recipe, tiny_text, folder, verbose=0, watch=True)


def test_the_papers_figure_is_a_line(watched):
    logs = read(watched.logs_folder / "paper")
    for tag in ("bits", "epoch_bits"):
        points = [(event.step, event.value) for event in logs.Scalars(tag)]
        assert points == [(0, 1.25), (6, 1.25), (12, 1.25)]
        assert tag in read(watched.logs_folder / "validation").Tags()["scalars"]


def test_percentages_become_shares(tiny_recipe):
    reported = Reported("accuracy", 98.13, "Table 2")
    assert watch.paper_line(tiny_recipe.replace(reported=reported)) == {"accuracy": 0.9813}
    assert watch.paper_line(tiny_recipe) == {}


def test_hparams(watched):
    from tensorboard.plugins.hparams import metadata

    logs = read(watched.logs_folder)
    found = logs.PluginTagToContent(metadata.PLUGIN_NAME)
    start = metadata.parse_session_start_info_plugin_data(found[metadata.SESSION_START_INFO_TAG])
    values = start.hparams
    assert values["model.units"].number_value == 6
    assert values["optimizer.name"].string_value == watched.recipe.optimizer.name
    assert start.group_name in ("", "watched")
    assert metadata.SESSION_END_INFO_TAG in found
    (best,) = logs.Scalars("best/bits")
    row = watched.history[watched.best_epoch - 1]
    assert best.value == pytest.approx(row["val_bits"])
    assert best.step == 12


def test_the_projector_has_the_vocabulary(watched):
    folder = watched.logs_folder / "model"
    with (folder / "metadata.tsv").open(newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    tokens = [token.decode() for token in watched.vocabulary.tokens]
    assert rows[0] == ["token", "id"]
    assert [row[1] for row in rows[1:]] == [str(i) for i in range(len(tokens))]
    assert [row[0] for row in rows[1:]][-1] == label(tokens[-1])
    config = (folder / "projector_config.pbtxt").read_text()
    name = config.split('tensor_name: "')[1].split('"')[0]
    vectors = tf.train.load_variable(str(folder), name)  # the newest checkpoint
    model = watched.load_model("last")
    np.testing.assert_array_equal(vectors, model.embedding(np.arange(len(tokens))[None])[0])


def test_pictures(watched):
    logs = read(watched.logs_folder / "model")
    (image,) = logs.Images("saliency")
    assert image.step == 12
    assert image.encoded_image_string.startswith(b"\x89PNG")
    assert struct.unpack(">I", image.encoded_image_string[16:20]) == (image.width,)


def test_watching_changes_no_weight_and_can_be_left_out(watched, recipe, tiny_text, tmp_path):
    run = training.train(recipe, tiny_text, tmp_path / "r", verbose=0, watch=False)
    assert sorted(path.name for path in run.logs_folder.iterdir()) == ["train", "validation"]
    for ours, theirs in zip(
        run.load_model("last").get_weights(), watched.load_model("last").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_brief_run_has_no_pictures_and_a_failing_one_goes_on(
    recipe, tiny_text, tmp_path, monkeypatch
):
    brief = training.train(recipe, tiny_text, tmp_path / "a", epochs=1, verbose=0)
    assert not read(brief.logs_folder / "model").Tags()["images"]
    assert (brief.logs_folder / "model" / "metadata.tsv").is_file()
    noted = []
    monkeypatch.setattr(maps, "drawn_maps", lambda *arguments: 1 / 0)
    watching = watch.Watch(brief, recipe, brief.data(), noted.append, always=True)
    watching.on_train_begin()
    watching.on_epoch_end(0, {"step": 6, "val_nll": 1.0})
    watching.on_train_end()
    assert "ZeroDivisionError" in noted[0]


def test_pictures_within_a_run_have_a_share_of_its_time(watched, recipe, monkeypatch):
    clock, drawn = [0.0], []

    def draw(*arguments):
        drawn.append(clock[0])
        clock[0] += 3.0
        return {}

    monkeypatch.setattr(watch.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(maps, "drawn_maps", draw)
    watching = watch.Watch(watched, recipe, watched.data(), print)
    watching.on_train_begin()
    for epoch in range(100):
        clock[0] += 10
        watching.on_epoch_end(epoch, {"step": epoch, "val_nll": 1.0})
    assert 5 <= len(drawn) <= 11
    assert 3.0 * len(drawn) <= watch.SHARE * clock[0] + 3


def test_a_stopped_run_has_not_ended(recipe, watched, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(watch.Watch, "_draw", lambda self, step: drawn.append(step))
    watching = watch.Watch(watched, recipe, watched.data(), print, always=True)
    watching.on_train_begin()
    watching.on_epoch_begin(2)
    watching.on_train_end()
    assert drawn == []


def test_attention_maps_of_a_model():
    core = layers.RTransformer(units=8, levels=2, window=2, heads=2, span=4)
    model = models.LanguageModel(12, 8, core)
    ids = np.arange(20).reshape(2, 10) % 12
    pictures = maps.drawn_maps(model, ids)
    names = sorted(pictures)
    assert len(names) == 3
    assert names[-1] == "saliency"
    assert all(name.startswith("attention/") for name in names[:-1])
    assert all(data.startswith(b"\x89PNG") for data in pictures.values())


RELATIVE = {
    "transformer_xl_python_docs": {"model.levels": 2, "model.span": 8},
    "deq_transformer_python_docs": {"model.max_steps": 2, "model.inference_max_steps": 2},
}


@pytest.mark.parametrize(("name", "count"), [*zip(RELATIVE, (2, 1), strict=True)])
@pytest.mark.slow
def test_pictures_of_relative_attention(name, count, tiny_text, tmp_path):
    small = {"model.units": 8, "model.heads": 2, "model.inner_units": 8, "model.memory_length": 7}
    recipe = zoo.recipe(name).replace(**TINY_TEXT, **small, **RELATIVE[name])
    run = training.train(recipe, tiny_text, tmp_path / "r", max_steps=1, verbose=0, watch=True)
    logs = read(run.logs_folder / "model")
    tags = [tag for tag in logs.Tags()["images"] if tag.startswith("attention/")]
    assert len(tags) == count
    for tag in (*tags, "saliency"):
        (image,) = logs.Images(tag)
        assert image.step == 1
        assert image.encoded_image_string.startswith(b"\x89PNG")


@pytest.mark.parametrize("vocabulary_size", [None, 5])
def test_saliency_of_a_classifier(vocabulary_size):
    core = layers.TrellisNet(units=4, output_units=4, levels=2)
    embedding = {"vocabulary_size": vocabulary_size, "embedding_dim": 3} if vocabulary_size else {}
    model = models.SequenceClassifier(core, classes=3, **embedding)
    x = np.zeros((2, 9), "int32") if vocabulary_size else np.ones((2, 9, 1), "float32")
    model(x)
    assert list(maps.drawn_maps(model, x)) == ["saliency"]
    norms = maps.input_norms(model, tf.constant(x[:1]))
    assert norms.shape == (9,)
    # Only the receptive field counts.
    assert np.all(norms[:-3] == 0)
    assert np.all(norms[-3:] > 0)


def test_the_solver_has_a_place_of_its_own(tmp_path):
    logs = TensorBoardLogs(tmp_path)
    logs.write("train", 1, {"loss": 1.0, "equilibrium_steps": 7.0, "equilibrium_residual": 0.1})
    logs.close()
    tags = read(tmp_path / "train").Tags()["scalars"]
    assert sorted(tags) == ["loss", "solver/equilibrium_residual", "solver/equilibrium_steps"]


def test_the_context_before_a_passage_is_left_out():
    ids, weights = np.arange(12).reshape(2, 6), np.ones((2, 6))
    weights[0, :2] = 0
    batch = (ids, ids, weights)
    assert watch._passage(batch, TASKS["language_model"]).tolist() == [[2, 3, 4, 5]]
    assert watch._passage(batch[:2], TASKS["sequence_classifier"]).tolist() == [[0, 1, 2, 3, 4, 5]]


def test_labels():
    assert label(b"a b") == "a␣b"
    assert label("\n") == "↵"
    assert label(b"\xff\x01") == "\\xff\\x01"
    assert label("") == "(empty)"
