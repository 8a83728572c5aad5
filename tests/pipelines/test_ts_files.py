"""`.ts` files: what they hold, and what is wrong with broken ones."""

import numpy as np
import pytest

from keras_seq import pipelines
from keras_seq.pipelines.errors import DataError
from keras_seq.pipelines.ts_files import read_ts

HEADER = "@problemName Two\n@univariate false\n@dimensions 2\n@equalLength false\n"
LABELS = "@classLabel true low high\n"


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "Two_TRAIN.ts"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_what_a_file_holds(written):
    text = "# a comment\n" + HEADER + LABELS + "@data\n\n1, 2,3:7,8,?:low\n-4e-1:nan: high \n"
    file = read_ts(written(text))
    assert (file.problem, file.features, file.classes) == ("Two", 2, ("low", "high"))
    assert file.labels == ("low", "high") and file.lines == (9, 10)
    np.testing.assert_array_equal(
        file.series[0], np.asarray([[1, 7], [2, 8], [3, np.nan]], "float32")
    )
    np.testing.assert_array_equal(file.series[1], np.asarray([[-0.4, np.nan]], "float32"))
    assert {s.dtype for s in file.series} == {np.dtype("float32")}


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff@DATA\r\n1,2:3,4\r\n",  # of Windows, without any other header
        "@data\n1,2:3,4\n",
        "@timeStamps false\n@classLabel false\n@DATA\n1,2:3,4",
        "@unknown to us\n@data\n 1,2 : 3,4 \n",
    ],
)
def test_forms_of_a_file(written, text):
    file = read_ts(written(text))
    np.testing.assert_array_equal(file.series[0], [[1, 3], [2, 4]])
    assert file.labels == () == file.classes


def test_comments_need_not_be_utf8(written):
    file = read_ts(written("# Müller\n@data\n1,2\n".encode("latin-1")))
    np.testing.assert_array_equal(file.series[0], [[1], [2]])


def test_targets_are_kept_as_they_are_written(written):
    file = read_ts(written("@targetLabel true\n@data\n1,2:0.25\n"))
    assert file.labels == ("0.25",) and file.classes == ()


@pytest.mark.parametrize(
    "text, place, problem",
    [
        ("", "", "there is no line @data"),
        ("1,2,3\n", "line 1", "a series before @data: '1,2,3'"),
        ("@data\n# nothing\n", "", "no series after @data"),
        ("@timeStamps true\n@data\n", "line 1", "series with time stamps are not read"),
        ("@univariate maybe\n@data\n", "line 1", "@univariate must be true or false"),
        ("@dimensions none\n@data\n", "line 1", "@dimensions must be a positive number"),
        ("@classLabel true a b a\n@data\n", "line 1", "lists a class twice: a b a"),
        (HEADER + LABELS + "@data\n1,2:3,4\n", "line 7", "the label must stand last"),
        (HEADER + LABELS + "@data\n1,2:3,4:\n", "line 7", "the label must stand last"),
        (HEADER + LABELS + "@data\n1:3:mid\n", "line 7", "header's classes: low, high"),
        (HEADER + LABELS + "@data\n1,2:low\n", "line 7", "must have 2 dimensions. Found: 1"),
        ("@univariate true\n@data\n1:2\n", "line 3", "must have 1 dimensions. Found: 2"),
        ("@data\n1:2\n1\n", "line 3", "1 dimensions, the ones before it have 2"),
        ("@data\n1,2:3\n", "line 2, dimension 2", "1 values, but dimension 1 has 2"),
        ("@data\n1,x:3,4\n", "line 2, dimension 1, value 2", "'x' is no number"),
        ("@data\n1,2:3,\n", "line 2, dimension 2, value 2", "it is empty"),
        ("@data\n1,2::3,4\n", "line 2, dimension 2, value 1", "it is empty"),
        ("@data\n1e300\n", "line 2, dimension 1, value 1", "'1e300' is no number within float32"),
        ("@data\n0,inf\n", "line 2, dimension 1, value 2", "'inf' is no number"),
        ("@data\n1_0\n", "line 2, dimension 1, value 1", "'1_0' is no number"),
        ("@data\n1;2;3\n", "line 2, dimension 1, value 1", "'1;2;3' is no number"),
        (
            "@equalLength true\n@seriesLength 3\n@data\n1,2,3\n1,2\n",
            "line 5",
            "each series has 3 steps. Found: 2",
        ),
    ],
)
def test_a_broken_file_is_named_with_the_place(written, text, place, problem):
    path = written(text)
    with pytest.raises(DataError) as caught:
        read_ts(path)
    where = f"{path}, {place}: " if place else f"{path}: "
    assert str(caught.value).startswith(where)
    assert problem in str(caught.value)
    assert caught.value.remedy


def test_a_path_that_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_ts(tmp_path / "none.ts")
    with pytest.raises(DataError, match="it is a folder"):
        read_ts(tmp_path)


@pytest.mark.parametrize(
    "problem, counts, features, lengths, classes",
    [
        ("JapaneseVowels", (270, 370), 12, (7, 29), 9),
        ("BasicMotions", (40, 40), 6, (100, 100), 4),
        ("GunPoint", (50, 150), 1, (150, 150), 2),
        ("ItalyPowerDemand", (67, 1029), 1, (24, 24), 2),
    ],
)
def test_published_counts(shared_data, problem, counts, features, lengths, classes):
    if not (shared_data / "series").is_dir():
        pytest.skip("no folder series/")
    data = pipelines.load("series_classification", shared_data, batch_size=8, problem=problem)
    examples = data.info["examples"]
    assert (examples["train"] + examples["validation"], examples["test"]) == counts
    assert (data.info["features"], tuple(data.info["lengths"])) == (features, lengths)
    assert data.info["classes"] == classes
