"""Sets of weights take their place whole: with killed writers, and with several at once."""

import shutil
import threading

import pytest

from keras_seq import _files, zoo
from keras_seq.zoo import shipped_weights


def make(folder, text, force=True):
    with _files.atomic_folder(folder, force) as made:
        for name in ("manifest.json", "model.weights.h5"):
            (made / name).write_text(text)


def content(folder):
    return {(folder / name).read_text() for name in ("manifest.json", "model.weights.h5")}


def test_a_set_is_replaced_only_when_asked_and_never_lost(tmp_path, monkeypatch):
    folder = tmp_path / "model" / "name"
    make(folder, "first", force=False)
    with pytest.raises(FileExistsError, match="name exists. Choose another name"):
        make(folder, "second", force=False)
    with pytest.raises(KeyboardInterrupt), _files.atomic_folder(folder, True) as made:
        (made / "manifest.json").touch()
        raise KeyboardInterrupt
    assert content(folder) == {"first"}
    rename = type(folder).rename

    def interrupted(path, target):
        if path.name == "made" and not folder.exists():
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(folder), "rename", interrupted)
        make(folder, "second")
    assert content(folder) == {"first"}
    make(folder, "second")
    assert content(folder) == {"second"}
    assert [file.name for file in folder.parent.iterdir()] == ["name"]


def test_after_a_kill_between_the_renames_the_former_set_comes_back(tmp_path):
    folder = tmp_path / "model" / "name"
    make(folder, "first")
    hidden = folder.with_name(".name.killed")
    shutil.copytree(folder, hidden / "made")
    folder.rename(hidden / "former")
    with pytest.raises(FileExistsError):
        make(folder, "second", force=False)
    assert content(folder) == {"first"}


@pytest.mark.parametrize("force", [True, False])
def test_several_writers_of_one_name(tmp_path, force):
    folder, together = tmp_path / "model" / "name", threading.Barrier(8)
    outcomes = []

    def write(number):
        together.wait(10)
        try:
            make(folder, f"{number}", force)
            outcomes.append(None)
        except BaseException as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(content(folder)) == 1
    assert outcomes.count(None) == (8 if force else 1)
    assert set(outcomes) <= {None, FileExistsError}
    assert [file.name for file in folder.parent.iterdir()] == ["name"]


def test_a_killed_pack_hides_no_set(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped_weights, "FOLDER", tmp_path)
    folder = tmp_path / "model" / "name"
    make(folder, "{}")
    make(folder.with_name("other"), "{}")
    hidden = folder.with_name(".name.123-0a1b2c3d.tmp")
    shutil.copytree(folder, hidden / "made")
    folder.rename(hidden / "former")
    assert [(s.name, s.folder) for s in zoo.weights("model")] == [
        ("name", hidden / "former"),
        ("other", folder.with_name("other")),
    ]
    shutil.copytree(hidden / "made", folder)
    assert [s.folder for s in zoo.weights()] == [folder, folder.with_name("other")]


def test_unfinished_sets_are_not_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped_weights, "FOLDER", tmp_path)
    for name in ("name", ".other.partial", ".name.killed/made", ".name.killed/former"):
        (tmp_path / "model" / name).mkdir(parents=True)
        (tmp_path / "model" / name / "manifest.json").write_text("{}")
    (tmp_path / "model" / ".name.killed" / "manifest.json").write_text("{}")
    (shipped,) = zoo.weights()
    assert shipped.name == "name"
    with pytest.raises(ValueError, match=r"model/name/manifest\.json: it lacks `sha256`"):
        _ = shipped.manifest
