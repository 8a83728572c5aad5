"""PyTorch weight files are read without PyTorch, and nothing in them is executed."""

import os
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from keras_seq.convert import TorchFileError, read_state_dict

FIXTURES = Path(__file__).parent / "fixtures"
FORMATS = ["zip", "legacy"]


def expected():
    """What make_fixtures.py stored in tensors_*.pt."""
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    found = {
        "plain": base,
        "transposed": base.T,
        "window": base[1:, 1::2],
        "expanded": np.full((2, 3), 2.5, np.float32),
        "scalar": np.float32(7),
        "empty": np.zeros((0, 3), np.float32),
        "parameter": base[:2, :2],
        "bool": np.array([True, False, True]),
        "bfloat16": np.arange(6, dtype=np.float32).reshape(2, 3),
    }
    for name in ("float64", "float16", "int64", "int32", "int16", "int8", "uint8"):
        found[name] = np.arange(6).reshape(2, 3).astype(name)
    return found


@pytest.mark.parametrize("kind", FORMATS)
def test_types_and_views(kind):
    state = read_state_dict(FIXTURES / f"tensors_{kind}.pt")
    wanted = expected()
    assert set(state) == set(wanted)
    for name, array in wanted.items():
        assert state[name].dtype == array.dtype, name
        assert not state[name].flags.writeable
        np.testing.assert_array_equal(state[name], array, err_msg=name)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("content", ["trellis_lm", "trellis_lm_checkpoint", "trellis_lm_module"])
def test_state_dicts_checkpoints_and_modules(kind, content, golden):
    state = read_state_dict(FIXTURES / f"{content}_{kind}.pt")
    state = {name.removeprefix("module."): array for name, array in state.items()}
    with np.load(golden / "trellis_lm_tied_wn.npz") as file:
        stored = {k.removeprefix("param/"): file[k] for k in file if k.startswith("param/")}
    assert set(stored) < set(state)  # the aliases come on top
    for name, array in stored.items():
        np.testing.assert_array_equal(state[name], array)
    np.testing.assert_array_equal(state["decoder.weight"], stored["encoder.weight"])


@pytest.mark.parametrize("kind", FORMATS)
def test_files_of_the_installed_pytorch(kind, tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.randn(3, 4, 5)
    state = {"a": base, "b": base.permute(2, 0, 1)[1:, ::2], "c": base.bfloat16(), "d": base.half()}
    path = tmp_path / "x.pt"
    torch.save({"model": state, "step": 3}, path, _use_new_zipfile_serialization=kind == "zip")
    found = read_state_dict(path)
    assert set(found) == set(state)
    for name, tensor in state.items():
        tensor = tensor.float() if name == "c" else tensor
        np.testing.assert_array_equal(found[name], tensor.numpy())


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def zip_around(path, content):
    """A zip file as torch.save writes it, around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))
        archive.writestr("archive/byteorder", "little")


@pytest.mark.parametrize("kind", FORMATS)
def test_calls_are_refused_and_not_made(kind, tmp_path):
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"
    evil = {"weight": Call(os.mkdir, str(trace))}
    if kind == "zip":
        zip_around(path, evil)
    else:
        magic = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, evil, []]
        path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in magic))
    with pytest.raises(TorchFileError, match=r"evil\.pt.*`(posix|nt)\.mkdir`.*at byte \d+"):
        read_state_dict(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "evil",
    [
        Call(eval, "1"),
        Call(getattr, "a", "upper"),
        Call(pickle.loads, b"N."),
        Call(__import__, "os"),
    ],
    ids=["eval", "getattr", "loads", "import"],
)
def test_other_calls_are_refused(evil, tmp_path):
    path = tmp_path / "evil.pt"
    zip_around(path, {"state_dict": {"weight": evil}})
    with pytest.raises(TorchFileError, match="asks to call .*nothing was called"):
        read_state_dict(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_files(kind, tmp_path):
    whole = (FIXTURES / f"trellis_lm_{kind}.pt").read_bytes()
    path = tmp_path / "half.pt"
    for length in (0, 1, 3, 100, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:length])
        with pytest.raises(TorchFileError, match=r"half\.pt"):
            read_state_dict(path)
    if kind == "legacy":
        with pytest.raises(TorchFileError, match=r"ends inside storage .*at byte \d+"):
            read_state_dict(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_give_an_error_or_arrays(kind, tmp_path):
    """Flipped bytes anywhere lead to no other exception, and to no endless loop."""
    whole, path = (FIXTURES / f"tensors_{kind}.pt").read_bytes(), tmp_path / "damaged.pt"
    draw, refused = random.Random(5), 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(data)
        try:
            read_state_dict(path)
        except TorchFileError:
            refused += 1
    assert refused > 50


def test_views_beyond_their_storage_are_refused(tmp_path):
    """A tensor that claims more than its storage holds reads no foreign memory."""
    with zipfile.ZipFile(FIXTURES / "tensors_zip.pt") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name in entries if name.endswith("data.pkl"))
    # The shape (4, 6) with strides (6, 1) of the first tensor becomes (4, 7) and (7, 1).
    assert entries[pickled].count(b"K\x04K\x06\x86") >= 1
    entries[pickled] = entries[pickled].replace(b"K\x04K\x06\x86", b"K\x04K\x07\x86", 1)
    path = tmp_path / "long.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    with pytest.raises(TorchFileError, match=r"`plain` of shape \(4, 7\).*beyond storage"):
        read_state_dict(path)


@pytest.mark.parametrize(
    "content,message",
    [
        (b"hello world", "neither a zip archive nor a pickle"),
        (b"", "empty"),
        (pickle.dumps({"a": 1}), "torch.save did not write it"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5"),
        (bytes(257) + b"ustar" + bytes(20), "tar archive"),
    ],
)
def test_other_files(content, message, tmp_path):
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    with pytest.raises(TorchFileError, match=rf"other\.pt.*{message}"):
        read_state_dict(path)


def test_only_what_is_needed_is_unpacked(tmp_path):
    """Neither far more than a file holds, nor what is no weight, nor more than a model takes."""
    with zipfile.ZipFile(FIXTURES / "tensors_zip.pt") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
        archive.writestr("archive/data/77", bytes(1 << 27))
    assert path.stat().st_size < 1 << 18
    with pytest.raises(TorchFileError, match=r"bomb\.pt.*134,2.* nothing was unpacked"):
        read_state_dict(path)
    with pytest.raises(TorchFileError, match=r"take \d+ bytes, for this model at most 100 are"):
        read_state_dict(FIXTURES / "tensors_zip.pt", limit=100)
    with pytest.raises(TorchFileError, match=r"take \d+ bytes, for this model at most 100 are"):
        read_state_dict(FIXTURES / "tensors_legacy.pt", limit=100)


def test_pipes_and_folders_are_refused(tmp_path):
    pipe = tmp_path / "pipe.pt"
    os.mkfifo(pipe)
    for path, kind in ((pipe, "a pipe"), (tmp_path, "a folder")):
        with pytest.raises(TorchFileError, match=f"is none: it is {kind}"):
            read_state_dict(path)


def test_files_without_weights(tmp_path):
    path = tmp_path / "none.pt"
    with pytest.raises(TorchFileError, match="There is no file"):
        read_state_dict(path)
    zip_around(path, {"epoch": 3})
    with pytest.raises(TorchFileError, match="with keys .'epoch'.*neither a state dict"):
        read_state_dict(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no weights")
    with pytest.raises(TorchFileError, match="holds 0 entries `data.pkl`"):
        read_state_dict(path)
