"""A weight file in the layout of the PRU release becomes a model file by one command."""

import io
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
from typer.testing import CliRunner

from keras_seq import training
from keras_seq.cli.app import app

SIZES = ("vocabulary_size=31", "embedding_dim=8", "units=16")
MODELS = [
    ("pru_lm", "pru_ptb_word", (*SIZES, "groups=2")),
    ("pru_lm_lstm_baseline", "lstm_ptb_word", SIZES),
]


class StoredArray:
    """An array that is pickled as `torch.save` pickles a tensor."""

    def __init__(self, key, array):
        self.key, self.array = key, array

    def __reduce__(self):
        strides = tuple(s // self.array.itemsize for s in self.array.strides)
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (Storage(self), 0, self.array.shape, strides, False, {})


class Storage:
    """What the persistent id of a tensor stands for."""

    def __init__(self, tensor):
        self.tensor = tensor


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        kind = sys.modules["torch"].FloatStorage
        return "storage", kind, obj.tensor.key, "cpu", obj.tensor.array.size


@pytest.fixture
def save(monkeypatch):
    """A function that writes arrays as `torch.save` does, without PyTorch."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2():
        raise NotImplementedError

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})

    def write(path, arrays):
        tensors = {n: StoredArray(str(i), a) for i, (n, a) in enumerate(arrays.items())}
        pickled = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "torch", torch)
            patch.setitem(sys.modules, "torch._utils", utils)
            Pickler(pickled, protocol=2).dump(tensors)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickled.getvalue())
            archive.writestr("archive/byteorder", "little")
            for tensor in tensors.values():
                archive.writestr(f"archive/data/{tensor.key}", tensor.array.tobytes())

    return write


@pytest.mark.parametrize(("case", "name", "settings"), MODELS)
def test_file_of_the_release_converts(case, name, settings, save, golden, tmp_path):
    with np.load(golden / f"{case}.npz") as file:
        stored = {key: file[key] for key in file}
    weights = {
        key.removeprefix("param/"): np.ascontiguousarray(array, "float32")
        for key, array in stored.items()
        if key.startswith("param/")
    }
    weights["decoder.weight"] = weights["encoder.weight"]
    source, target = tmp_path / "model.pt", tmp_path / "model.weights.h5"
    save(source, weights)
    options = [part for setting in settings for part in ("--set", setting)]
    command = ["convert", str(source), name, "--to", str(target), *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output

    model, recipe, _ = training.load_model(target)
    assert recipe.name == name
    state = [[stored[f"in/{kind}0_{i}"][0] for kind in "hc"] for i in range(3)]
    ids = np.transpose(stored["in/tokens"])
    features = model.features(ids, state, return_state=True, masks={})
    logits = model.head.logits(features.outputs, tables=model.tables)
    np.testing.assert_allclose(
        np.transpose(logits, (1, 0, 2)), stored["out/logits"], rtol=1e-4, atol=1e-5
    )
