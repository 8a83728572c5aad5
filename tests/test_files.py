"""Files are written whole, and errors about them name them."""

import os
import signal
import stat
import threading
from pathlib import Path

import pytest

from keras_seq import _files
from keras_seq._reading import BrokenFileError, read_object, read_text, reading, regular


def test_writers_of_one_name_do_not_meet(tmp_path):
    path, together = tmp_path / "file", threading.Barrier(8)
    faults = []

    def write(number):
        try:
            with _files.atomic(path) as temporary:
                temporary.write_text(f"{number}" * 1000)
                together.wait(10)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    text = path.read_text()
    assert len(text) == 1000 and len(set(text)) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_failed_writer_leaves_the_former_file(tmp_path):
    path = tmp_path / "file"
    _files.write_text(path, "former")
    path.chmod(0o600)
    with pytest.raises(KeyboardInterrupt), _files.atomic(path) as temporary:
        temporary.write_text("part")
        raise KeyboardInterrupt
    assert path.read_text() == "former"
    _files.write_text(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_whole_or_not_there(tmp_path):
    folder = tmp_path / "made.here"
    with pytest.raises(KeyboardInterrupt), _files.atomic_folder(folder) as made:
        (made / "part").touch()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with _files.atomic_folder(folder) as made:
        (made / "file").touch()
    assert [file.name for file in folder.iterdir()] == ["file"]
    killed = _files._beside(folder)
    (killed / "made").mkdir(parents=True)
    _files.remove_unfinished(tmp_path)
    assert not killed.exists()
    killed.mkdir()
    folder.rename(killed / "former")
    assert _files.set_aside(tmp_path)["made.here"].is_dir()
    _files.remove_unfinished(tmp_path)
    with pytest.raises(FileExistsError), _files.atomic_folder(folder):
        pass
    assert [file.name for file in folder.iterdir()] == ["file"]


def test_what_killed_writers_left_is_removed(tmp_path):
    path = tmp_path / "best.weights.h5"
    with pytest.raises(RuntimeError), _files.atomic(path, ".weights.h5") as temporary:
        temporary.touch()
        (tmp_path / "copy").write_text(temporary.name)
        raise RuntimeError
    left = (tmp_path / "copy").read_text()
    for name in (left, ".notes.tmp", "notes.tmp"):
        (tmp_path / name).touch()
    _files.remove_unfinished(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".notes.tmp", "copy", "notes.tmp"]


def test_links_and_devices(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    link.symlink_to(real)
    _files.write_text(link, "text")
    assert link.is_symlink() and real.read_text() == "text"
    _files.write_text("/dev/null", "text")
    assert not Path("/dev/null").is_file()


def test_errors_of_writing_name_the_file(tmp_path):
    resource = pytest.importorskip("resource")
    folder, missing = tmp_path / "folder", tmp_path / "missing" / "file"
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match=str(folder)):
        _files.write_text(folder, "text")
    with pytest.raises(FileNotFoundError, match=f"'{missing}'"):
        _files.write_text(missing, "text")
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, former[1]))
    try:
        with pytest.raises(OSError, match=str(tmp_path / "long")):
            _files.write_text(tmp_path / "long", "text" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, handler)
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"", "line 1, column 1"),
        (b'{"a": 1,\n]', "line 2, column 1"),
        (b'{"a": "\xff"}', "byte 7, line 1"),
        (b"[]", None),
        (b"[" * 100_000, None),
        (b"9" * 5000, None),
        (b'{"a": 1}\0', "line 1, column 9"),
    ],
)
def test_broken_json(tmp_path, content, place):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(BrokenFileError, match="Do this") as caught:
        read_object(path, "a document", "Do this.")
    assert str(path) in str(caught.value) and caught.value.place == place


def test_only_files_are_read(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, kind in ((pipe, "a pipe"), (tmp_path, "a folder"), ("/dev/zero", "a device")):
        with pytest.raises(BrokenFileError, match=f"{path}: it is {kind}"):
            read_text(path, "text", "Give a file.")
    with pytest.raises(FileNotFoundError, match="none: no such file"):
        regular(tmp_path / "none")


@pytest.mark.parametrize("kind", [EOFError, KeyError, MemoryError, OSError, RecursionError])
def test_errors_of_any_kind_name_the_file(kind):
    start = "^some/file: it cannot be read as a model"
    remedy = "Fetch it again."
    with pytest.raises(BrokenFileError, match=start), reading("some/file", "a model", remedy):
        raise kind("x")
