"""TensorFlow Datasets: our builders on small files, and the stock ones mocked. All offline."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from pipeline_files import LINES, character_count, scored_ids, word_count, word_file

from keras_seq import pipelines
from keras_seq.pipelines import DataError, MissingDataError, tfds_builders

COUNTS = {
    "train": len(LINES["train"]),
    "validation": len(LINES["valid"]),
    "test": len(LINES["test"]),
}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """A test that would fetch something fails."""

    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr(tfds.core.utils.gcs_utils, "_is_gcs_disabled", True)


def info_of(path: Path):
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return tfds.download.checksums.UrlInfo(len(content), digest, path.name)


@pytest.fixture
def published(tmp_path, monkeypatch) -> Path:
    """A folder of small files under their published names, with their checksums registered."""
    folder = tmp_path / "manual"
    folder.mkdir()
    for split, lines in LINES.items():
        (folder / f"ptb.{split}.txt").write_bytes(word_file(lines))
    for size in ("2", "103"):
        with zipfile.ZipFile(folder / f"wikitext-{size}-v1.zip", "w") as archive:
            for split, lines in LINES.items():
                content = b" \n" + word_file(lines)
                archive.writestr(f"wikitext-{size}/wiki.{split}.tokens", content)
    for builder in (tfds_builders.KerasSeqPtb, tfds_builders.KerasSeqWikitext):
        infos = {url: info_of(folder / url.rsplit("/", 1)[1]) for url in builder.url_infos}
        monkeypatch.setattr(builder, "url_infos", infos)
    return folder


def load(name, folder, **options):
    return pipelines.load(
        name, folder, batch_size=2, length=8, eval_batch_size=1, source="tfds", **options
    )


def test_ptb_through_tfds_equals_the_files(published, tmp_path, ptb_folder):
    for name, count in (("ptb_word", word_count), ("ptb_char", character_count)):
        data = load(name, tmp_path / "tfds", manual_dir=published)
        files = pipelines.load(name, ptb_folder, batch_size=2, length=8)
        assert data.info["tokens"] == files.info["tokens"]
        assert data.info["tokens"]["test"] == count(LINES["test"])
        assert data.vocabulary.tokens == files.vocabulary.tokens
        for a, b in zip(data.train, files.train, strict=True):
            assert np.array_equal(a[0], b[0])
        again = load(name, tmp_path / "tfds")  # prepared: needs neither files nor network
        assert np.array_equal(scored_ids(again.test), scored_ids(data.test))


@pytest.mark.parametrize("name", ["wikitext2", pytest.param("wikitext103", marks=pytest.mark.slow)])
def test_wikitext_through_tfds(published, tmp_path, name):
    data = load(name, tmp_path / "tfds", manual_dir=published)
    counts = {split: word_count(LINES[key]) for split, key in zip(COUNTS, LINES, strict=True)}
    assert data.info["tokens"] == {split: count + 1 for split, count in counts.items()}


@pytest.mark.slow
def test_lines_keep_their_order_over_several_shards(published, tmp_path):
    builder = tfds.builder("keras_seq_ptb/word", data_dir=tmp_path / "tfds")
    config = tfds.download.DownloadConfig(manual_dir=published, num_shards=3)
    builder.download_and_prepare(download_config=config)
    assert builder.info.splits["train"].num_shards == 3
    data = load("ptb_word", tmp_path / "tfds", vocabulary_order="appearance")
    files = pipelines.load(
        "ptb_word", published, batch_size=2, length=8, vocabulary_order="appearance"
    )
    assert data.vocabulary.tokens == files.vocabulary.tokens
    for a, b in zip(data.train, files.train, strict=True):
        assert np.array_equal(a[0], b[0])


def test_a_changed_file_is_refused(published, tmp_path):
    (published / "ptb.train.txt").write_bytes(b"other text\n")
    with pytest.raises(DataError, match="Checksum"):
        load("ptb_word", tmp_path / "tfds", manual_dir=published)


def test_not_prepared_says_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(MissingDataError) as caught:
        load("ptb_word", tmp_path / "tfds")
    for part in ("keras_seq_ptb/word", "download=True", "ptb.train.txt", "manual_dir", "data_dir"):
        assert part in str(caught.value)

    def fail(self, **settings):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(DataError, match="could not prepare.*no route to host"):
        load("ptb_word", tmp_path / "tfds", download=True)


def test_checksums_of_the_published_files(shared_data):
    for name, digest in (
        (url.rsplit("/", 1)[1], info.checksum)
        for url, info in tfds_builders.KerasSeqPtb.url_infos.items()
    ):
        content = (shared_data / "ptb" / name.removeprefix("ptb.")).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest


@pytest.mark.parametrize(
    "name, shape", [("seq_mnist", (784, 1)), ("perm_mnist", (784, 1)), ("seq_cifar10", (1024, 3))]
)
def test_images_through_tfds(tmp_path, monkeypatch, name, shape):
    monkeypatch.setattr(tfds.core.DatasetBuilder, "is_prepared", lambda self: True)
    with tfds.testing.mock_data(num_examples=20):
        data = pipelines.load(name, tmp_path, batch_size=4, source="tfds", validation=5)
    assert data.info["examples"] == {"train": 15, "validation": 5, "test": 20}
    x, y = next(iter(data.train))
    assert x.shape == (4, *shape) and y.shape == (4,)


class PtbTest(tfds.testing.DatasetBuilderTestCase):
    """The checks of TensorFlow Datasets itself."""

    DATASET_CLASS = tfds_builders.KerasSeqPtb
    EXAMPLE_DIR = "set below"
    SPLITS = COUNTS
    DL_EXTRACT_RESULT = {
        "train": "ptb.train.txt",
        "validation": "ptb.valid.txt",
        "test": "ptb.test.txt",
    }


class WikitextTest(tfds.testing.DatasetBuilderTestCase):
    """The checks of TensorFlow Datasets itself."""

    DATASET_CLASS = tfds_builders.KerasSeqWikitext
    EXAMPLE_DIR = "set below"
    BUILDER_CONFIG_NAMES_TO_TEST = ["wikitext2"]
    SPLITS = COUNTS


@pytest.fixture(scope="session", autouse=True)
def example_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    (folder / "wikitext-2").mkdir()
    for split, lines in LINES.items():
        (folder / f"ptb.{split}.txt").write_bytes(word_file(lines))
        (folder / "wikitext-2" / f"wiki.{split}.tokens").write_bytes(word_file(lines))
    for case in (PtbTest, WikitextTest):
        case.EXAMPLE_DIR = str(folder)
