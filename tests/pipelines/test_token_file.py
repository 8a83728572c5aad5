"""Token files: atomic, checked, mapped."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_seq.pipelines import DataError
from keras_seq.pipelines.token_file import (
    as_tensor,
    open_token_file,
    read_token_file,
    write_token_file,
)

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_pipeline.py"


def write(path, size=100, vocabulary_size=300, **facts):
    blocks = [np.arange(size) % vocabulary_size, np.arange(7)]
    return write_token_file(path, blocks, vocabulary_size, facts)


@pytest.mark.parametrize("vocabulary_size, dtype", [(300, "uint16"), (70_000, "uint32")])
def test_round_trip(tmp_path, vocabulary_size, dtype):
    path = tmp_path / "a.ids"
    assert write(path, vocabulary_size=vocabulary_size, source="x") == 107
    ids = read_token_file(path, {"source": "x"})
    assert ids is not None and ids.dtype == dtype
    assert np.array_equal(ids, [*range(100), *range(7)])
    assert np.array_equal(as_tensor(ids).numpy(), ids)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ids", "a.json"]


def test_anything_wrong_means_encode_again(tmp_path):
    path = tmp_path / "a.ids"
    assert read_token_file(path) is None
    write(path, source="x")
    whole = path.read_bytes()
    assert read_token_file(path, {"source": "y"}) is None
    path.write_bytes(whole[:-2])
    assert read_token_file(path) is None
    path.write_bytes(whole[:-2] + b"\x09\x00")
    assert read_token_file(path) is None
    path.write_bytes(whole)
    assert read_token_file(path) is not None
    for description in ("", "{}", "[1]", json.dumps({"tokens": 107, "dtype": "spam", "crc32": 0})):
        path.with_suffix(".json").write_text(description)
        assert read_token_file(path) is None


def test_a_failed_write_leaves_nothing(tmp_path):
    def blocks():
        yield np.arange(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_token_file(tmp_path / "a.ids", blocks(), 10)
    assert not list(tmp_path.iterdir())


def test_open_checks_every_id(tmp_path):
    path = tmp_path / "a.ids"
    np.array([1, 2, 299, 300, 5], np.uint16).tofile(path)
    with pytest.raises(DataError, match="id 300 is out of range") as caught:
        open_token_file(path, 300)
    assert caught.value.place == "token 3 (byte 6)" and str(path) in str(caught.value)
    assert open_token_file(path, 301).tolist() == [1, 2, 299, 300, 5]


def test_open_refuses_broken_files(tmp_path):
    path = tmp_path / "a.ids"
    with pytest.raises(DataError, match="no such file"):
        open_token_file(path, 300)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="no ids"):
        open_token_file(path, 300)
    path.write_bytes(b"abc")
    with pytest.raises(DataError, match="whole number") as caught:
        open_token_file(path, 300)
    assert caught.value.place == "byte 3"


def test_unaligned_memory_is_copied():
    ids = np.arange(1000, dtype=np.uint16)
    for offset in range(1, 5):
        assert np.array_equal(as_tensor(ids[offset:]).numpy(), ids[offset:])
    assert as_tensor(np.zeros(0, np.uint16)).shape == (0,)


@pytest.mark.slow
def test_speed_and_memory():
    """Floors far below the measured figures, so that a busy machine passes too."""
    pytest.importorskip("resource")
    code = (
        f"import json, sys; sys.path.insert(0, {str(BENCHMARK.parent)!r});"
        f"import {BENCHMARK.stem} as benchmark;"
        "benchmark.TOKENS = 20_000_000;"
        "print(json.dumps(benchmark.token_pipeline()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["tokens_per_second"] > 20e6
    assert result["peak_bytes_per_token"] < 3.5
